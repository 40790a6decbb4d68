"""M laid out for thousands of lanes: one matrix for all heads and, of an LSTM, one for all gates.

The same predictions as `Memory.predict`, several times as fast, and as differentiable; see there
for what is done. The weights are read when it is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from generative.mdn import LOG_STD_MAX, LOG_STD_MIN
from generative.training.precision import BF16, uses_bf16
from worldmodels.dreaming.noise import Random
from worldmodels.dreaming.step import DreamState, Prediction

if TYPE_CHECKING:
    from worldmodels.memory.base import Memory, State
    from worldmodels.memory.mdnrnn import MDNRNN

__all__ = ["JoinedMDNRNN", "JoinedMemory", "JoinedNoise"]


class JoinedNoise(NamedTuple):
    """Random numbers of one decision in R lanes."""

    uniform: Tensor
    """(K, R, latent_dim), for the choice of mixtures; `gumbel` overwrites it."""
    eps: Tensor
    """(R, latent_dim), standard normal."""


class JoinedMemory:
    """Any M with its heads in one matrix.

    The mixture's outputs are reordered from (3, D, K) to (3, K, D), so that the running maximum
    over mixtures touches contiguous rows of D.

    Args:
        bf16: matrix products in bfloat16, or "auto".
    """

    @torch.no_grad()
    def __init__(self, memory: Memory, bf16: BF16 = False):
        self.memory, self.config, self.kind = memory, memory.config, memory.kind
        head, mem = memory.mixture_head.linear, memory.config
        shape = (3, mem.latent_dim, mem.num_mixtures)
        weights = [head.weight.unflatten(0, shape).transpose(1, 2).flatten(0, 2)]
        biases = [head.bias.unflatten(0, shape).transpose(1, 2).flatten()]
        for extra in (memory.reward_head, memory.end_head):
            if extra is not None:
                weights.append(extra.weight)
                biases.append(extra.bias)
        self.product_dtype = (
            torch.bfloat16 if uses_bf16(bf16, self.kind["device"]) else self.kind["dtype"]
        )
        self.head_weight = torch.cat(weights).t().contiguous().to(self.product_dtype)
        self.head_bias = torch.cat(biases).clone()

    def noise(self, n: int, random: Random) -> JoinedNoise:
        """Random numbers of one decision in n lanes, from a generator for all of them."""
        assert random is None or isinstance(random, torch.Generator)
        mem = self.config
        kind: dict[str, Any] = {"generator": random, **self.kind}
        return JoinedNoise(
            torch.rand(mem.num_mixtures, n, mem.latent_dim, **kind),
            torch.randn(n, mem.latent_dim, **kind),
        )

    def predict(
        self, state: DreamState, action: Tensor, noise: JoinedNoise, temperature: float
    ) -> Prediction:
        """As `Memory.predict`. Overwrites `noise.uniform`."""
        mem = self.config
        h, c = self.observe(state.z, action, (state.h, state.c), state.prev_reward)
        out = self.linear(h if state.mask is None else h * state.mask, self.head_weight)
        out = out + self.head_bias
        z = self._draw(out, state.z, noise, temperature)
        reward = out[..., -2 if mem.predict_end else -1] * mem.reward_scale
        p_end = torch.sigmoid(out[..., -1]) if mem.predict_end else None
        return Prediction(z, reward if mem.predict_reward else None, p_end, h, c)

    def observe(self, z: Tensor, action: Tensor, state: State, prev_reward: Tensor | None) -> State:
        """As `Memory.observe`."""
        return self.memory.observe(z, action, state, prev_reward)

    def linear(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """inputs @ weight in the weight's precision, the result in that of the inputs."""
        return torch.matmul(inputs.to(weight.dtype), weight).to(inputs.dtype)

    def gumbel(self, noise: JoinedNoise, temperature: float) -> Tensor:
        """Standard Gumbel numbers times temperature, written over the uniform ones."""
        uniform = noise.uniform
        least = max(1e-30, torch.finfo(uniform.dtype).tiny)
        return uniform.clamp_min_(least).log_().neg_().log_().neg_().mul_(temperature)

    def _draw(self, out: Tensor, z: Tensor, noise: JoinedNoise, temperature: float) -> Tensor:
        """Gumbel-max over the mixtures by a running maximum, then the chosen Gaussian."""
        mem = self.config
        dim, mixtures = mem.latent_dim, mem.num_mixtures
        mixture = out[..., : 3 * mixtures * dim].unflatten(-1, (3, mixtures, dim))
        log_pi, mu, log_std = mixture.unbind(-3)
        with torch.no_grad():
            # log_pi + tau * gumbel has its maximum where log_pi / tau + gumbel has, at 0 too.
            gumbel = self.gumbel(noise, temperature)
            best = log_pi[..., 0, :] + gumbel[0]
            chosen = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
            for k in range(1, mixtures):
                score = log_pi[..., k, :] + gumbel[k]
                chosen = torch.where(score > best, k, chosen)
                best = torch.maximum(best, score)
            chosen = chosen.unsqueeze(-2)
        mu = mu.gather(-2, chosen).squeeze(-2)
        log_std = log_std.gather(-2, chosen).squeeze(-2).clamp(LOG_STD_MIN, LOG_STD_MAX)
        z_next = mu + math.sqrt(temperature) * log_std.exp() * noise.eps
        return z_next + z if mem.residual else z_next


class JoinedMDNRNN(JoinedMemory):
    """An MDN-RNN that also has its four gates in one matrix."""

    @torch.no_grad()
    def __init__(self, memory: MDNRNN, bf16: BF16 = False):
        super().__init__(memory, bf16)
        weight_ih, weight_hh, bias_ih, bias_hh = memory.lstm.all_weights[0]
        weight = torch.cat([weight_ih, weight_hh], dim=1).t().contiguous()
        self.gate_weight = weight.to(self.product_dtype)
        self.gate_bias = (bias_ih + bias_hh).clone()

    def observe(self, z: Tensor, action: Tensor, state: State, prev_reward: Tensor | None) -> State:
        """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c')."""
        (h, c), mem = state, self.config
        parts = [z, action, h]
        if mem.reward_input:
            assert prev_reward is not None  # of a dream
            parts.insert(2, (prev_reward / mem.reward_scale).unsqueeze(-1))
        gates = self.linear(torch.cat(parts, dim=-1), self.gate_weight) + self.gate_bias
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
