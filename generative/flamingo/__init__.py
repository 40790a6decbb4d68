"""Flamingo: a frozen model of texts that reads pictures through gated cross-attention.

model = Flamingo.from_pretrained("runs/flamingo/model")
images = torch.stack([picture, other], 1)                 # (B, 2, C, H, W) in [0, 1]
model.generate(prompt, images, 10, temperature=0.0)       # prompt: tokens with two image tags

`vision` has the convolutional encoder without normalisation, `resampler` what makes a fixed number
of vectors of any number of frames, `model` the gated layers and the whole.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
