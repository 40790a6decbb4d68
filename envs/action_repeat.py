"""One action for several steps of an environment."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium

__all__ = ["ActionRepeat"]


class ActionRepeat(gymnasium.Wrapper):
    """Holds every action for `repeat` steps, or until the episode ends; rewards add up.

    What M calls a decision, where the world model was trained with an `action_repeat`.
    """

    def __init__(self, env: gymnasium.Env, repeat: int):
        if repeat < 1:
            raise ValueError(f"repeat is {repeat}; it must be at least 1")
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Up to `repeat` steps of the environment with one action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        total = float(reward)
        for _ in range(self.repeat - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
        return obs, total, terminated, truncated, info
