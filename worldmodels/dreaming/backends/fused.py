"""Dreams of an MDN-RNN on a CPU core: torch multiplies matrices, kernels do the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.training.checks import check_dtype
from worldmodels.controller import split_candidates
from worldmodels.dreaming.rollout import Tally

if TYPE_CHECKING:
    from worldmodels.configs import DreamConfig
    from worldmodels.dreaming.rollout import Dream, DreamResult
    from worldmodels.dreaming.starts import DreamStarts

__all__ = ["FusedDream"]


class FusedDream:
    """Every array stays where it is: a kernel reads the product before it once, and writes what the
    next product needs. (`Dream.rollout` goes over the gates of all lanes some twenty times a
    decision, and writes a new tensor every time.)

    The kernels use one core. To use more, run as many processes of one torch thread each
    (`worldmodels.scoring`).

    Args:
        dream: of an MDN-RNN; its weights are those that `dream.world` has joined.
    """

    def __init__(self, dream: Dream):
        from worldmodels.dreaming.backends import kernels  # numba takes half a second to import

        self.dream, self.kernels = dream, kernels
        self.world: Any = dream.world  # a `worldmodels.memory.joined.JoinedMDNRNN`
        # Products are faster, in float32 by a tenth, if these sizes are multiples.
        self.gate_weight = _pad(self.world.gate_weight, rows=4, columns=16)
        self.head_weight = _pad(self.world.head_weight, rows=1, columns=16)
        self.gate_bias, self.head_bias = self.world.gate_bias.numpy(), self.world.head_bias.numpy()

    @torch.no_grad()
    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """As `Dream.rollout`, without gradients."""
        dream, config, kernels = self.dream, self.dream.config, self.kernels
        check_dtype(candidates, "candidates", cast("nn.Module", dream.memory))
        mem = dream.memory.config
        starts.check_fits(mem)
        starts.check_finite()
        lanes = num_candidates, num_rollouts = len(candidates), len(starts)
        weight, bias = split_candidates(candidates, dream.controller)
        weight, bias = weight.contiguous().numpy(), bias.contiguous().numpy()
        mask = dream.mask(num_rollouts, generator)
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
        tally = Tally(*torch.zeros(3, *lanes, dtype=torch.float32))
        stretch = torch.zeros(lanes, dtype=torch.float32)
        alive = torch.ones_like(stretch)
        lengths, saturation = (x.view(-1).numpy() for x in (tally.lengths, tally.saturation))
        root = np.float32(math.sqrt(config.temperature))
        clip = config.reward_clip or (-math.inf, math.inf)
        limits = [np.float32(x) for x in (mem.reward_scale, *clip)]
        # The kernels see the same memory.
        state, mask, raw_ = (x.numpy() for x in (state, mask, raw))
        inputs_, gates_, features_, out_ = map(_array, (inputs, gates, features, out))
        ends = alive.view(-1).numpy(), stretch.view(-1).numpy(), lengths
        counted = state, mem.latent_dim, *ends

        for t in range(config.horizon):
            kernels.steer(state, weight, bias, raw_, saturation)
            action.copy_(dream.squash(raw).flatten(0, 1))
            torch.mm(inputs, self.gate_weight, out=gates)
            kernels.lstm_cell(gates_, self.gate_bias, mask, state, inputs_, h_at, features_)
            torch.mm(features, self.head_weight, out=out)
            noise = dream.noise(num_rollouts, generator)
            gumbel = self.world.gumbel(noise.world, config.temperature).numpy()
            eps = noise.world.eps.numpy()
            kernels.sample_z(out_, self.head_bias, gumbel, eps, root, mem.residual, state, inputs_)
            uniform = eps[0] if noise.end is None else noise.end.numpy()  # not read without an end
            kernels.settle(out_, tail_at, tail_bias, *limits, uniform, *counted, inputs_, reward_at)
            if decisions := _stretch_ends(t, config):
                cap = config.pace_cap
                tally.returns.add_(stretch if cap is None else stretch.clamp_max(cap * decisions))
                stretch.zero_()
        return dream.result(candidates, tally, alive)


def _stretch_ends(t: int, config: DreamConfig) -> int:
    """Decisions in the stretch that decision t ends, 0 if it goes on."""
    window = config.pace_window if config.pace_cap is not None else 1
    ends = (t + 1) % window == 0 or t + 1 == config.horizon
    return t % window + 1 if ends else 0


def _pad(weight: Tensor, rows: int, columns: int) -> Tensor:
    """weight with zeros below and to the right, up to sizes that are multiples of these."""
    return F.pad(weight, (0, -weight.shape[1] % columns, 0, -weight.shape[0] % rows))


def _array(tensor: Tensor) -> np.ndarray:
    """The same memory for numba, to which a bfloat16 is a uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
