"""Pictures as codes from words: DALL.E, Parti and MUSE.

parti = Parti.from_pretrained("runs/text_to_codes/model")
codes = parti.sample(tokens)                # captions (B, L) -> int64 (B, 3, 3)

`autoregressive` has the two that write code by code, `masked` the one that fills in all at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
