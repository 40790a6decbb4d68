"""Drivers that collect data for a world model, without knowing the track.

They have Stable-Baselines3's `predict`, so they can replace any agent. A world model learns only
from its data, which therefore need every speed, the road and the lawn, skids, and recoveries.
Smooth random walks give the first data. Later, noise around the controller gives the rest (as in
rounds of Ha & Schmidhuber 2018, section 5, and the DAgger idea of visiting the controller's own
states).

Actions are CarRacing's: steering -1 (left) to 1 (right), gas 0 to 1, brake 0 to 1. For any others
see `agents.random_actions`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.agent import Agent
from agents.random_actions import NoisyActions

_LOW = np.array([-1, 0, 0], np.float32)
_HIGH = np.array([1, 1, 1], np.float32)


# ---------------------------------------------------------------------------------------------
# Random walks
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrivingStyle:
    """Style of driving for some seconds: means and spreads of three random walks.

    A walk is an Ornstein-Uhlenbeck process around its mean with the given standard deviation; its
    correlation decays within about `seconds`. Negative gas or brake counts as none.
    """

    steer: float = 0.0
    steer_std: float = 0.12
    gas: float = 0.15
    gas_std: float = 0.12
    brake: float = -0.3
    brake_std: float = 0.1
    seconds: float = 0.6
    ease: float = 2.0
    """Gas is scaled by (1 - |steer|) ** ease: at 0 the rear wheels soon slip and the car spins."""


STYLES = {
    "cruise": DrivingStyle(),
    "crawl": DrivingStyle(steer_std=0.25, gas=0.03, gas_std=0.06),
    "fast": DrivingStyle(steer_std=0.06, gas=0.4, gas_std=0.3, seconds=0.4),
    "straight": DrivingStyle(steer_std=0.02, gas=0.25, gas_std=0.2, seconds=1.0),
    "wiggle": DrivingStyle(steer_std=0.45, gas_std=0.1, seconds=0.2),
    "brake": DrivingStyle(gas=0.1, gas_std=0.3, brake=0.1, brake_std=0.3, seconds=0.4),
    "turn": DrivingStyle(steer=0.35, steer_std=0.2, gas=0.1),  # to the left or to the right
    "stop": DrivingStyle(steer_std=0.4, gas=0.5, gas_std=0.5, brake=0.6, brake_std=0.3),
    "slide": DrivingStyle(steer=0.4, steer_std=0.5, gas=0.4, gas_std=0.4, ease=0.0),
}


class _Walk:
    """A random walk of steering, gas and brake."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.value = np.zeros(3)
        self.seconds_left = 0.0  # time left in this style

    def start(self, style: DrivingStyle, seconds: float) -> None:
        """Continue the walk in another style, for some seconds."""
        self.style, self.seconds_left = style, seconds
        side = self.rng.choice([-1.0, 1.0])
        self._mean = np.array([side * style.steer, style.gas, style.brake])
        self._std = np.array([style.steer_std, style.gas_std, style.brake_std])

    def step(self, dt: float) -> np.ndarray:
        """Sample the next (steer, gas, brake); exact for every dt."""
        self.seconds_left -= dt
        keep = math.exp(-dt / self.style.seconds)
        noise = self.rng.normal(size=3) * self._std * math.sqrt(1 - keep * keep)
        self.value = self._mean + (self.value - self._mean) * keep + noise
        return self.value.copy()


class RandomWalkDriver:
    """Smooth random steering, gas and brake, in a style that changes every few seconds.

    Args:
        seed: fixes every action; its n-th episode depends on seed and n alone.
        action_repeat: environment steps (of 1/50 s) for which each action is held.
        style_seconds: mean time until another style is drawn.
    """

    def __init__(self, seed: int, action_repeat: int = 3, style_seconds: float = 4.0) -> None:
        self.seed = seed
        self.style_seconds = style_seconds
        self._dt = action_repeat / 50
        self._episodes = 0

    def predict(
        self,
        observation: np.ndarray,
        state: list[_Walk] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, list[_Walk]]:
        """Sample the next action; the observation only gives the number of environments.

        Args:
            observation: (H, W, C), or (N, H, W, C) for N environments.
            state: returned by the last call; None begins new episodes.
            episode_start: (N,) bool, True for environments that begin a new episode.
            deterministic: ignored; the walk is random and fixed by its seed.
        Returns:
            action: (3,) or (N, 3) float32, within bounds.
            state: for the next call.
        """
        walks = _restart(state, episode_start, _count(observation), self._new_walk)
        actions = [self._step(walk) for walk in walks]
        return _as_actions(actions, observation), walks

    def _new_walk(self) -> _Walk:
        walk = _Walk(np.random.default_rng([self.seed, self._episodes]))
        self._episodes += 1
        return walk

    def _step(self, walk: _Walk) -> np.ndarray:
        if walk.seconds_left <= 0:
            style = STYLES[walk.rng.choice(list(STYLES))]
            walk.start(style, walk.rng.exponential(self.style_seconds))
        action = walk.step(self._dt)
        action[1] *= max(1 - abs(action[0]), 0) ** walk.style.ease
        return action


# ---------------------------------------------------------------------------------------------
# Noise around an agent
# ---------------------------------------------------------------------------------------------


@dataclass
class _Noise:
    """Noise of one environment: its level in this episode, and a burst in progress, if any."""

    walk: _Walk
    level: float
    burst_left: int = 0
    burst_action: np.ndarray | None = None


_SHAKE = DrivingStyle(steer_std=0.4, gas=0.0, gas_std=0.3, brake=0.0, brake_std=0.15, seconds=0.4)


class NoisyDriver:
    """An agent with disturbed actions: slow noise is added, and some are replaced at random.

    The noise is correlated over about half a second, so that the car leaves its line. Its level is
    drawn for every episode, from none to `scale`, so that the data include clean driving too. In a
    burst, a few decisions in a row have one random action, from which the agent must recover.

    Args:
        agent: agent whose actions are disturbed.
        seed: fixes the noise; its n-th episode depends on seed and n alone.
        scale: highest noise level; at 1 the steering wanders by 0.4 (standard deviation).
        burst_seconds: mean time between bursts at level 1; they are rarer at lower levels.
        action_repeat: environment steps (of 1/50 s) for which each action is held.
    """

    def __init__(
        self,
        agent: Agent,
        seed: int,
        scale: float = 1.0,
        burst_seconds: float = 4.0,
        action_repeat: int = 3,
    ) -> None:
        self.agent = agent
        self.seed = seed
        self.scale = scale
        self.burst_seconds = burst_seconds
        self._dt = action_repeat / 50
        self._episodes = 0

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[Any, list[_Noise]] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[Any, list[_Noise]]]:
        """Return the agent's next action, disturbed.

        Args:
            observation: the agent's input, (H, W, C), or (N, H, W, C) for N environments.
            state: returned by the last call; None begins new episodes.
            episode_start: (N,) bool, True for environments that begin a new episode.
            deterministic: passed on to the agent.
        Returns:
            action: (3,) or (N, 3) float32, within bounds.
            state: for the next call.
        """
        agent_state, noises = (None, None) if state is None else state
        wanted, agent_state = self.agent.predict(
            observation, agent_state, episode_start, deterministic
        )
        count = _count(observation)
        noises = _restart(noises, episode_start, count, self._new_noise)
        wanted = np.asarray(wanted, np.float64).reshape(count, 3)
        disturbed = [self._disturb(*pair) for pair in zip(wanted, noises, strict=True)]
        actions = _as_actions(disturbed, observation)
        if hasattr(agent_state, "executed"):  # a recurrent agent must know the executed action
            agent_state = agent_state.executed(actions)
        return actions, (agent_state, noises)

    def _new_noise(self) -> _Noise:
        rng = np.random.default_rng([self.seed, self._episodes])
        self._episodes += 1
        walk = _Walk(rng)
        walk.start(_SHAKE, math.inf)
        return _Noise(walk, level=self.scale * rng.uniform())

    def _disturb(self, wanted: np.ndarray, noise: _Noise) -> np.ndarray:
        rng = noise.walk.rng
        shake = noise.level * noise.walk.step(self._dt)
        if noise.burst_left == 0 and rng.uniform() < noise.level * self._dt / self.burst_seconds:
            noise.burst_left = int(rng.integers(2, 9))
            noise.burst_action = rng.uniform([-1, -0.5, -1], [1, 1, 0.6])
        if noise.burst_left > 0:
            noise.burst_left -= 1
            assert noise.burst_action is not None  # set when the burst began
            return noise.burst_action
        return wanted + shake


def noisy_agent(
    seed: int, folder: str, noise: float, action_repeat: int = 3
) -> NoisyDriver | NoisyActions:
    """A `NoisyDriver` around the world-model agent of a folder, asked once per decision.

    For other tasks than CarRacing it is a `NoisyActions`. The agent is loaded once per process. As
    `deterministic` lets it draw z from V's posterior, it gets a generator of the episode.
    """
    agent = _load_agent(folder)
    agent.generator.manual_seed(seed)
    head = agent.task.action
    if head.kind == "car_racing":
        return NoisyDriver(agent, seed, scale=noise, action_repeat=action_repeat)
    return NoisyActions(agent, seed, head, scale=noise)


@functools.lru_cache(maxsize=2)
def _load_agent(folder: str) -> Any:
    from agents.world_model_agent import AgentConfig, WorldModelAgent

    agent = WorldModelAgent.from_pretrained(folder, trust=True)  # its environment is not made here
    agent.config = AgentConfig(action_repeat=1)  # the collector holds the action
    agent.task = replace(agent.task, preprocess=agent.task.preprocess.seen)  # and preprocesses
    return agent


# ---------------------------------------------------------------------------------------------
# One environment or many
# ---------------------------------------------------------------------------------------------


def _count(observation: np.ndarray) -> int:
    return len(observation) if np.ndim(observation) == 4 else 1


def _restart(states: list | None, episode_start: np.ndarray | None, count: int, new) -> list:
    """States of `count` environments, with new ones for those that begin an episode."""
    if states is None:
        return [new() for _ in range(count)]
    if len(states) != count:
        raise ValueError(
            f"state is of {len(states)} environments and the observation of {count}; "
            "pass the state that the last call for the same environments returned"
        )
    starts = np.broadcast_to(False if episode_start is None else episode_start, count)
    return [new() if start else state for state, start in zip(states, starts, strict=True)]


def _as_actions(actions: list[np.ndarray], observation: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.array(actions, np.float32), _LOW, _HIGH)
    return clipped if np.ndim(observation) == 4 else clipped[0]
