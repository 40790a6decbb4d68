"""VAE-GAN: a VAE whose reconstructions are compared by what a critic sees (Larsen et al. 2016).

It is the case without a quantiser of what VQ-GAN does to VQ-VAE (Foster 2023, chapter 10).

model = VAEGAN.from_pretrained("runs/vae_gan/model")
model.reconstruct(x), model.sample(16), model.encode(x)     # as of any VAE of images
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
