"""Interface of an agent."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

__all__ = ["Agent"]


class Agent(Protocol):
    """Anything with Stable-Baselines3's predict."""

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]: ...
