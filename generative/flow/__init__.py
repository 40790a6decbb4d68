"""Normalizing flows: maps that can be undone, and so an exact density (Foster 2023, chapter 6).

`chain` has what flows share: layers, losses and the learner; `realnvp`, `glow` and `ffjord` have
a family each.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
