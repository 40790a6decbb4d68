"""Normalizing flows: maps that can be undone, and so an exact density (Foster 2023, chapter 6).

`chain` makes a flow of any list of layers, `realnvp` and `glow` have couplings for it, `images`
puts noise on pixels of few levels, `learner` trains; `ffjord` is a flow in continuous time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
