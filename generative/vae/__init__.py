"""Variational autoencoders (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

Read in this order: `gaussian` has what all of them share, the noisy code and the bound; `model` the
VAE of any two networks, `distributions` and `networks` what the book's is made of; `linear` the VAE
whose optimum is known; `frames` the 64x64 VAE of World Models with its fast training.

    vae = VAE.from_pretrained("runs/image-vae/model")
    z = vae.encode(images)                          # (B, 1, 32, 32) in [0, 1] -> (B, 2)
    vae.bound(images, num_draws=100)                # below log p of each image, nats, (B,)
    vae.sample(16)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
