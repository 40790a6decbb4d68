"""Image to image: pix2pix from pairs, CycleGAN from two sets that nobody has paired.

    model = Pix2Pix.from_pretrained("runs/pix2pix/model")
    images = model.translate(edges(photographs), generator)   # (B, 3, H, W) in [0, 1]

`model` has both, `networks` their generators, `learner` the training, `sources` what pairs are made
of. Their critic of patches is `generative.nets.patches`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
