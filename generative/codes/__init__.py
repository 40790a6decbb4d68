"""Images as grids of codes: VQ-VAE, VQ-GAN, ViT VQ-GAN, and the priors that draw codes.

model = VQVAE.from_pretrained("runs/vqvae/model")
prior = PixelCNNPrior.from_pretrained("runs/code_prior/model")
images = model.decode(prior.sample(16))

`model` has encoder, quantiser and decoder, `networks` what these are made of, `learner` the
training with a critic or without, `prior` the distributions of codes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
