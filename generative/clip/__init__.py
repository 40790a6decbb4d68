"""CLIP: images and captions as vectors of one space, close where a caption fits an image.

clip = CLIP.from_pretrained("runs/clip/model")
clip.similarity(x, tokens)                  # cosines of images and captions, (B, B)
clip.classify(x, tokens)                    # the closest caption of each image, (B,)

`model` has both encoders around their contrast, `networks` what these are made of.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
