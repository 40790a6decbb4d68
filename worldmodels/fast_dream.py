"""Dreams without gradients, as fast as the device allows; for `Dream.evaluate`.

`FusedDream` is for a CPU core, `GraphedDream` for a CUDA device. Both draw the same random numbers
in the same order as `Dream.rollout`, so that all three give the same returns up to rounding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.training.checks import check_dtype
from generative.training.precision import default_bf16
from worldmodels.controller import split_candidates

if TYPE_CHECKING:
    from worldmodels.dream import Dream, DreamResult, DreamStarts

__all__ = ["FusedDream", "GraphedDream", "StaticDream", "default_bf16"]


class FusedDream:
    """On the CPU: torch multiplies matrices, `worldmodels.dream_kernels` do what lies between.

    `Dream.rollout` goes over the gates of all lanes some twenty times a step and writes a new
    tensor every time. Here every array stays where it is: a kernel reads the product before it
    once, and writes what the next product needs.

    The kernels use one core. To use more, run as many processes of one torch thread each
    (`worldmodels.parallel`).

    Args:
        dream: its weights are read now, not later.
    """

    def __init__(self, dream: Dream):
        from worldmodels import dream_kernels  # imports numba, which takes half a second

        self.dream, self.kernels = dream, dream_kernels
        # Products are faster, in float32 by a tenth, if these sizes are multiples.
        self.gate_weight = _pad(dream.gate_weight, rows=4, columns=16)
        self.head_weight = _pad(dream.head_weight, rows=1, columns=16)
        self.gate_bias, self.head_bias = dream.gate_bias.numpy(), dream.head_bias.numpy()

    @torch.no_grad()
    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """As `Dream.rollout`, without gradients."""
        dream, config, kernels = self.dream, self.dream.config, self.kernels
        check_dtype(candidates, "candidates", dream.memory)
        mem = dream.memory.config
        starts.check_fits(mem)
        starts.check_finite()
        lanes = num_candidates, num_rollouts = len(candidates), len(starts)
        weight, bias = split_candidates(candidates, dream.controller)
        weight, bias = weight.contiguous().numpy(), bias.contiguous().numpy()
        mask = dream._dropout_mask(num_rollouts, generator)
        if mask is None:
            mask = torch.ones(num_rollouts, mem.hidden_dim, dtype=torch.float32)

        # One row per lane: z, h and c, and what enters and leaves the two matrix products.
        num_rows, dtype = num_candidates * num_rollouts, self.gate_weight.dtype
        state = torch.cat([starts.z, starts.h, starts.c], 1).float().repeat(num_candidates, 1)
        inputs = torch.zeros(num_rows, self.gate_weight.shape[0], dtype=dtype)
        gates = torch.empty(num_rows, self.gate_weight.shape[1], dtype=dtype)
        features = torch.empty(num_rows, mem.hidden_dim, dtype=dtype)
        out = torch.empty(num_rows, self.head_weight.shape[1], dtype=dtype)

        # Columns of `inputs`: z, action, perhaps the reward, h, zeros for padding.
        z, h, _ = state.split([mem.latent_dim, mem.hidden_dim, mem.hidden_dim], 1)
        h_at, reward_at = mem.input_dim, -1
        inputs[:, : mem.latent_dim], inputs[:, h_at : h_at + mem.hidden_dim] = z, h
        action = inputs[:, mem.latent_dim : mem.latent_dim + mem.action_dim]
        if mem.reward_input:
            reward_at = h_at - 1
            previous = starts.prev_reward / mem.reward_scale
            inputs[:, reward_at] = previous.repeat(num_candidates)
        # Columns of `out`: the mixture, the reward, perhaps the end, padding.
        tail_at = 3 * mem.num_mixtures * mem.latent_dim
        tail_bias = self.head_bias[tail_at:]

        raw = torch.empty(*lanes, mem.action_dim, dtype=torch.float32)
        returns = torch.zeros(lanes, dtype=torch.float32)
        alive = np.ones(num_rows, np.float32)
        stretch, lengths, saturation = np.zeros((3, num_rows), np.float32)
        tally = alive, stretch, lengths
        unsettled = torch.from_numpy(stretch).view(lanes)
        root = np.float32(math.sqrt(config.temperature))
        clip = config.reward_clip or (-math.inf, math.inf)
        limits = [np.float32(x) for x in (mem.reward_scale, *clip)]
        # The kernels see the same memory.
        state, mask, raw_ = state.numpy(), mask.numpy(), raw.numpy()
        inputs_, gates_, features_, out_ = map(_array, (inputs, gates, features, out))

        for t in range(config.horizon):
            kernels.steer(state, weight, bias, raw_, saturation)
            action.copy_(dream.squash(raw).flatten(0, 1))
            torch.mm(inputs, self.gate_weight, out=gates)
            kernels.lstm_cell(gates_, self.gate_bias, mask, state, inputs_, h_at, features_)
            torch.mm(features, self.head_weight, out=out)
            noise = dream._noise(num_rollouts, generator)
            gumbel, eps = dream._gumbel(noise.uniform).numpy(), noise.eps.numpy()
            kernels.sample_z(out_, self.head_bias, gumbel, eps, root, mem.residual, state, inputs_)
            uniform = eps[0] if noise.end is None else noise.end.numpy()  # not read without an end
            kernels.settle(out_, tail_at, tail_bias, *limits, uniform, *tally, inputs_, reward_at)
            if decisions := dream._stretch_ends(t):
                returns += dream._cap(unsettled, decisions)
                unsettled.zero_()
        ends = (torch.from_numpy(x).view(lanes) for x in (alive, lengths, saturation))
        return dream._result(candidates, returns, *ends)


def _pad(weight: Tensor, rows: int, columns: int) -> Tensor:
    """weight with zeros below and to the right, up to sizes that are multiples of these."""
    return F.pad(weight, (0, -weight.shape[1] % columns, 0, -weight.shape[0] % rows))


def _array(tensor: Tensor) -> np.ndarray:
    """The same memory for numba, to which a bfloat16 is a uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class GraphedDream:
    """On a CUDA device: a decision is recorded once as a CUDA graph, and replayed.

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
        from worldmodels.dream import DreamStarts

        self.dream = dream
        mem, device = dream.memory.config, dream.device
        sizes = (mem.latent_dim, mem.hidden_dim, mem.state_dim)
        z, h, c = (torch.zeros(num_rollouts, size) for size in sizes)
        starts = DreamStarts(z, h, c, torch.zeros(num_rollouts))
        shape = (num_candidates, dream.controller.num_parameters)
        candidates = torch.zeros(shape, device=device, dtype=dream.dtype)
        generator = torch.Generator(device)
        self.lanes = dream._begin(num_candidates, starts)
        self.lanes = self.lanes._make(field.clone() for field in self.lanes)
        weight, bias = dream._controllers(candidates)
        self.controllers = weight.clone(), bias.clone()
        self.mask = dream._dropout_mask(num_rollouts, generator)
        self.noise = dream._noise(num_rollouts, generator)
        self.step = self._step

    @torch.no_grad()
    def _step(self) -> None:
        """One decision, from `lanes` and `noise` into `lanes`."""
        stepped = self.dream._step(self.lanes, self.controllers, self.noise, self.mask)
        _overwrite(self.lanes, stepped)

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
        dream, lanes, noise = self.dream, self.lanes, self.noise
        _overwrite(lanes, dream._begin(len(candidates), starts))
        _overwrite(self.controllers, dream._controllers(candidates))
        if self.mask is not None:
            mask = dream._dropout_mask(len(starts), generator)
            assert mask is not None  # as it was when self.mask was made
            self.mask.copy_(mask)
        returns = torch.zeros_like(lanes.alive)
        for t in range(dream.config.horizon):
            # Drawn outside the graph, in the order of `Dream._noise`.
            noise.uniform.uniform_(generator=generator)
            noise.eps.normal_(generator=generator)
            if noise.end is not None:
                noise.end.uniform_(generator=generator)
            self.step()
            if decisions := dream._stretch_ends(t):
                returns += dream._cap(lanes.stretch, decisions)
                lanes.stretch.zero_()
        return dream._result(
            candidates, returns, lanes.alive, lanes.lengths.clone(), lanes.saturation
        )


def _overwrite(kept: Iterable[Tensor], new: Iterable[Tensor]) -> None:
    for old, value in zip(kept, new, strict=True):
        old.copy_(value)
