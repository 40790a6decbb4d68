"""One dreamed decision, for every dream of the project.

    state = DreamState.at(z, h, c, prev_reward)              # a real moment
    noise = draw_noise(world, len(z), generator, ends=True)
    state, outcome = dream_step(world, state, action, noise, config)

The world model says what follows an action: the next latent, the reward and how likely the episode
ends. What a dream makes of it is decided here and nowhere else: which reward is possible, what is
paid for it, whether the dream goes on, and that a number which is not finite stops it. A population
of controllers, a Gymnasium environment and a film all take this step; they differ in who chooses
the action and whose random numbers are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from generative.training.checks import at_least_float32
from generative.training.precision import BF16
from worldmodels.configs import DreamConfig, MemoryConfig
from worldmodels.dreaming.noise import Random, uniform

__all__ = [
    "DreamState",
    "Noise",
    "Outcome",
    "Prediction",
    "World",
    "WorldMemory",
    "check_can_dream",
    "draw_noise",
    "dream_step",
    "lost",
    "not_finite",
]


class DreamState(NamedTuple):
    """State of dreams. Lanes are the leading dimensions: (N,), or (P, R) of a population."""

    z: Tensor
    """(*lanes, latent_dim)."""
    h: Tensor
    """Part of the world model's memory that a controller sees, (*lanes, hidden_dim)."""
    c: Tensor
    """Rest of its memory, (*lanes, state_dim)."""
    prev_reward: Tensor | None
    """Reward of the decision before, not capped, (*lanes); None if nobody reads it."""
    alive: Tensor
    """1; 0 after the imagined end; NaN from a decision on that gave a number that is not finite.
    Where ends are not drawn, the probability that the dream has not ended. (*lanes)."""
    age: Tensor
    """Decisions so far, int64 (*lanes)."""
    stretch: Tensor
    """Rewards so far in the present stretch of `pace_window` decisions, (*lanes)."""
    mask: Tensor | None
    """Factors of h before the world model predicts; None without dropout."""

    @classmethod
    def at(
        cls, z: Tensor, h: Tensor, c: Tensor, prev_reward: Tensor | None, mask: Tensor | None = None
    ) -> DreamState:
        """Dreams that begin at these moments."""
        # What is counted has more digits than bfloat16.
        kind = {"device": z.device, "dtype": at_least_float32(z)}
        alive = torch.ones(z.shape[:-1], **kind)
        age = torch.zeros(z.shape[:-1], dtype=torch.int64, device=z.device)
        return cls(z, h, c, prev_reward, alive, age, torch.zeros_like(alive), mask)

    def map(self, function: Callable[[Tensor], Tensor]) -> DreamState:
        """The state with `function` of every tensor."""
        return self._make(None if x is None else function(x) for x in self)

    def put(self, rows: Tensor, other: DreamState) -> DreamState:
        """A copy with `other` in the lanes of these indices; for lanes (N,)."""
        return self._make(
            None if x is None or y is None else x.index_copy(0, rows, y)
            for x, y in zip(self, other, strict=True)
        )

    def detach(self) -> DreamState:
        """The same, but gradients stop here, except in what the past has already brought."""
        z, h, c = self.z.detach(), self.h.detach(), self.c.detach()
        previous = None if self.prev_reward is None else self.prev_reward.detach()
        return self._replace(z=z, h=h, c=c, prev_reward=previous)


class Prediction(NamedTuple):
    """Prediction of a world model for one decision."""

    z: Tensor
    """A draw of the next latent, (*lanes, latent_dim)."""
    reward: Tensor | None
    """Expected reward in the environment's units, (*lanes); None if it predicts none."""
    p_end: Tensor | None
    """Probability that the episode ends with this decision, (*lanes); None if it predicts none."""
    h: Tensor
    c: Tensor


class World(Protocol):
    """Interface of a world model that dreams run in, such as the two of `worldmodels.memory`.

    The world chooses how it draws the next latent (from mixtures, as codes, by denoising) and the
    form of its noise; a dream only knows the number of lanes that the noise is for.
    """

    config: MemoryConfig

    @property
    def kind(self) -> dict[str, Any]:
        """{"device": ..., "dtype": ...} of what it computes."""
        ...

    def noise(self, n: int, random: Random) -> Any:
        """Random numbers of one decision in n lanes."""
        ...

    def predict(
        self, state: DreamState, action: Tensor, noise: Any, temperature: float
    ) -> Prediction:
        """Predict the outcome of action (*lanes, action_dim).

        Noise has n lanes; lanes with the same index in the last leading dimension share it.
        """
        ...


class WorldMemory(World, Protocol):
    """A world that also follows what really happens and dreams of many lanes, such as an M.

    `worldmodels.memory.Memory` says what each method does.
    """

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    def initial_state(self, batch_size: int, /) -> tuple[Tensor, Tensor]:
        """(h, c) of episodes that have not begun."""
        ...

    def observe(
        self,
        z: Tensor,
        action: Tensor,
        state: tuple[Tensor, Tensor],
        prev_reward: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(h, c) after a decision that is over."""
        ...

    def joined(self, bf16: BF16 = False) -> World:
        """The same world for the dreams of a population."""
        ...

    def backend(self, dream: Any) -> Any:
        """Backend that runs a dream of this world without gradients; None if none is faster."""
        ...


class Noise(NamedTuple):
    """Random numbers of one decision, in the order in which they are drawn."""

    world: Any
    """The world model's own."""
    end: Tensor | None
    """Uniform, one for each lane; a dream ends where it lies below the probability of the end.
    None: ends are not drawn, and `alive` is the probability of none so far."""


class Outcome(NamedTuple):
    """Outcome of a decision, (*lanes)."""

    reward: Tensor | None
    """As predicted, within `reward_clip`; None if the world model predicts none."""
    paid: Tensor | None
    """As paid: under the pace cap."""
    p_end: Tensor | None
    """Probability of the end; None if the world model predicts none."""
    ended: Tensor
    """Bool: the world model has ended the dream."""
    truncated: Tensor
    """Bool: it has reached the horizon, and not ended."""


def draw_noise(world: World, n: int, random: Random, ends: bool) -> Noise:
    """Random numbers of one decision in n lanes; see `Noise.end` for `ends`."""
    numbers = world.noise(n, random)
    if not ends:
        return Noise(numbers, None)
    return Noise(numbers, uniform(n, (), random, world.kind))


def dream_step(
    world: World, state: DreamState, action: Tensor, noise: Noise, config: DreamConfig
) -> tuple[DreamState, Outcome]:
    """One decision in every lane.

    Args:
        action: as the world model reads it, (*lanes, action_dim).
    """
    found = world.predict(state, action, noise.world, config.temperature)
    reward, paid, stretch = found.reward, None, state.stretch
    if reward is not None:
        if config.reward_clip is not None:
            reward = reward.clamp(*config.reward_clip)
        paid, stretch = _pay(reward, state, config)
    alive = _survive(found, reward, state.alive, noise.end)
    age, ended = state.age + 1, alive == 0
    after = DreamState(
        found.z,
        found.h,
        found.c,
        state.prev_reward if reward is None else reward,
        alive,
        age,
        stretch,
        state.mask,
    )
    return after, Outcome(reward, paid, found.p_end, ended, ~ended & (age >= config.horizon))


def _pay(reward: Tensor, state: DreamState, config: DreamConfig) -> tuple[Tensor, Tensor]:
    """Reward paid for a decision, and the sum of the rewards of its stretch so far.

    A decision earns by how much it raises min(rewards of the stretch so far, cap * decisions of the
    stretch): whole stretches are paid up to the cap, and yet every decision is paid at once.
    """
    cap, window = config.pace_cap, config.pace_window
    if cap is None:
        return reward, state.stretch
    into = state.age % window
    before = state.stretch.masked_fill(into == 0, 0.0)
    after = before + reward
    most = cap * torch.clamp(config.horizon - (state.age - into), max=window).to(after.dtype)
    return torch.minimum(after, most) - torch.minimum(before, most), after


def _survive(
    found: Prediction, reward: Tensor | None, alive: Tensor, uniform: Tensor | None
) -> Tensor:
    """`DreamState.alive` after a decision."""
    # One number tells: a sum is finite only if all its terms are.
    total = found.z.detach().sum(-1)
    for part in (reward, found.p_end):
        total = total if part is None else total + part.detach()
    if found.p_end is None:
        after = alive
    elif uniform is None:
        after = alive * (1 - found.p_end)
    else:
        after = alive * (uniform >= found.p_end)
    after = after.masked_fill(~total.isfinite(), torch.nan)
    return torch.where(alive > 0, after, alive)


def lost(alive: Tensor) -> tuple[int, ...] | None:
    """The first lane in which a number was not finite; None if there is none."""
    found = alive.isnan().nonzero()
    return tuple(found[0].tolist()) if len(found) else None


def not_finite(whose: str, when: str) -> FloatingPointError:
    """Error that every dream raises for such a number of its world model."""
    return FloatingPointError(
        f"M gave {whose} a z, reward or end that is not finite after {when}; lower the "
        "temperature, or train M again"
    )


def check_can_dream(config: MemoryConfig) -> None:
    """Raise ValueError if a world model has no rewards to dream of."""
    if not config.predict_reward:
        raise ValueError("this M has no reward head; train it with predict_reward=True")
