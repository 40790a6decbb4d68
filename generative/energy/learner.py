"""Contrastive divergence, with a buffer of samples from which walks go on."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from generative.energy.config import EnergyLossConfig
from generative.energy.model import EnergyModel, PointEnergy
from generative.energy.walks import langevin, mala
from generative.training.checks import check_some
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation

__all__ = ["EnergyLearner", "EnergyLosses", "SampleBuffer", "contrastive_divergence"]


class EnergyLosses(NamedTuple):
    """Means over the batch. The loss is no measure of progress: samples improve with the model."""

    loss: Tensor
    """cdiv + reg."""
    cdiv: Tensor
    """Height of samples - height of data, a height being minus an energy; its gradient is that of
    the negative log-likelihood if the samples are the model's."""
    reg: Tensor
    """alpha * (height of data^2 + height of samples^2)."""
    real: Tensor
    """Height of data."""
    fake: Tensor
    """Height of samples."""


def contrastive_divergence(real: Tensor, fake: Tensor, alpha: float = 0.1) -> EnergyLosses:
    """The book's loss, of the heights (-energies) of data (B,) and of samples (B,)."""
    cdiv = fake.mean() - real.mean()
    reg = alpha * (real.square().mean() + fake.square().mean())
    return EnergyLosses(cdiv + reg, cdiv, reg, real.mean(), fake.mean())


class SampleBuffer:
    """The newest samples, from which walks go on (Tieleman 2008; Du & Mordatch 2019).

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int):
        self.size = size
        self.samples: Tensor | None = None
        """(N, ...), the newest first; None before the first."""

    def __len__(self) -> int:
        return 0 if self.samples is None else len(self.samples)

    def push(self, y: Tensor) -> None:
        """Put samples (B, ...) in front, and forget the oldest."""
        old = [] if self.samples is None else [self.samples]
        self.samples = torch.cat([y.detach(), *old])[: self.size]

    def draw(self, n: int) -> Tensor:
        """n of them, with replacement."""
        if self.samples is None:
            raise ValueError("the buffer is empty; push samples first")
        return self.samples[torch.randint(len(self), (n,)).to(self.samples.device)]


class EnergyLearner(ModelLearner["EnergyModel"]):
    """Contrastive divergence with a buffer of samples; `kept` holds the weights to keep."""

    def __init__(self, model: EnergyModel, config: EnergyLossConfig, steps: int):
        if config.sampler == "mala" and not isinstance(model, PointEnergy):
            raise ValueError("sampler mala is for points; images need sampler langevin")
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.lr, betas=(config.beta1, 0.999), eps=config.adam_eps
        )
        super().__init__(
            model, Optimisation(model, optimizer, steps, config.final_lr, config.clip, config.ema)
        )
        self.config = config
        self.buffer = SampleBuffer(config.buffer_size)

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch, images (B, C, H, W) in [0, 1] or points (B, D)."""
        model, config = self.model, self.config
        real = model.to_chain(check_some(batch, model))
        real = real + config.data_noise * torch.randn_like(real)
        real = real if model.box is None else real.clamp(*model.box)
        # As many samples as data, also in a last batch that is smaller: the book's program then
        # takes some samples for data.
        walk = self._metropolis if config.sampler == "mala" else self._descend
        fake, notes = walk(len(real))
        heights = -model.chain_energy(torch.cat([real, fake]))
        losses = contrastive_divergence(heights[: len(real)], heights[len(real) :], config.alpha)
        return {**self.descend(losses), **notes}

    def _descend(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The book's: most walks go on from the buffer, some begin anew in noise."""
        c, model = self.config.langevin, self.model
        if not len(self.buffer):
            self.buffer.push(model.start(n))
        count, share = torch.tensor([n, self.config.fresh], dtype=torch.float32)
        fresh = int(torch.binomial(count, share))
        y = torch.cat([model.start(fresh), self.buffer.draw(n - fresh)])
        walk = (c.steps, c.step_size, c.noise, c.clip, model.box)
        y = langevin(model.chain_energy, y, *walk)
        self.buffer.push(y)
        return y, {}

    def _metropolis(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Persistent chains that leave exp(-E) as it is; n of them take part."""
        model = cast("PointEnergy", self.model)
        if self.buffer.samples is None:
            self.buffer.push(model.start(self.buffer.size))
        samples = cast("Tensor", self.buffer.samples)
        rows = torch.randperm(len(samples))[:n].to(samples.device)
        y = model.restart(samples[rows], self.config.fresh)
        y, accepted = mala(model.chain_energy, y, self.config.langevin.steps, model.step_size)
        samples[rows] = y
        # Six in ten accepted is where such a walk moves fastest (Roberts & Rosenthal 1998).
        model.step_size *= (0.1 * (accepted - 0.6)).exp()
        return y, {"accepted": accepted, "step_size": model.step_size.clone()}

    def state_dict(self) -> dict:
        return {**super().state_dict(), "buffer": self.buffer.samples}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        buffer = state["buffer"]
        self.buffer.samples = (
            None if buffer is None else buffer.to(next(self.model.parameters()).device, copy=True)
        )
