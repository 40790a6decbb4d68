"""Boltzmann machines, fully connected and restricted. A chain's state is a row of bits: the visible
ones of a restricted machine, all units of the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.rbm.config import BoltzmannConfig, RBMConfig
from generative.training.checks import check_batch, check_some, check_vectors, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero

__all__ = ["RBM", "BoltzmannMachine", "LogPartition", "all_bits", "check_bits"]

MAX_ENUMERATED = 20
"""Largest number of bits whose states are summed up: a million states, one second."""


def all_bits(n: int, like: Tensor, rows: int = 2**14) -> Iterator[Tensor]:
    """All 2^n states of n bits, (up to `rows`, n) at a time, with the type and device of `like`."""
    shifts = torch.arange(n, device=like.device)
    for start in range(0, 2**n, rows):
        numbers = torch.arange(start, min(start + rows, 2**n), device=like.device)
        yield (numbers[:, None] >> shifts & 1).to(like.dtype)


def check_bits(x: Tensor, shape: tuple[int, ...], model: nn.Module) -> Tensor:
    """Check x, (B, *shape) of zeros and ones in the dtype of the model, and flatten it to (B, D).

    Raises:
        ValueError: wrong shape or type, or a value other than 0 and 1.
    """
    check_batch(x, shape, "bits", model)
    if not bool(((x == 0) | (x == 1)).all()):
        low, high = float(x.min()), float(x.max())
        raise ValueError(
            f"got numbers from {low:.4g} to {high:.4g} that are not bits; {type(model).__name__} "
            "needs zeros and ones: binarise them first, (x >= 0.5).float()"
        )
    return x.flatten(1)


class LogPartition(NamedTuple):
    """An estimate of log Z."""

    log_partition: float
    """log Z in nats; the estimate of Z is unbiased, its logarithm is too low on average."""
    std_error: float
    """Standard error of log_partition, from the spread of the chains (delta method)."""


class BoltzmannMachine(Pretrained, nn.Module):
    """Fully connected Boltzmann machine: E(s) = -s^T A s / 2 - a^T s of all units s = (v, h).

    A is symmetric with zeros on its diagonal. Its blocks are the book's L (visible), J (hidden) and
    W; the book's energy has no biases and halves W too. Units are drawn one at a time, and the sum
    over h has no formula: a demonstration for 20 units or fewer (Ackley, Hinton & Sejnowski 1985).
    """

    config_class = BoltzmannConfig
    rows: Tensor
    columns: Tensor

    def __init__(self, config: BoltzmannConfig | None = None):
        super().__init__()
        self.config = config = config or BoltzmannConfig()
        self.visible_dim = math.prod(config.shape)
        self.num_units = self.visible_dim + config.hidden_dim
        pairs = torch.triu_indices(self.num_units, self.num_units, 1)
        self.register_buffer("rows", pairs[0], persistent=False)
        self.register_buffer("columns", pairs[1], persistent=False)
        self.couplings = nn.Parameter(0.01 * torch.randn(pairs.shape[1]))
        self.biases = nn.Parameter(torch.zeros(self.num_units))

    def matrix(self) -> Tensor:
        """A, (units, units)."""
        a = self.couplings.new_zeros(self.num_units, self.num_units)
        a = a.index_put((self.rows, self.columns), self.couplings)
        return a + a.T

    def energy(self, s: Tensor) -> Tensor:
        """Energy of states of all units, (B, units) -> (B,)."""
        check_vectors(s, self.num_units, "states", self)
        return -(s @ self.matrix() * s).sum(1) / 2 - s @ self.biases

    def free_energy(self, x: Tensor) -> Tensor:
        """-log sum_h exp(-E(x, h)) by enumeration of h, (B, *shape) -> (B,)."""
        return self.chain_free_energy(check_bits(x, self.config.shape, self))

    def log_partition(self) -> Tensor:
        """log Z by enumeration of all units, a scalar with gradient.

        Raises:
            ValueError: more than 20 units.
        """
        _refuse_more_than(MAX_ENUMERATED, self.num_units, "units")
        states = all_bits(self.num_units, self.biases)
        return torch.cat([-self.energy(s) for s in states]).logsumexp(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log probability of each example, exact, (B, *shape) -> (B,), nats."""
        return -self.free_energy(x) - self.log_partition()

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) of bits, from chains of `config.sample_steps` sweeps."""
        halves = torch.full((n, self.num_units), 0.5, **placed(self))
        s = torch.bernoulli(halves, generator=generator)
        s = self.gibbs(s, self.config.sample_steps, generator)
        return s[:, : self.visible_dim].unflatten(1, self.config.shape)

    @torch.no_grad()
    def gibbs(self, s: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """States after `steps` sweeps over all units, each drawn given all others, (B, units)."""
        return self._sweep(s, range(self.num_units), steps, generator)

    @torch.no_grad()
    def start_chains(self, v: Tensor) -> Tensor:
        """States of all units that begin at visible bits (B, D)."""
        h = torch.bernoulli(v.new_full((len(v), self.config.hidden_dim), 0.5))
        s = torch.cat([v, h], 1)
        return self._sweep(s, range(self.visible_dim, self.num_units), 1, None)

    def chain_free_energy(self, s: Tensor) -> Tensor:
        """Free energy of the visible bits of chains; unchecked."""
        v, hidden_dim = s[:, : self.visible_dim], self.config.hidden_dim
        _refuse_more_than(MAX_ENUMERATED, hidden_dim, "hidden units")
        a, d = self.matrix(), self.visible_dim
        inside = -(v @ a[:d, :d] * v).sum(1) / 2 - v @ self.biases[:d]
        field = v @ a[:d, d:] + self.biases[d:]
        terms = [
            field @ h.T + (h @ a[d:, d:] * h).sum(1) / 2 for h in all_bits(hidden_dim, self.biases)
        ]
        return inside - torch.cat(terms, 1).logsumexp(1)

    def _sweep(
        self, s: Tensor, units: range, steps: int, generator: torch.Generator | None
    ) -> Tensor:
        a, s = self.matrix(), s.clone()
        for _ in range(steps):
            for i in units:
                p = (s @ a[:, i] + self.biases[i]).sigmoid()
                s[:, i] = torch.bernoulli(p, generator=generator)
        return s


class RBM(Pretrained, nn.Module):
    """Restricted Boltzmann machine: E(v, h) = -v^T W h - b^T v - c^T h."""

    config_class = RBMConfig

    def __init__(self, config: RBMConfig | None = None):
        super().__init__()
        self.config = config = config or RBMConfig()
        self.visible_dim = math.prod(config.shape)
        self.weight = nn.Parameter(0.01 * torch.randn(self.visible_dim, config.hidden_dim))
        self.visible_bias = nn.Parameter(torch.zeros(self.visible_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden_dim))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set b to the log odds of each visible bit in examples (N, *shape) (Hinton 2010, 8)."""
        p = check_some(self._flat(x), self).mean(0)
        self.visible_bias.copy_(p.clamp(0.01, 0.99).logit())

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """Visible (B, D) and hidden bits (B, H) -> energies (B,)."""
        check_vectors(v, self.visible_dim, "visible bits", self)
        check_vectors(h, self.config.hidden_dim, "hidden bits", self)
        return -(v @ self.weight * h).sum(1) - v @ self.visible_bias - h @ self.hidden_bias

    def free_energy(self, x: Tensor) -> Tensor:
        """-log sum_h exp(-E) = -b^T v - sum_j softplus(c_j + (W^T v)_j), (B, *shape) -> (B,)."""
        return self.chain_free_energy(self._flat(x))

    def hidden_logits(self, v: Tensor) -> Tensor:
        """Log odds of h = 1 given visible bits (..., D), (..., H); unchecked."""
        return v @ self.weight + self.hidden_bias

    def visible_logits(self, h: Tensor) -> Tensor:
        """Log odds of v = 1 given hidden bits (..., H), (..., D)."""
        return h @ self.weight.T + self.visible_bias

    def hidden_mean(self, x: Tensor) -> Tensor:
        """p(h = 1 | x), (B, *shape) -> (B, H)."""
        return self.hidden_logits(self._flat(x)).sigmoid()

    def visible_mean(self, h: Tensor) -> Tensor:
        """p(v = 1 | h), (B, H) -> (B, *shape)."""
        check_vectors(h, self.config.hidden_dim, "hidden bits", self)
        return self.visible_logits(h).sigmoid().unflatten(1, self.config.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """p(v = 1) given the mean of the hidden units, (B, *shape)."""
        return self.visible_mean(self.hidden_mean(x))

    def log_partition(self) -> Tensor:
        """log Z by enumeration of the side with fewer units, a scalar with gradient.

        Raises:
            ValueError: both sides have more than 20 units.
        """
        d, h = self.weight.shape
        _refuse_more_than(MAX_ENUMERATED, min(d, h), f"of {d} visible and {h} hidden units")
        if d <= h:
            terms = [-self.chain_free_energy(v) for v in all_bits(d, self.weight)]
        else:
            terms = [
                h @ self.hidden_bias + F.softplus(self.visible_logits(h)).sum(1)
                for h in all_bits(h, self.weight)
            ]
        return torch.cat(terms).logsumexp(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log probability of each example, exact, (B, *shape) -> (B,), nats.

        Raises:
            ValueError: both sides have more than 20 units; `estimate_log_partition` has no limit.
        """
        return -self.free_energy(x) - self.log_partition()

    @checked
    @torch.no_grad()
    def estimate_log_partition(
        self,
        num_temperatures: Count = 1000,
        num_chains: Count = 200,
        examples: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LogPartition:
        """log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

        Chains go from independent bits to the machine as beta rises from 0 to 1, with
        p_beta(v) ~ exp((1 - beta) a^T v + beta b^T v) prod_j (1 + exp(beta (c + W^T v)_j)).

        Args:
            num_temperatures: number of values of beta; the error falls with it.
            examples: (N, *shape), whose log odds are a; by default a is the machine's b.
        """
        a, b, c = self.visible_bias, self.visible_bias, self.hidden_bias
        if examples is not None:
            p = check_some(self._flat(examples), self).mean(0)
            a = p.clamp(0.01, 0.99).logit()

        def log_marginal(v: Tensor, beta: float) -> Tensor:
            return v @ (a + beta * (b - a)) + F.softplus(beta * self.hidden_logits(v)).sum(1)

        v = torch.bernoulli(a.sigmoid().expand(num_chains, -1), generator=generator)
        log_weights = (F.softplus(a).sum() + len(c) * math.log(2)).expand(num_chains)
        betas = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float32).tolist()
        for before, beta in pairwise(betas):
            log_weights = log_weights + log_marginal(v, beta) - log_marginal(v, before)
            p = (beta * self.hidden_logits(v)).sigmoid()
            h = torch.bernoulli(p, generator=generator)
            p = (a + beta * (b - a + h @ self.weight.T)).sigmoid()
            v = torch.bernoulli(p, generator=generator)
        log_partition = log_weights.logsumexp(0) - math.log(num_chains)
        ratios = (log_weights - log_partition).exp()
        return LogPartition(float(log_partition), float(ratios.std() / math.sqrt(num_chains)))

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) of bits, from chains of `config.sample_steps` Gibbs steps."""
        v = torch.bernoulli(self.visible_bias.sigmoid().expand(n, -1), generator=generator)
        v = self.gibbs(v, self.config.sample_steps, generator)
        return v.unflatten(1, self.config.shape)

    @torch.no_grad()
    def gibbs(
        self,
        v: Tensor,
        steps: int,
        generator: torch.Generator | None = None,
        beta: float | Tensor = 1.0,
    ) -> Tensor:
        """Visible bits (..., D) after `steps` draws of h given v and v given h.

        beta scales W and c (parallel tempering); at 0 the visible bits are independent.
        """
        for _ in range(steps):
            h = torch.bernoulli((beta * self.hidden_logits(v)).sigmoid(), generator=generator)
            p = (self.visible_bias + beta * (h @ self.weight.T)).sigmoid()
            v = torch.bernoulli(p, generator=generator)
        return v

    def start_chains(self, v: Tensor) -> Tensor:
        """States of chains that begin at visible bits (B, D), which are the whole state."""
        return v

    def chain_free_energy(self, v: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """Free energy of visible bits (..., D); unchecked."""
        hidden = F.softplus(beta * self.hidden_logits(v))
        return -v @ self.visible_bias - hidden.sum(-1)

    def _flat(self, x: Tensor) -> Tensor:
        return check_bits(x, self.config.shape, self)


def _refuse_more_than(most: int, n: int, what: str) -> None:
    if n > most:
        raise ValueError(
            f"a sum over 2^{n} states ({what}) takes too long, at most 2^{most} are summed up; use "
            "free_energy, and estimate_log_partition of a restricted machine"
        )
