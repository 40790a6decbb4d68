"""Models of texts: LSTM, GPT, BERT and T5 (Foster 2023, chapters 5 and 9).

`tokens` has their shared parts: losses over tokens, drawing token by token, the learner; `measures`
the losses of test texts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
