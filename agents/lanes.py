"""Real episodes side by side, for agents that see vectors: one call of `predict` for all of them.

Where an environment's step takes microseconds, the agent's own arithmetic is what an evaluation
waits for, and it takes hardly longer for many observations than for one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.collect import NotFiniteError
from envs.task import make_env
from generative.training.progress import progress
from worldmodels.actions import NotFiniteActionError

__all__ = ["LANES", "play_in_lanes"]

LANES = 25
"""Episodes at once. There are always as many, so that no rounding depends on how many are asked
for: lanes without an episode are shown zeros."""


def play_in_lanes(
    agent: Any, env_id: str, env_kwargs: dict[str, Any], seeds: Sequence[int]
) -> list[tuple[float, int]]:
    """Score and length of the whole episode of every seed.

    Args:
        agent: its `predict` takes a batch of vectors.
        env_id, env_kwargs: for `gymnasium.make`.
    Raises:
        NotFiniteError: an observation, action or reward is not; says the seed and the step.
    """
    results = []
    with contextlib.ExitStack() as stack:
        envs = [
            stack.enter_context(contextlib.closing(make_env(env_id, env_kwargs)))
            for _ in range(min(LANES, len(seeds)))
        ]
        bar = stack.enter_context(progress(len(seeds), "playing real episodes"))
        for first in range(0, len(seeds), LANES):
            group = list(seeds[first : first + LANES])
            results += _play(agent, envs, group, env_id)
            bar.advance(len(group))
    return results


def _play(agent: Any, envs: list[Any], seeds: list[int], env_id: str) -> list[tuple[float, int]]:
    shape = envs[0].observation_space.shape
    seen = np.zeros((LANES, *shape), np.float64)
    scores, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
    for lane, seed in enumerate(seeds):
        seen[lane] = envs[lane].reset(seed=seed)[0]
    state, start, alive = None, np.ones(LANES, bool), set(range(len(seeds)))
    while alive:
        try:
            actions, state = agent.predict(seen, state, episode_start=start, deterministic=True)
        except NotFiniteActionError as error:
            seed = seeds[min(error.index[0], len(seeds) - 1)]
            raise NotFiniteError(f"{env_id}, seed {seed}: {error}") from error
        start = np.zeros(LANES, bool)
        for lane in sorted(alive):
            obs, reward, terminated, truncated, _ = envs[lane].step(actions[lane])
            scores[lane] += float(reward)
            lengths[lane] += 1
            if not all(np.isfinite(value).all() for value in (obs, reward, actions[lane])):
                raise NotFiniteError(
                    f"{env_id}, seed {seeds[lane]}: an observation, action or reward is not finite "
                    f"at step {lengths[lane]}"
                )
            seen[lane] = obs
            if terminated or truncated:
                alive.remove(lane)
    return list(zip(scores.tolist(), lengths.tolist(), strict=True))
