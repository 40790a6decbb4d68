"""Diffusion prior of DALL.E 2: noise becomes an embedding of an image that a caption may have.

    prior = DiffusionPrior.from_pretrained("runs/prior/model")
    prior.sample(text)                       # embeddings of captions (B, D) -> of images (B, D)
    prior.sample(text, draws=2)              # the closer to the caption of two

The network sees a caption, a noise level and a noisy embedding, and tells the embedding without
noise (Ramesh et al. 2022, section 2.2; Foster 2023, chapter 13). Embeddings of length 1 are
multiplied by the root of their size first; else noise of variance 1 drowns them at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.diffusion.config import ScheduleConfig
from generative.diffusion.samplers import Denoiser, denoising_path
from generative.diffusion.schedules import Schedule, signal_and_noise
from generative.priors.common import Given, closest, drop, repeated
from generative.priors.config import DiffusionPriorConfig
from generative.training.checks import check_some, check_vectors, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, NonNegative, Probability

__all__ = ["DiffusionPrior", "DiffusionPriorLosses"]

Prediction = Literal["clean", "previous"]
Weighting = Literal["clean", "velocity"]
MOST_WEIGHT = 20.0
"""Largest weight of an error: that of the velocity has no bound, and few rows would be a batch."""


class DiffusionPriorLosses(NamedTuple):
    """Means over the batch and the numbers of an embedding."""

    loss: Tensor
    """Squared error of what the network tells, weighted."""


class DiffusionPrior(Pretrained, nn.Module):
    """Diffusion of embeddings of images, given captions.

    `DiffusionPriorConfig().build()` is a small one. One that is put together by hand is saved by
    its weights: put it together again and call `load_weights(folder)`.

    Args:
        network: (x_t (B, D), log_snr (B,), text (B, D'), context, mask) -> (B, D).
        embed_dim, text_dim: D and D'.
        schedule: a table of betas.
        prediction: output of the network: "clean", or "previous" for the mean of x at the step
            before.
        unit: embeddings have length 1.
        steps: of sampling.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"DiffusionPrior": DiffusionPriorConfig}

    def __init__(
        self,
        network: nn.Module,
        embed_dim: int,
        text_dim: int,
        schedule: ScheduleConfig,
        prediction: Prediction = "clean",
        unit: bool = True,
        steps: int = 64,
        config: DiffusionPriorConfig | None = None,
    ):
        super().__init__()
        self.config, self.embed_dim, self.text_dim = config, embed_dim, text_dim
        self.schedule, self.prediction = Schedule(schedule), prediction
        self.unit, self.steps = unit, steps
        self.network = network

    @property
    def scale(self) -> float:
        """Factor of embeddings before noise is added."""
        return math.sqrt(self.embed_dim) if self.unit else 1.0

    @property
    def _table(self) -> Tensor:
        """log_snr of steps 1 to T, float64 (T,)."""
        num = self.schedule.config.num_betas
        return self.schedule.log_snr(torch.arange(1, num + 1, dtype=torch.float64) / num)

    def denoise(
        self,
        x: Tensor,
        log_snr: Tensor,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Estimate of the scaled embedding without noise, E[x_0 | x_t, caption], (B, D).

        Args:
            x: (B, D), noisy.
            log_snr: (B,); of "previous", of steps of the table.
            text, context, mask: see `PriorBatch`.
        """
        out = self._tell(x, log_snr, Given(text, context, mask))
        if self.prediction == "clean":
            return out
        of_clean, of_noisy = (part.to(x) for part in self._posterior(log_snr))
        return (out - of_noisy * x) / of_clean

    def loss(
        self,
        image: Tensor,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        weighting: Weighting = "clean",
    ) -> DiffusionPriorLosses:
        """Squared error at noise levels that are drawn evenly from the table.

        "clean" is compared with the embedding, "previous" with x at the step before, which the
        noisy x was made of.

        Args:
            image, text, context, mask: see `PriorBatch`.
            weighting: see `PriorLossConfig`.
        Raises:
            ValueError: embeddings of another shape or type, or a weighting of another output than
                the clean embedding.
        """
        if weighting != "clean" and self.prediction != "clean":
            raise ValueError(
                f"weighting is {weighting!r}, and the prior tells {self.prediction!r}; weights are "
                "those of errors of the clean embedding: give weighting 'clean'"
            )
        check_some(check_vectors(image, self.embed_dim, "image embeddings", self), self)
        check_vectors(text, self.text_dim, "caption embeddings", self)
        data, table = self.scale * image, self._table.to(image.device)
        step = torch.randint(len(table), (len(data),), generator=generator, device=data.device)
        log_snr = table[step].to(data.dtype)
        eps = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)
        signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
        if self.prediction == "clean":
            out = self._tell(signal * data + rate * eps, log_snr, Given(text, context, mask))
            error = (out - data).square()
            if weighting == "velocity":
                error = (1 + log_snr.exp()).clamp_max(MOST_WEIGHT)[:, None] * error
            return DiffusionPriorLosses(error.mean())
        before = self._previous(step)
        s_signal, s_rate = (part[:, None].to(data) for part in signal_and_noise(before))
        previous = s_signal * data + s_rate * eps
        # x_t = sqrt(1 - beta_t) x_s + sqrt(beta_t) eps', with the fresh noise of one step.
        kept = (table[step].sigmoid() / before.sigmoid()).to(data.dtype)[:, None]
        fresh = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)
        x = kept.sqrt() * previous + (1 - kept).clamp_min(0).sqrt() * fresh
        out = self._tell(x, log_snr, Given(text, context, mask))
        return DiffusionPriorLosses((out - previous).square().mean())

    @checked
    @torch.no_grad()
    def sample(
        self,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        draws: Count = 1,
        steps: Count | None = None,
        eta: Probability = 0.0,
        guidance: NonNegative = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Embeddings of images for captions (B, D'), (B, D); of length 1 if they are `unit`.

        Args:
            context, mask: see `PriorBatch`.
            draws: embeddings of each caption, of which the closest to it is returned
                (Ramesh et al. 2022: 2).
            steps: of the sampler, the model's number if None.
            eta: 0 is DDIM, 1 DDPM.
            guidance: 1 for none; s takes empty + s (given - empty), where empty is the estimate
                without a caption.
        Raises:
            ValueError: another shape or type, more steps than betas, or several draws of
                embeddings that cannot be compared with a caption's.
        """
        check_vectors(text, self.text_dim, "caption embeddings", self)
        given = repeated(Given(text, context, mask), draws, self.embed_dim)
        stations = self.schedule.steps(steps or self.steps)
        x = torch.randn(len(given.text), self.embed_dim, generator=generator, **placed(self))
        denoise = self._guided(given, guidance)
        for step in denoising_path(denoise, x, stations, eta, generator):
            x = step.x
        x = F.normalize(x, dim=1) if self.unit else x / self.scale
        return closest(x, text)

    def _tell(self, x: Tensor, log_snr: Tensor, given: Given) -> Tensor:
        # Numbers of a vector of length 1 are small; the network is given some of size 1.
        text = given.text * math.sqrt(self.text_dim) if self.unit else given.text
        return self.network(x, log_snr, text, given.context, given.mask)

    def _guided(self, given: Given, guidance: float) -> Denoiser:
        def denoise(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
            data = self.denoise(x, log_snr, *given)
            if guidance != 1:
                empty = self.denoise(x, log_snr, *drop(given, torch.ones(len(x)).bool()))
                data = empty + guidance * (data - empty)
            signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
            return (x - signal * data) / rate, data

        return denoise

    def _previous(self, step: Tensor) -> Tensor:
        """log_snr of the step before each index of the table, infinite before the first."""
        table = self._table.to(step.device)
        return torch.cat([table.new_full((1,), math.inf), table])[step]

    def _posterior(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (B, 1) of x_0 and x_t in the mean of the step before."""
        table = self._table.to(log_snr.device)
        step = (table - log_snr.double()[:, None]).abs().argmin(1)
        a_t, a_s = table[step].sigmoid(), self._previous(step).sigmoid()
        kept, rest = a_t / a_s, (-table[step]).sigmoid()
        of_clean = a_s.sqrt() * (1 - kept) / rest
        of_noisy = kept.sqrt() * (1 - a_s) / rest
        return of_clean[:, None], of_noisy[:, None]
