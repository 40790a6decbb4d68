"""Learning from preferences: a reward model, and PPO, DPO, GRPO for a GPT (Foster 2023, ch. 9)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
