"""Boltzmann machines: fully connected, restricted, and stacked to deep belief networks.

Bits v and hidden bits h have p(v, h) = exp(-E(v, h)) / Z. In the restricted machine no two units of
one side are connected, so that a whole side is drawn at once given the other, and h can be summed
out: F(v) = -log sum_h exp(-E(v, h)) is a formula (Smolensky 1986; Hinton 2002).

    rbm = RBM.from_pretrained("runs/rbm/model")
    rbm.free_energy(x)                   # (B, *shape) of bits -> (B,)
    rbm.log_prob(x)                      # exact, if one side has 20 units or fewer
    estimate = rbm.estimate_log_partition()      # any size, by annealed importance sampling
    -rbm.free_energy(x) - estimate.log_partition
    rbm.sample(64)                       # (64, *shape)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from generative.configs.rbm import BoltzmannConfig, DBNConfig, RBMConfig, RBMLossConfig
from generative.pretrained import Pretrained
from generative.training.average import warm_average

__all__ = [
    "RBM",
    "BoltzmannConfig",
    "BoltzmannLearner",
    "BoltzmannMachine",
    "DBNConfig",
    "DBNLearner",
    "DeepBeliefNetwork",
    "LogPartition",
    "RBMConfig",
    "RBMLossConfig",
    "all_bits",
]

MAX_ENUMERATED = 20
"""Bits whose states are summed up: a million of them, a second of work."""


def all_bits(n: int, like: Tensor, rows: int = 2**14) -> Iterator[Tensor]:
    """All 2^n states of n bits, (up to `rows`, n) at a time, with the type and device of `like`."""
    shifts = torch.arange(n, device=like.device)
    for start in range(0, 2**n, rows):
        numbers = torch.arange(start, min(start + rows, 2**n), device=like.device)
        yield (numbers[:, None] >> shifts & 1).to(like.dtype)


def check_bits(x: Tensor, shape: tuple[int, ...], who: str) -> Tensor:
    """Float (B, *shape) of zeros and ones -> (B, D).

    Raises:
        ValueError: another shape or type, or a number in between.
    """
    wanted = f"{who} needs float (B, {', '.join(map(str, shape))}) of zeros and ones"
    if tuple(x.shape[1:]) != tuple(shape) or not x.is_floating_point():
        raise ValueError(f"got examples of shape {tuple(x.shape)} and {x.dtype}; {wanted}")
    if not bool(((x == 0) | (x == 1)).all()):
        low, high = float(x.min()), float(x.max())
        raise ValueError(
            f"got numbers from {low:.4g} to {high:.4g} that are not bits; {wanted}: binarise them "
            "first, (x >= 0.5).float()"
        )
    return x.flatten(1)


class LogPartition(NamedTuple):
    """An estimate of log Z."""

    log_partition: float
    """Nats; the estimate of Z itself is unbiased, its logarithm is too low on average."""
    std_error: float
    """Of it, from the spread of the chains (delta method)."""


# ---------------------------------------------------------------------------------------------
# Machines. A chain's state is a row of bits: the visible ones, or all units.
# ---------------------------------------------------------------------------------------------


class BoltzmannMachine(Pretrained, nn.Module):
    """Every unit connected with every other: E(s) = -s^T A s / 2 - a^T s of all units s = (v, h).

    A is symmetric with zeros on its diagonal. Its blocks are the book's L (visible), J (hidden) and
    W; the book's energy has no biases and halves W too. Units are drawn one at a time, and the sum
    over h has no formula: a demonstration for 20 units or fewer (Ackley, Hinton & Sejnowski 1985).
    """

    config_class = BoltzmannConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample", "log_prob"})
    rows: Tensor
    columns: Tensor

    def __init__(self, config: BoltzmannConfig | None = None):
        super().__init__()
        self.config = config = config or BoltzmannConfig()
        self.visible_dim = math.prod(config.shape)
        self.num_units = self.visible_dim + config.hidden_dim
        pairs = torch.triu_indices(self.num_units, self.num_units, 1, device="cpu")
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
        return -(s @ self.matrix() * s).sum(1) / 2 - s @ self.biases

    def free_energy(self, x: Tensor) -> Tensor:
        """-log sum_h exp(-E(x, h)) by enumeration of h, (B, *shape) -> (B,)."""
        return self.chain_free_energy(check_bits(x, self.config.shape, "this machine"))

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

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) of bits, from chains of `config.sample_steps` sweeps."""
        halves = torch.full((n, self.num_units), 0.5, device=self.biases.device)
        s = torch.bernoulli(halves, generator=generator).to(self.biases.dtype)
        s = self.gibbs(s, self.config.sample_steps, generator)
        return s[:, : self.visible_dim].unflatten(1, self.config.shape)

    @torch.no_grad()
    def gibbs(self, s: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Sweeps over all units, each drawn given all others, (B, units)."""
        return self._sweep(s, range(self.num_units), steps, generator)

    @torch.no_grad()
    def start_chains(self, v: Tensor) -> Tensor:
        """States of all units that begin at visible bits (B, D)."""
        h = torch.bernoulli(torch.full((len(v), self.config.hidden_dim), 0.5, device=v.device))
        s = torch.cat([v, h.to(v.dtype)], 1)
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
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample", "log_prob", "reconstruct"})

    def __init__(self, config: RBMConfig | None = None):
        super().__init__()
        self.config = config = config or RBMConfig()
        self.visible_dim = math.prod(config.shape)
        self.weight = nn.Parameter(0.01 * torch.randn(self.visible_dim, config.hidden_dim))
        self.visible_bias = nn.Parameter(torch.zeros(self.visible_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden_dim))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Begin at the log odds of each visible bit in examples (N, *shape) (Hinton 2010, 8)."""
        p = self._flat(x).mean(0)
        self.visible_bias.copy_(p.clamp(0.01, 0.99).logit())

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """Visible (B, D) and hidden bits (B, H) -> energies (B,)."""
        return -(v @ self.weight * h).sum(1) - v @ self.visible_bias - h @ self.hidden_bias

    def free_energy(self, x: Tensor) -> Tensor:
        """-b^T v - sum_j softplus(c_j + (W^T v)_j): -log of the sum of exp(-E) over h, (B,)."""
        return self.chain_free_energy(self._flat(x))

    def hidden_mean(self, x: Tensor) -> Tensor:
        """p(h = 1 | x), (B, *shape) -> (B, H)."""
        return self._hidden_logits(self._flat(x)).sigmoid()

    def visible_mean(self, h: Tensor) -> Tensor:
        """p(v = 1 | h), (B, H) -> (B, *shape)."""
        return self._visible_logits(h).sigmoid().unflatten(1, self.config.shape)

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
                h @ self.hidden_bias + F.softplus(self._visible_logits(h)).sum(1)
                for h in all_bits(h, self.weight)
            ]
        return torch.cat(terms).logsumexp(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log probability of each example, exact, (B, *shape) -> (B,), nats.

        Raises:
            ValueError: both sides have more than 20 units; `estimate_log_partition` has no limit.
        """
        return -self.free_energy(x) - self.log_partition()

    @torch.no_grad()
    def estimate_log_partition(
        self,
        num_temperatures: int = 1000,
        num_chains: int = 200,
        examples: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LogPartition:
        """log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

        Chains go from independent bits to the machine as beta rises from 0 to 1, with
        p_beta(v) ~ exp((1 - beta) a^T v + beta b^T v) prod_j (1 + exp(beta (c + W^T v)_j)).

        Args:
            num_temperatures: values of beta; more of them bring the chains closer.
            examples: (N, *shape), whose log odds are a; the machine's own b if not given.
        """
        a, b, c = self.visible_bias, self.visible_bias, self.hidden_bias
        if examples is not None:
            p = self._flat(examples).mean(0)
            a = p.clamp(0.01, 0.99).logit()

        def log_marginal(v: Tensor, beta: float) -> Tensor:
            return v @ (a + beta * (b - a)) + F.softplus(beta * self._hidden_logits(v)).sum(1)

        v = torch.bernoulli(a.sigmoid().expand(num_chains, -1), generator=generator)
        log_weights = (F.softplus(a).sum() + len(c) * math.log(2)).expand(num_chains)
        betas = torch.linspace(0, 1, num_temperatures + 1).tolist()
        for before, beta in pairwise(betas):
            log_weights = log_weights + log_marginal(v, beta) - log_marginal(v, before)
            p = (beta * self._hidden_logits(v)).sigmoid()
            h = torch.bernoulli(p, generator=generator)
            p = (a + beta * (b - a + h @ self.weight.T)).sigmoid()
            v = torch.bernoulli(p, generator=generator)
        log_partition = log_weights.logsumexp(0) - math.log(num_chains)
        ratios = (log_weights - log_partition).exp()
        return LogPartition(float(log_partition), float(ratios.std() / math.sqrt(num_chains)))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
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
        """Draw h given v and v given h, so many times; visible bits (..., D).

        beta scales W and c, down to independent visible bits at 0 (parallel tempering).
        """
        for _ in range(steps):
            h = torch.bernoulli((beta * self._hidden_logits(v)).sigmoid(), generator=generator)
            p = (self.visible_bias + beta * (h @ self.weight.T)).sigmoid()
            v = torch.bernoulli(p, generator=generator)
        return v

    def start_chains(self, v: Tensor) -> Tensor:
        """The visible bits are all the state there is."""
        return v

    def chain_free_energy(self, v: Tensor, beta: float | Tensor = 1.0) -> Tensor:
        """Free energy of visible bits (..., D); unchecked."""
        hidden = F.softplus(beta * self._hidden_logits(v))
        return -v @ self.visible_bias - hidden.sum(-1)

    def _flat(self, x: Tensor) -> Tensor:
        return check_bits(x, self.config.shape, "this machine")

    def _hidden_logits(self, v: Tensor) -> Tensor:
        return v @ self.weight + self.hidden_bias

    def _visible_logits(self, h: Tensor) -> Tensor:
        return h @ self.weight.T + self.visible_bias


class DeepBeliefNetwork(Pretrained, nn.Module):
    """Restricted machines on top of each other, each trained on the hidden bits of the one below.

    The upper two layers keep their joint distribution, the lower ones only p(v | h): a sample is
    drawn in the top machine and passed down (Hinton, Osindero & Teh 2006).
    """

    config_class = DBNConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"sample", "bound", "encode", "decode", "reconstruct"}
    )

    def __init__(self, config: DBNConfig | None = None):
        super().__init__()
        self.config = config = config or DBNConfig()
        shapes = [config.shape, *((h,) for h in config.hidden_dims[:-1])]
        self.machines = nn.ModuleList(
            RBM(RBMConfig(shape, hidden_dim, config.sample_steps))
            for shape, hidden_dim in zip(shapes, config.hidden_dims, strict=True)
        )

    @property
    def stack(self) -> list[RBM]:
        """The machines, from the bottom up."""
        return cast("list[RBM]", list(self.machines))

    def encode(self, x: Tensor) -> Tensor:
        """Means of the top layer, each layer given the means below, (B, *shape) -> (B, H)."""
        z = check_bits(x, self.config.shape, "this network")
        for rbm in self.stack:
            z = rbm._hidden_logits(z).sigmoid()
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Means of the visible bits, each layer given the means above, (B, H) -> (B, *shape)."""
        for rbm in reversed(self.stack):
            z = rbm._visible_logits(z).sigmoid()
        return z.unflatten(1, self.config.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Up to the top and down again, by means, (B, *shape)."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def up(self, x: Tensor, layers: int, generator: torch.Generator | None = None) -> Tensor:
        """Bits of layer `layers` (0 is x itself) drawn upwards, flat (B, units)."""
        h = check_bits(x, self.config.shape, "this network")
        for rbm in self.stack[:layers]:
            h = torch.bernoulli(rbm._hidden_logits(h).sigmoid(), generator=generator)
        return h

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) of bits: Gibbs steps in the top machine, then one pass down."""
        *lower, top = self.stack
        h = top.sample(n, generator).flatten(1)
        for rbm in reversed(lower):
            h = torch.bernoulli(rbm._visible_logits(h).sigmoid(), generator=generator)
        return h.unflatten(1, self.config.shape)

    @torch.no_grad()
    def bound(
        self, x: Tensor, num_draws: int = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability, (B, *shape) -> (B,), nats.

        Averages log p(x, h) - log q(h | x) over draws of the lower layers' h from the upward pass.

        Raises:
            ValueError: the top machine is too large for its partition function to be summed up.
        """
        v = check_bits(x, self.config.shape, "this network")
        *lower, top = self.stack
        total, log_partition = v.new_zeros(len(v)), top.log_partition()
        for _ in range(num_draws):
            below = v
            for rbm in lower:
                up = rbm._hidden_logits(below)
                h = torch.bernoulli(up.sigmoid(), generator=generator)
                total += _log_bernoulli(rbm._visible_logits(h), below) - _log_bernoulli(up, h)
                below = h
            total -= top.chain_free_energy(below)
        return total / num_draws - log_partition


def _log_bernoulli(logits: Tensor, bits: Tensor) -> Tensor:
    return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(1)


def _refuse_more_than(most: int, n: int, what: str) -> None:
    if n > most:
        raise ValueError(
            f"a sum over 2^{n} states ({what}) takes too long, at most 2^{most} are summed up; use "
            "free_energy, and estimate_log_partition of a restricted machine"
        )


Machine: TypeAlias = BoltzmannMachine | RBM


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class BoltzmannLearner:
    """Gradient of E_data[F] - E_model[F], the model's expectation taken over Gibbs chains.

    `kept` holds the weights to keep: their average, if there is one.
    """

    def __init__(self, model: Machine, config: RBMLossConfig, steps: int):
        if config.num_temperatures > 1 and not isinstance(model, RBM):
            raise ValueError("num_temperatures is for restricted machines; leave it at 1")
        self.model, self.config = model, config
        weights = [p for name, p in model.named_parameters() if "bias" not in name]
        biases = [p for name, p in model.named_parameters() if "bias" in name]
        groups = [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ]
        kind = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.AdamW
        self.optimizer = kind(groups, lr=config.lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=max(steps, 1), eta_min=config.final_lr
        )
        self.chains: Tensor | None = None
        """States of pcd's chains, (N, bits) or (temperatures, N, bits) with beta rising to 1."""
        self.average = (
            AveragedModel(model, multi_avg_fn=warm_average(config.ema)) if config.ema else None
        )

    @property
    def kept(self) -> Machine:
        """A copy of the model with the weights that sampling and scoring should use."""
        model = self.model if self.average is None else self.average.module
        return cast("Machine", copy.deepcopy(model).eval())

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch of bits (B, *shape)."""
        v = check_bits(batch, self.model.config.shape, "this machine")
        notes = {}
        if self.config.method == "exact":
            loss = -self.model.log_prob(batch).mean()
        else:
            chains = self._draw(v)
            loss = self.model.chain_free_energy(v).mean()
            loss = loss - self.model.chain_free_energy(chains).mean()
        if isinstance(self.model, RBM):
            with torch.no_grad():
                notes["reconstruction"] = F.mse_loss(self.model.reconstruct(batch), batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {"loss": loss.detach(), **notes}

    def _draw(self, v: Tensor) -> Tensor:
        """States that the model's expectation is taken over."""
        model, config = self.model, self.config
        if config.method == "cd":
            return model.gibbs(model.start_chains(v), config.k)
        if self.chains is None:
            rows = torch.arange(config.num_chains or len(v), device=v.device) % len(v)
            self.chains = model.start_chains(v[rows])
            if config.num_temperatures > 1:
                self.chains = self.chains.expand(config.num_temperatures, -1, -1)
        if isinstance(model, RBM) and config.num_temperatures > 1:
            self.chains = self._temper(model, self.chains)
            return self.chains[-1]
        self.chains = model.gibbs(self.chains, config.k)
        return self.chains

    @torch.no_grad()
    def _temper(self, model: RBM, chains: Tensor) -> Tensor:
        """Gibbs steps at every temperature, then neighbours exchange states as Metropolis says."""
        num = len(chains)
        beta = torch.linspace(0, 1, num, device=chains.device)[:, None]
        chains = model.gibbs(chains, self.config.k, beta=beta[..., None])
        for first in (0, 1):
            low, high = torch.arange(first, num - 1, 2), torch.arange(first + 1, num, 2)
            cold, hot = chains[high], chains[low]
            here = model.chain_free_energy(cold, beta[high][..., None])
            here = here + model.chain_free_energy(hot, beta[low][..., None])
            there = model.chain_free_energy(hot, beta[high][..., None])
            there = there + model.chain_free_energy(cold, beta[low][..., None])
            take = (torch.rand_like(here).log() < here - there)[..., None]
            chains = chains.clone()
            chains[high], chains[low] = torch.where(take, hot, cold), torch.where(take, cold, hot)
        return chains

    def state_dict(self) -> dict:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "chains": self.chains,
        }
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        chains, device = state["chains"], next(self.model.parameters()).device
        self.chains = None if chains is None else chains.to(device, copy=True)
        if self.average is not None:
            self.average.load_state_dict(state["average"])


class DBNLearner:
    """Trains the machines of a deep belief network one after the other, from the bottom up."""

    def __init__(self, model: DeepBeliefNetwork, config: RBMLossConfig, steps: int):
        self.model = model
        self.per_layer = max(1, -(-steps // len(model.stack)))
        self.learners = [BoltzmannLearner(rbm, config, self.per_layer) for rbm in model.stack]
        self.step = 0

    @property
    def kept(self) -> DeepBeliefNetwork:
        """A copy of the network with the weights that sampling and scoring should use."""
        network = copy.deepcopy(self.model).eval()
        network.machines = nn.ModuleList(learner.kept for learner in self.learners)
        return network

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step of the machine whose turn it is, on bits (B, *shape)."""
        layer = min(self.step // self.per_layer, len(self.learners) - 1)
        bits = self.model.up(batch, layer) if layer else batch
        if self.step == layer * self.per_layer:
            self.model.stack[layer].initialise(bits)
        self.step += 1
        return {**self.learners[layer].update(bits), "layer": float(layer)}

    def state_dict(self) -> dict:
        return {"step": self.step, "layers": [learner.state_dict() for learner in self.learners]}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        for learner, one in zip(self.learners, state["layers"], strict=True):
            learner.load_state_dict(one)
