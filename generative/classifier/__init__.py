"""Classifiers: the networks that the book begins with (Foster 2023, chapter 2)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
