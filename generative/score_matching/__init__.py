"""Score matching: the gradient of the log-density, learnt at many levels of noise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
