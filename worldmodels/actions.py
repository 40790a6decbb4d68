"""Actions: from C's raw outputs to the inputs of M and of an environment.

M reads an action as a few numbers of about unit size, and episodes hold it in this form:
CarRacing's [steering, gas, brake] as the game takes them, a Box scaled to [-1, 1], a discrete
action as a one-hot vector. `squash` makes it from C's outputs, `to_env` converts it for an
environment, and `from_env` converts an environment's action back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels.configs import ActionHead

if TYPE_CHECKING:  # torch is not loaded by modules that only name actions
    from torch import Tensor

__all__ = [
    "ActionHead",
    "NotFiniteActionError",
    "bounds",
    "car_racing_action",
    "check_finite_actions",
    "from_env",
    "squash",
    "to_env",
]

BRAKE_LEAK = 0.2
"""Share of the gradient that passes a released brake."""


class NotFiniteActionError(ValueError, FloatingPointError):
    """An action holds NaN or an infinity.

    Attributes:
        index: index of the first such number in the array of actions.
    """

    def __init__(self, index: tuple[int, ...], value: float, needed: str):
        super().__init__(f"action{list(index) if index else ''} is {value}; needed are {needed}")
        self.index = index


def check_finite_actions(actions: Any, needed: str = "finite numbers") -> None:
    """Raise if actions, numbers, arrays or tensors of any shape, are not finite.

    One such number spoils a simulation for good: a car that once got NaN is rewarded for tiles that
    it never reached.

    Raises:
        NotFiniteActionError: says which number of which action, and what is needed.
    """
    if hasattr(actions, "detach"):  # of any device and type, some of which NumPy lacks
        actions = actions.detach().cpu().double()
    values = np.asarray(actions, np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = tuple(bad[0].tolist())
        raise NotFiniteActionError(index, float(values[index]), needed)


def squash(y: Tensor, head: ActionHead) -> Tensor:
    """Squash raw outputs (..., A) to the action as M reads it, (..., A).

    A Box uses tanh. A discrete action is the one of the highest output, with the gradient of the
    softmax (the straight-through estimator; Bengio et al. 2013).
    """
    if head.kind == "car_racing":
        return car_racing_action(y)
    if head.kind == "box":
        return y.tanh()
    if head.kind == "raw":
        return y
    from torch.nn.functional import one_hot

    chosen = one_hot(y.argmax(-1), y.shape[-1]).to(y.dtype)
    if y.requires_grad:
        soft = y.softmax(-1)
        chosen = chosen + (soft - soft.detach())  # adds a gradient only
    return chosen


def car_racing_action(y: Tensor) -> Tensor:
    """Raw outputs (..., 3) -> [steering -1..1, gas 0..1, brake 0..1].

    All three use tanh; gas is (tanh + 1) / 2 and brake the positive part, as in the paper's
    program, so that a controller of zeros steers straight at half gas and does not brake.

    A released brake has no gradient: a controller that learns by gradient not to brake on the
    straights would never learn to brake in bends. Part of the gradient therefore leaks through
    (`BRAKE_LEAK`).
    """
    import torch

    steering, gas, brake = torch.tanh(y).unbind(-1)
    applied = brake.clamp_min(0.0)
    if y.requires_grad:
        released = brake.clamp_max(0.0)
        applied = applied + BRAKE_LEAK * (released - released.detach())  # adds a gradient only
    return torch.stack([steering, 0.5 * (gas + 1.0), applied], dim=-1)


def bounds(head: ActionHead) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of actions as M reads them, each float32 (A,)."""
    if head.kind == "raw":
        return np.full(head.size, -np.inf, np.float32), np.full(head.size, np.inf, np.float32)
    low = {"car_racing": [-1, 0, 0], "box": [-1] * head.size, "discrete": [0] * head.size}
    return np.array(low[head.kind], np.float32), np.ones(head.size, np.float32)


def to_env(actions: np.ndarray, head: ActionHead) -> np.ndarray:
    """Convert actions as M reads them, (N, A), to those of the environment.

    Returns:
        float32 (N, A) within the bounds of a Box, or int64 (N,) of a discrete space.
    Raises:
        NotFiniteActionError: an action is not finite.
    """
    check_finite_actions(actions)
    if head.kind == "discrete":
        return actions.argmax(-1) + head.first
    if head.kind in ("car_racing", "raw"):
        return actions
    low, high = np.array(head.low), np.array(head.high)
    scaled = low + (actions.astype(np.float64) + 1) / 2 * (high - low)
    return np.clip(scaled.astype(np.float32), *inner_bounds(head))


def inner_bounds(head: ActionHead) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest float32 within the bounds of a Box, which may be float64."""
    low, high = np.array(head.low), np.array(head.high)
    up, down = (np.full(low.shape, end, np.float32) for end in (np.inf, -np.inf))
    lowest, highest = low.astype(np.float32), high.astype(np.float32)
    lowest = np.where(lowest < low, np.nextafter(lowest, up), lowest)
    return lowest, np.where(highest > high, np.nextafter(highest, down), highest)


def from_env(actions: np.ndarray, head: ActionHead) -> np.ndarray:
    """Invert `to_env`; numbers beyond a Box's bounds are clipped, as environments do.

    Raises:
        ValueError: the actions have another shape, or are not among the discrete ones.
        NotFiniteActionError: one is not finite.
    """
    actions = np.asarray(actions)
    if head.kind == "discrete":
        index = actions - head.first
        if index.ndim != 1 or not np.isin(index, np.arange(head.num)).all():
            raise ValueError(
                f"actions are {_some(actions)} of shape {actions.shape}; needed are whole numbers "
                f"(N,) from {head.first} to {head.first + head.num - 1}"
            )
        return np.eye(head.num, dtype=np.float32)[index.astype(np.int64)]
    low, high = bounds(head)
    if head.kind == "box":
        low, high = np.array(head.low), np.array(head.high)
    needed = f"{head.size} finite numbers between {low.tolist()} and {high.tolist()} for each"
    check_finite_actions(actions, needed)
    if actions.ndim != 2 or actions.shape[1] != head.size:
        raise ValueError(
            f"actions are {_some(actions)} of shape {actions.shape}; needed are {needed}"
        )
    clipped = np.clip(actions, low, high)
    if head.kind == "box":
        clipped = 2 * (clipped.astype(np.float64) - low) / (high - low) - 1
    return clipped.astype(np.float32)


def _some(actions: np.ndarray) -> str:
    return f"{np.ravel(actions)[:4].tolist()}"
