"""Dreams of any M on a CUDA device: a decision is recorded once as a CUDA graph, and replayed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldmodels.dreaming.rollout import Tally
from worldmodels.dreaming.starts import DreamStarts

if TYPE_CHECKING:
    from worldmodels.dreaming.rollout import Dream, DreamResult

__all__ = ["GraphedDream", "StaticDream"]


class GraphedDream:
    """Records a decision for each number of candidates and rollouts, and replays it.

    A decision is some sixty small kernels, which the device finishes sooner than Python can launch
    them. Nothing in a rollout waits for the device. Where recording fails, a warning says why,
    and dreams run by `Dream.rollout`, with the same numbers.
    """

    MOST_GRAPHS = 4
    """Numbers of candidates and rollouts that graphs are kept for; each holds memory."""

    def __init__(self, dream: Dream):
        self.dream = dream
        self._recorded: dict[tuple[int, int], StaticDream] | None = {}

    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """As `Dream.rollout`, without gradients."""
        static = self._static(len(candidates), len(starts))
        return (static or self.dream).rollout(candidates, starts, generator)

    def _static(self, num_candidates: int, num_rollouts: int) -> StaticDream | None:
        """The recorded dream of this size; None if the device cannot record."""
        if self._recorded is None:
            return None
        size = (num_candidates, num_rollouts)
        if size not in self._recorded:
            if len(self._recorded) == self.MOST_GRAPHS:
                del self._recorded[next(iter(self._recorded))]
            try:
                static = StaticDream(self.dream, *size)
                static.record()
            except RuntimeError as error:
                warnings.warn(f"dreams run without a CUDA graph: {error}", stacklevel=2)
                self._recorded = None
                return None
            self._recorded[size] = static
        return self._recorded[size]


class StaticDream:
    """`Dream.rollout` on tensors that stay where they are, as a CUDA graph needs them.

    Works on any device; `record` needs CUDA.

    Args:
        dream: settings and weights; recorded, they stay what they are now.
        num_candidates, num_rollouts: of every rollout.
    """

    def __init__(self, dream: Dream, num_candidates: int, num_rollouts: int):
        self.dream = dream
        mem, device = dream.memory.config, dream.device
        sizes = (mem.latent_dim, mem.hidden_dim, mem.state_dim)
        z, h, c = (torch.zeros(num_rollouts, size) for size in sizes)
        starts = DreamStarts(z, h, c, torch.zeros(num_rollouts))
        shape = (num_candidates, dream.controller.num_parameters)
        candidates = torch.zeros(shape, device=device, dtype=dream.dtype)
        generator = torch.Generator(device)
        mask = dream.mask(num_rollouts, generator)
        kept = (
            *dream.begin(num_candidates, starts, mask),
            dream.controllers(candidates),
            dream.noise(num_rollouts, generator),
        )
        self.state, self.tally, self.controllers, self.noise = _copies(kept)
        self.step = self._step

    @torch.no_grad()
    def _step(self) -> None:
        """One decision, from the kept tensors into the kept tensors."""
        decided = self.dream.decide(self.state, self.tally, self.controllers, self.noise)
        _overwrite((self.state, self.tally), decided)

    def record(self) -> None:
        """From now on `step` replays what `_step` does.

        Raises:
            RuntimeError: there is no CUDA, or the step does something that cannot be recorded.
        """
        with torch.cuda.device(self.dream.device):
            # Libraries set themselves up in their first calls, which must not be recorded:
            # https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self._step()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
        self.step = graph.replay

    @torch.no_grad()
    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """As `Dream.rollout`, without gradients."""
        dream, num_rollouts = self.dream, len(starts)
        begun = dream.begin(len(candidates), starts, dream.mask(num_rollouts, generator))
        _overwrite((self.state, self.tally), begun)
        _overwrite(self.controllers, dream.controllers(candidates))
        for _ in range(dream.config.horizon):
            _overwrite(self.noise, dream.noise(num_rollouts, generator))  # outside the graph
            self.step()
        tally = Tally(*(field.clone() for field in self.tally))
        return dream.result(candidates, tally, self.state.alive)


def _copies(kept: Any) -> Any:
    """The same nested tuples with tensors of their own memory."""
    if kept is None or isinstance(kept, Tensor):
        return kept if kept is None else kept.clone()
    parts = [_copies(part) for part in kept]
    return kept._make(parts) if hasattr(kept, "_make") else tuple(parts)


def _overwrite(kept: Any, new: Any) -> None:
    """Put the numbers of `new` where those of `kept` are; nested tuples of one form."""
    if isinstance(kept, Tensor):
        kept.copy_(new)
    elif kept is not None:
        for old, value in zip(kept, new, strict=True):
            _overwrite(old, value)
