"""Scores of an M on recorded episodes: open-loop errors, and dreamed against real returns.

    starts = warm_up(memory, encoded)                      # M has read the past of each frame
    rows = moments(encoded, horizon=50, history=32, every=10)
    errors = open_loop(memory, starts, encoded, rows, 50)  # the recorded actions, M's own z
    dreamed = dreamed_returns(memory, starts, driver, rows, 50)
    gap = dreamed - real_returns(encoded, rows, 50)

`rows` count decisions through all episodes, which is how `warm_up` lays out its moments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.configs import DreamConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.dreaming.step import (
    DreamState,
    check_can_dream,
    draw_noise,
    dream_step,
    lost,
    not_finite,
)
from worldmodels.memory.base import Memory
from worldmodels.sequences import EncodedRollouts

__all__ = ["Driver", "OpenLoop", "dreamed_returns", "moments", "open_loop", "real_returns"]


class OpenLoop(NamedTuple):
    """Errors after 1 to horizon decisions, each (horizon,), float64."""

    z: np.ndarray
    """Root mean square of what M expects of z, per dimension."""
    still: np.ndarray
    """The same if z stayed as it was, the error of a model that knows nothing."""
    reward: np.ndarray
    """Root mean square of the expected reward of that decision."""
    paid: np.ndarray
    """Mean absolute error of the rewards of all decisions so far."""


class Driver(NamedTuple):
    """A controller, the M whose h it was trained on, and what that had in mind at the moments."""

    controller: LinearController
    memory: Memory
    starts: DreamStarts


def moments(encoded: EncodedRollouts, horizon: int, history: int, every: int) -> np.ndarray:
    """Decisions that at least `history` precede and `horizon` follow in their episode, (M,).

    Raises:
        ValueError: no episode is long enough.
    """
    first = np.concatenate([[0], np.cumsum(encoded.lengths)])
    found = [
        begin + np.arange(history, length - horizon + 1, every)
        for begin, length in zip(first[:-1], encoded.lengths, strict=True)
    ]
    rows = np.concatenate(found)
    if not len(rows):
        raise ValueError(
            f"no episode has {history + horizon} decisions, the longest {encoded.lengths.max()}; "
            "record longer ones, or ask for a shorter horizon"
        )
    return rows


def _recorded(encoded: EncodedRollouts, rows: np.ndarray, horizon: int) -> list[Tensor]:
    """z (M, horizon + 1, D), actions (M, horizon, A), rewards (M, horizon) of these moments."""
    episode = np.searchsorted(np.cumsum(encoded.lengths), rows, side="right")
    frames = (rows + episode)[:, None] + np.arange(horizon + 1)  # an episode has one frame more
    z = torch.from_numpy(encoded.mu[frames]).float()
    actions, rewards = encoded.actions[frames[:, :-1]], encoded.rewards[frames[:, :-1]]
    return [z, torch.from_numpy(actions), torch.from_numpy(rewards)]


@torch.no_grad()
def open_loop(
    memory: Memory,
    starts: DreamStarts,
    encoded: EncodedRollouts,
    rows: np.ndarray,
    horizon: int,
    dreams: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
) -> OpenLoop:
    """Let M go on from real moments by the recorded actions, on z of its own.

    What M expects is the mean over dreams. Reading its own expectations instead, it would be shown
    z between those that occur, which it never learned to go on from.

    Args:
        starts: of `warm_up(memory, encoded)`.
        rows: of `moments` with this horizon.
        dreams: from each moment.
    """
    z_real, actions, rewards = _recorded(encoded, rows, horizon)
    actions = actions.repeat_interleave(dreams, 0)
    check_can_dream(memory.config)
    config = DreamConfig(horizon, temperature, dropout=False)
    now, generator = starts.take(np.repeat(rows, dreams)), torch.Generator().manual_seed(seed)
    state = DreamState.at(now.z, now.h, now.c, now.prev_reward)
    paid, errors = rewards.new_zeros(len(rows)), []
    for t in range(horizon):
        noise = draw_noise(memory, len(state.z), generator, ends=False)
        state, outcome = dream_step(memory, state, actions[:, t], noise, config)
        _refuse_lost(state)
        assert outcome.reward is not None  # since M can dream
        z_mean, reward = (x.unflatten(0, (-1, dreams)).mean(1) for x in (state.z, outcome.reward))
        paid = paid + reward - rewards[:, t]
        off = [z_mean - z_real[:, t + 1], z_real[:, 0] - z_real[:, t + 1], reward - rewards[:, t]]
        errors.append([*(x.square().mean().sqrt().item() for x in off), paid.abs().mean().item()])
    return OpenLoop(*np.array(errors).T)


def real_returns(encoded: EncodedRollouts, rows: np.ndarray, horizon: int) -> np.ndarray:
    """Recorded rewards of `horizon` decisions from each moment, (M,)."""
    return _recorded(encoded, rows, horizon)[2].double().sum(1).numpy()


@torch.no_grad()
def dreamed_returns(
    memory: Memory,
    starts: DreamStarts,
    driver: Driver,
    rows: np.ndarray,
    horizon: int,
    dreams: int = 4,
    temperature: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Mean imagined return from each moment, (M,), with somebody else at the wheel.

    The driver sees the z that M makes up and remembers them by its own M, as it would with real
    ones; so one controller can be dreamed by any M that reads the same z. Without reward clip,
    pace cap or dropout.

    Args:
        starts: of `warm_up(memory, encoded)`; `driver.starts` of `warm_up(driver.memory, encoded)`.
        dreams: from each moment.
    """
    check_can_dream(memory.config)
    config = DreamConfig(horizon, temperature, dropout=False)
    rows = np.repeat(rows, dreams)
    generator = torch.Generator().manual_seed(seed)
    now, own = starts.take(rows), driver.starts.take(rows)
    state, (h, c) = DreamState.at(now.z, now.h, now.c, now.prev_reward), (own.h, own.c)
    returns = torch.zeros_like(state.alive)
    for _ in range(horizon):
        action = driver.controller.act(state.z, h, c)
        noise = draw_noise(memory, len(rows), generator, memory.config.predict_end)
        after, outcome = dream_step(memory, state, action, noise, config)
        _refuse_lost(after)
        h, c = driver.memory.observe(state.z, action, (h, c), state.prev_reward)
        assert outcome.paid is not None  # since M can dream
        returns += state.alive * outcome.paid
        state = after
    return returns.double().unflatten(0, (-1, dreams)).mean(1).numpy()


def _refuse_lost(state: DreamState) -> None:
    found = lost(state.alive)
    if found is not None:
        raise not_finite(f"dream {found[0]}", f"decision {int(state.age[found])}")
