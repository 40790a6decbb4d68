"""Training of Boltzmann machines by contrastive divergence, persistent chains or exact gradients,
and of deep belief networks layer by layer."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.rbm.config import RBMLossConfig
from generative.rbm.deep import DeepBeliefNetwork
from generative.rbm.machines import RBM, BoltzmannMachine, check_bits
from generative.training.checks import check_some
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation

__all__ = ["BoltzmannLearner", "DBNLearner"]

Machine = TypeVar("Machine", BoltzmannMachine, RBM)


class BoltzmannLearner(ModelLearner[Machine]):
    """Follows the gradient of E_data[F] - E_model[F], with Gibbs chains for the second term.

    `kept` holds the weights to save: their average, if there is one.
    """

    def __init__(self, model: Machine, config: RBMLossConfig, steps: int):
        if config.num_temperatures > 1 and not isinstance(model, RBM):
            raise ValueError("num_temperatures is for restricted machines; leave it at 1")
        weights = [p for name, p in model.named_parameters() if "bias" not in name]
        biases = [p for name, p in model.named_parameters() if "bias" in name]
        groups = [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ]
        kind = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.AdamW
        optimizer = kind(groups, lr=config.lr)
        super().__init__(
            model, Optimisation(model, optimizer, steps, config.final_lr, ema=config.ema)
        )
        self.config = config
        self.chains: Tensor | None = None
        """States of pcd's chains, (N, bits) or (temperatures, N, bits) with beta rising to 1."""

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch of bits (B, *shape)."""
        v = check_bits(check_some(batch, self.model), self.model.config.shape, self.model)
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
        self.optimisation.step(loss)
        return {"loss": loss.detach(), **notes}

    def _draw(self, v: Tensor) -> Tensor:
        """Draw the states for the expectation under the model."""
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
        """Take Gibbs steps at every temperature, then exchange neighbours' states (Metropolis)."""
        num = len(chains)
        beta = torch.linspace(0, 1, num, device=chains.device, dtype=chains.dtype)[:, None]
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
        return {**super().state_dict(), "chains": self.chains}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        chains, device = state["chains"], next(self.model.parameters()).device
        self.chains = None if chains is None else chains.to(device, copy=True)


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
        """One step of the machine in training, on bits (B, *shape)."""
        check_bits(check_some(batch, self.model), self.model.config.shape, self.model)
        layer = min(self.step // self.per_layer, len(self.learners) - 1)
        begins = self.step == layer * self.per_layer
        if begins and layer:
            # The machine above learns from the averaged weights, not from the last ones.
            below = self.learners[layer - 1]
            below.model.load_state_dict(below.kept.state_dict())
        bits = self.model.up(batch, layer) if layer else batch
        if begins:
            self.model.stack[layer].initialise(bits)
        self.step += 1
        return {**self.learners[layer].update(bits), "layer": float(layer)}

    def state_dict(self) -> dict:
        return {"step": self.step, "layers": [learner.state_dict() for learner in self.learners]}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        for learner, one in zip(self.learners, state["layers"], strict=True):
            learner.load_state_dict(one)
