"""Generative adversarial networks: a generator against a critic (Foster 2023, chapter 4).

`model` has the pair, `networks` generators and critics with a class that is asked for or without,
`losses` what they minimise, `learner` the training as a GAN or a Wasserstein GAN, `measures` how
good the examples are.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
