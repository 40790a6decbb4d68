"""PixelCNN: an image pixel by pixel, each given those before (Foster 2023, chapter 5).

`networks` has the plain and the gated network, `mixture` that of PixelCNN++, `recurrent` that of
PixelRNN, `model` the model over any of them and its learner, `measures` the bits per number of a
set of images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
