"""Energy-based models: a network gives data a low energy (Foster 2023, chapter 7).

`walks` has samplers for any energy, `model` energies around a network, `learner` their training,
`measures` what it is watched by.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
