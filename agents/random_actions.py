"""Exploring with any actions: a Box or a discrete space, by `worldmodels.configs.ActionHead`.

As in `agents.explorers`, random actions give the first data and noise around an agent the rest.
Both drive one environment whose actions are the numbers that M reads (`envs.task.Prepared`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from agents.agent import Agent
from generative.training.settings import from_json
from worldmodels.actions import bounds, from_env
from worldmodels.configs import ActionHead

__all__ = ["NoisyActions", "RandomActions"]


class RandomActions:
    """Random actions of any head that last: what one decision does, the next ones go on with.

    Independent draws shake a system about its middle and hardly move it; actions that last carry
    it far. How long they last is drawn for every episode, from one decision to `hold`, on a
    logarithmic scale. A Box is explored by a walk (an autoregressive process of order 1) whose
    steps are as long as that, and whose spread lets it often reach its bounds; of discrete actions
    one is kept for a geometric number of decisions.

    Args:
        seed: fixes every action; the n-th episode it begins depends on seed and n alone.
        head: the actions, or what `to_json` made of them.
        hold: longest mean time that an action lasts, in decisions.
    """

    def __init__(self, seed: int, head: ActionHead | dict[str, Any], hold: float = 8.0) -> None:
        self.head = head if isinstance(head, ActionHead) else from_json(ActionHead, head)
        self.seed, self.hold = seed, hold
        self._episodes = 0

    def predict(
        self,
        observation: np.ndarray,
        state: _Lasting | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, _Lasting]:
        """The next action (A,) float32, and the state for the next call; nothing is looked at."""
        if state is None or (episode_start is not None and np.any(episode_start)):
            rng = np.random.default_rng([self.seed, self._episodes])
            state = _Lasting(rng, self.head, hold=math.exp(rng.uniform(0, math.log(self.hold))))
            self._episodes += 1
        return state.step(), state


class _Lasting:
    """Actions that last about `hold` decisions."""

    def __init__(self, rng: np.random.Generator, head: ActionHead, hold: float) -> None:
        self.rng, self.head, self.keep = rng, head, 1 - 1 / hold
        self.value = self._new()

    def step(self) -> np.ndarray:
        """The next action, (A,) float32."""
        if self.head.kind == "discrete":
            if self.rng.random() >= self.keep:
                self.value = self._new()
            return self.value
        noise = math.sqrt(1 - self.keep**2) * self.rng.standard_normal(self.head.size)
        self.value = self.keep * self.value + noise
        low, high = bounds(self.head)
        middle, half = (low + high) / 2, (high - low) / 2
        return np.clip(middle + half * self.value, low, high).astype(np.float32)

    def _new(self) -> np.ndarray:
        if self.head.kind == "discrete":
            return np.eye(self.head.num, dtype=np.float32)[self.rng.integers(self.head.num)]
        return self.rng.standard_normal(self.head.size)


class NoisyActions:
    """An agent disturbed, for any action head: now and then something else, for some decisions.

    The level of the noise is drawn for every episode, from none to `scale`, so that the data holds
    clean episodes too. It is the share of decisions at which a random action takes over (epsilon),
    each time for one decision up to seven; the actions of a Box are shaken besides, by a
    walk of that standard deviation.

    Args:
        agent: whose actions to disturb; its `predict` gives them as the environment takes them.
        seed: fixes the noise; the n-th episode it begins depends on seed and n alone.
        head: the actions.
        scale: highest level of the noise, 0 to 1.
    """

    def __init__(self, agent: Agent, seed: int, head: ActionHead, scale: float = 0.3) -> None:
        self.agent, self.seed, self.head, self.scale = agent, seed, head, scale
        self._episodes = 0

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[Any, _Burst] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[Any, _Burst]]:
        """The agent's next action, disturbed: (A,) float32, and the state for the next call."""
        agent_state, noise = (None, None) if state is None else state
        if noise is None or (episode_start is not None and np.any(episode_start)):
            rng = np.random.default_rng([self.seed, self._episodes])
            level = self.scale * rng.uniform()
            noise = _Burst(rng, level, _Lasting(rng, self.head, hold=4.0))
            self._episodes += 1
        wanted, agent_state = self.agent.predict(
            observation, agent_state, episode_start, deterministic
        )
        action = self._disturb(from_env(np.asarray(wanted)[None], self.head)[0], noise)
        if hasattr(agent_state, "executed"):  # an agent with a memory must know the executed action
            agent_state = agent_state.executed(action)
        return action, (agent_state, noise)

    def _disturb(self, wanted: np.ndarray, noise: _Burst) -> np.ndarray:
        rng, shake = noise.rng, noise.walk.step()
        if noise.left == 0 and rng.uniform() < noise.level / _Burst.MEAN:
            noise.left = int(rng.integers(1, 2 * _Burst.MEAN))
            noise.action = _Lasting(rng, self.head, hold=1.0).step()
        if noise.left > 0:
            noise.left -= 1
            assert noise.action is not None  # set when the burst began
            return noise.action
        if self.head.kind == "discrete":
            return wanted
        low, high = bounds(self.head)
        return np.clip(wanted + noise.level * shake, low, high).astype(np.float32)


@dataclass
class _Burst:
    """One episode's noise: how much, the walk, and a random action that may have taken over."""

    rng: np.random.Generator
    level: float
    walk: _Lasting
    left: int = 0
    action: np.ndarray | None = None

    MEAN: ClassVar[int] = 4
    """Decisions that a random action lasts on average; 1 to 7."""
