"""Priors of DALL.E 2: from the embedding of a caption to the embedding of an image.

prior = DiffusionPrior.from_pretrained("runs/prior/model")
image = prior.sample(text)                  # embeddings of captions (B, D) -> of images (B, D)

`diffusion` takes noise away, `autoregressive` writes an embedding as buckets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
