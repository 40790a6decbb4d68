"""A population's dreams: many controllers driving many imagined episodes, stepped as one batch.

P candidates times R rollouts make P x R lanes. A lane keeps its own z, h and c; lanes of one
candidate share its weights; rollout r of every candidate has the same start and the same random
numbers (common random numbers), so that a difference in return is a difference in driving.

`Dream.rollout` is for back-propagation through the dream (`worldmodels.dreaming.gradient`).
`Dream.evaluate` is for evolution: the same returns, without gradients and faster
(`worldmodels.dreaming.backends`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from generative.training.checks import check_dtype
from worldmodels.actions import squash as squash_by
from worldmodels.configs import ControllerConfig, DreamConfig
from worldmodels.controller import split_candidates
from worldmodels.dreaming.noise import dropout_mask
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.dreaming.step import (
    DreamState,
    Noise,
    WorldMemory,
    check_can_dream,
    draw_noise,
    dream_step,
    lost,
    not_finite,
)

__all__ = ["Dream", "DreamBackend", "DreamResult", "Tally"]


class DreamResult(NamedTuple):
    """Per candidate and rollout, (P, R)."""

    returns: Tensor
    """Sum of imagined rewards up to the imagined end."""
    lengths: Tensor
    """Decisions until the imagined end, or the horizon."""
    saturation: Tensor
    """Square by which C's raw outputs lie beyond [-1, 1], where the squashing flattens: the sum
    over outputs, the mean over the horizon (also after an imagined end)."""


class Tally(NamedTuple):
    """Sums so far, named as in `DreamResult`; saturation is summed over decisions."""

    returns: Tensor
    lengths: Tensor
    saturation: Tensor


class DreamBackend(Protocol):
    """Runs the dreams of a `Dream` without gradients."""

    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """Same result as `Dream.rollout`, up to rounding."""
        ...


class Dream:
    """Rolls candidates out in M.

    Args:
        memory: M with a reward head (and an end head, if dreams may end).
        controller: what the candidates are.
        config: horizon, temperature and so on.
        squash: raw outputs (..., action_dim) -> actions as M reads them; by the controller's
            action head if not given.
    """

    def __init__(
        self,
        memory: WorldMemory,
        controller: ControllerConfig,
        config: DreamConfig,
        squash: Callable[[Tensor], Tensor] | None = None,
    ):
        mem = memory.config
        check_can_dream(mem)
        sizes = [(c.latent_dim, c.hidden_dim, c.action_dim) for c in (mem, controller)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "M has z {}, h {} and actions {}, the controller expects z {}, h {} and actions "
                "{}; pass the M it is meant for".format(*sizes[0], *sizes[1])
            )
        if config.dropout and not mem.dropout:
            config = replace(config, dropout=False)
        self.memory, self.controller, self.config = memory, controller, config
        self.squash = squash or (lambda raw: squash_by(raw, controller.action))
        self.world = memory.joined(config.bf16)
        self.device, self.dtype = memory.kind["device"], memory.kind["dtype"]

    def rollout(
        self,
        candidates: Tensor,
        starts: DreamStarts,
        generator: torch.Generator,
        ends: Literal["drawn", "expected"] = "drawn",
    ) -> DreamResult:
        """Drive every candidate from every start.

        Args:
            candidates: (P, num_parameters); gradients flow to them if they require grad, through
                z, h, c and the rewards.
            starts: R moments, shared by all candidates.
            generator: source of the noise that rollout r of every candidate shares.
            ends: "drawn" lets a dream end with the probability that M gives. "expected" lets it
                run to the horizon and weights every reward with the probability that there was no
                end before, the product of 1 - p; its returns and lengths are the means of those
                with ends that are drawn, and their gradients know how an action changes p. With
                drawn ends they do not.
        """
        config, n = self.config, len(starts)
        state, tally = self.begin(len(candidates), starts, self.mask(n, generator))
        controllers = self.controllers(candidates)
        for t in range(config.horizon):
            if config.truncation and t and t % config.truncation == 0:
                state = state.detach()
            noise = self.noise(n, generator)
            if ends == "expected":
                noise = noise._replace(end=None)
            state, tally = self.decide(state, tally, controllers, noise)
        return self.result(candidates, tally, state.alive)

    @torch.no_grad()
    def evaluate(
        self, candidates: Tensor, starts: DreamStarts, seed: int, max_lanes: int = 2048
    ) -> DreamResult:
        """Same result as `rollout`, without gradients and several times as fast.

        Candidates go in groups of at most `max_lanes` lanes. Every group sees the same noise; how
        candidates are grouped does not change the noise. M chooses what runs on its device
        (`Memory.backend`).
        """
        check_dtype(candidates, "candidates", cast("nn.Module", self.memory))
        group = max(1, max_lanes // len(starts))
        generator = torch.Generator(self.device)
        parts = []
        for first in range(0, len(candidates), group):
            generator.manual_seed(seed)
            parts.append(self.backend(candidates[first : first + group], starts, generator))
        return DreamResult(*(torch.cat(field) for field in zip(*parts, strict=True)))

    @cached_property
    def backend(self) -> Callable[[Tensor, DreamStarts, torch.Generator], DreamResult]:
        """`rollout`, or what takes its place where no gradient is needed."""
        chosen = self.memory.backend(self)
        return self.rollout if chosen is None else chosen.rollout

    # The pieces of a rollout; the backends are made of them too.

    def begin(
        self, num_candidates: int, starts: DreamStarts, mask: Tensor | None
    ) -> tuple[DreamState, Tally]:
        """All lanes at their starts, and nothing counted yet."""
        starts.check_fits(self.memory.config)
        starts.check_finite()
        z, h, c = (
            field.to(self.device, self.dtype).expand(num_candidates, -1, -1)
            for field in (starts.z, starts.h, starts.c)
        )
        previous = starts.prev_reward.to(self.device, self.dtype).expand(num_candidates, -1)
        state = DreamState.at(z, h, c, previous, mask)
        return state, Tally(*(torch.zeros_like(state.alive) for _ in Tally._fields))

    def controllers(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (P, feature_dim, action_dim) and biases (P, 1, action_dim)."""
        check_dtype(candidates, "candidates", cast("nn.Module", self.memory))
        weight, bias = split_candidates(candidates, self.controller)
        return weight.transpose(1, 2), bias.unsqueeze(1)

    def noise(self, num_rollouts: int, generator: torch.Generator) -> Noise:
        """The random numbers of one decision, the same for every candidate."""
        return draw_noise(self.world, num_rollouts, generator, self.memory.config.predict_end)

    def mask(self, num_rollouts: int, generator: torch.Generator) -> Tensor | None:
        """The dropout of a whole dream, (R, hidden_dim), the same for every candidate."""
        if not self.config.dropout:
            return None
        mem = self.memory.config
        return dropout_mask(num_rollouts, mem.hidden_dim, mem.dropout, generator, self.memory.kind)

    def decide(
        self, state: DreamState, tally: Tally, controllers: tuple[Tensor, Tensor], noise: Noise
    ) -> tuple[DreamState, Tally]:
        """One decision of every controller in all of its lanes."""
        weight, bias = controllers
        seen = torch.cat([state.z, state.h, state.c][: len(self.controller.features)], -1)
        raw = torch.baddbmm(bias, seen, weight)
        after, outcome = dream_step(self.world, state, self.squash(raw), noise, self.config)
        assert outcome.paid is not None  # since M can dream
        beyond = (raw.abs() - 1).clamp_min(0).square().sum(-1)
        return after, Tally(
            tally.returns + state.alive * outcome.paid,
            tally.lengths + state.alive.nan_to_num(0.0),
            tally.saturation + beyond,
        )

    def result(self, candidates: Tensor, tally: Tally, alive: Tensor) -> DreamResult:
        """Result of a rollout.

        A candidate that is not finite itself has returns that are not finite either.

        Raises:
            FloatingPointError: M gave a finite candidate a number that is not; says which.
        """
        found = lost(torch.where(candidates.isfinite().all(1, keepdim=True), alive, 0.0))
        if found is not None:
            decision = int(tally.lengths[found])
            raise not_finite(f"dream {found[1]} of candidate {found[0]}", f"decision {decision}")
        return DreamResult(tally.returns, tally.lengths, tally.saturation / self.config.horizon)
