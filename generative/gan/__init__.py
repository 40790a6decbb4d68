"""Generative adversarial networks: a generator against a critic (Foster 2023, chapter 4).

`model` has the GAN, `wgan` the one with a Wasserstein critic, `conditional` both of them with a
class that is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
