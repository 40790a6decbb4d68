"""Diffusion models of vectors and of images: loss, sampling, likelihood; and their learner."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from generative.diffusion.config import (
    DiffusionLossConfig,
    ImageDiffusionConfig,
    PointDiffusionConfig,
)
from generative.diffusion.networks import DenoisingMLP
from generative.diffusion.samplers import (
    Clip,
    Denoiser,
    Step,
    clip_data,
    denoising_path,
    noising_path,
    ode_flow,
    ode_log_prob,
    variational_gap,
)
from generative.diffusion.schedules import Schedule, signal_and_noise
from generative.nets.unet import UNet
from generative.training.checks import (
    at_least_float32,
    check_batch,
    check_images,
    check_some,
    check_vectors,
    checked,
    placed,
    to_levels,
)
from generative.training.gradients import graph_if_wanted
from generative.training.optimisation import Optimisation, parameter_groups
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, Probability, Quantile

__all__ = [
    "DiffusionLearner",
    "DiffusionLosses",
    "ImageDiffusion",
    "PointDiffusion",
    "diffusion_loss",
    "estimates",
]

BOOK = DiffusionLossConfig()
PIXELS = (0.0, 1.0)
"""Range of what images have."""


# ---------------------------------------------------------------------------------------------
# Loss
# ---------------------------------------------------------------------------------------------


class DiffusionLosses(NamedTuple):
    """Means over the batch and the numbers of an example."""

    loss: Tensor
    noise_mse: Tensor
    """Squared error of the noise: the simple loss (Ho et al. 2020, equation 14), if noise levels
    are drawn evenly in time."""
    noise_mae: Tensor
    """Absolute error of the noise, the book's loss."""


def estimates(output: Tensor, x: Tensor, log_snr: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
    """What a network's output at x_t says of (noise, data).

    Args:
        output, x: (B, ...).
        log_snr: (B,).
        prediction: "noise", or "velocity" for signal * noise - noise rate * data.
    """
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    if prediction == "velocity":
        return rate * x + signal * output, signal * x - rate * output
    return output, (x - rate * output) / signal


def diffusion_loss(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    config: DiffusionLossConfig = BOOK,
    generator: torch.Generator | None = None,
) -> DiffusionLosses:
    """Error of the noise in examples x (B, ...) that noise of random level was added to.

    Args:
        denoise: (x_t, log_snr) -> (noise, data).
        x: examples of mean 0 and variance 1, more or less.
    """
    log_snr = _draw_levels(x, schedule, config, generator)
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    noise, _ = denoise(signal * x + rate * eps, log_snr)
    absolute = (eps - noise).abs().flatten(1).mean(1)
    squared = (eps - noise).square().flatten(1).mean(1)
    # The velocity is in error by the error of the noise / signal, the data by it / exp(log_snr/2).
    if config.weighting == "velocity":
        weight = 1 / log_snr.sigmoid()
    elif config.weighting == "min-snr":
        weight = (config.gamma * (-log_snr).exp()).clamp(max=1)
    else:
        weight = torch.ones_like(log_snr)
    loss = weight * squared if config.error == "squared" else weight.sqrt() * absolute
    return DiffusionLosses(loss.mean(), squared.mean(), absolute.mean())


def _draw_levels(
    x: Tensor, schedule: Schedule, config: DiffusionLossConfig, generator: torch.Generator | None
) -> Tensor:
    """A log_snr for each example, (B,)."""
    n, kind = len(x), {"device": x.device, "dtype": at_least_float32(x)}
    if config.even:
        # One random shift of n equal distances. Batches are drawn at random, so no shuffling.
        u = torch.rand(1, generator=generator, **kind) + torch.arange(n, device=x.device)
        u = u / n
    else:
        u = torch.rand(n, generator=generator, **kind)
    if config.levels == "time":
        return schedule.log_snr(u).to(x.dtype)
    high, low = schedule.ends
    return (low + (high - low) * u).to(x.dtype)


# ---------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------


class PointDiffusion(Pretrained, nn.Module):
    """Diffusion of vectors (B, D), which should have mean 0 and variance 1 on each axis."""

    config_class = PointDiffusionConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "log_prob", "encode", "decode"}
    )

    def __init__(self, config: PointDiffusionConfig | None = None):
        super().__init__()
        self.config = config = config or PointDiffusionConfig()
        self.schedule = Schedule(config.schedule)
        self.network = DenoisingMLP(config)

    @classmethod
    def complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Models that were saved before there was `num_waves` have none."""
        return {"num_waves": 0, **config}

    def denoise(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (B, D) and log_snr (B,) -> estimates of (noise, data)."""
        check_vectors(x, self.config.dim, "points", self)
        return estimates(self.network(x, log_snr), x, log_snr, self.config.prediction)

    def loss(
        self,
        x: Tensor,
        config: DiffusionLossConfig = BOOK,
        generator: torch.Generator | None = None,
    ) -> DiffusionLosses:
        """Error of the noise, at random levels of noise.

        Raises:
            ValueError: another shape than (B, D), or integers.
        """
        x = check_some(check_vectors(x, self.config.dim, "points", self), self)
        return diffusion_loss(self.denoise, x, self.schedule, config, generator)

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        eta: Probability = 0.0,
        spacing: str = "time",
        clip: tuple[float, float] | None = None,
        quantile: Quantile | None = None,
    ) -> Tensor:
        """n points (n, D).

        Args:
            steps: config.steps if not given.
            eta: 0 for DDIM, 1 for DDPM.
            spacing: of the steps, "time" or "log-snr"; see `Schedule.steps`.
            clip: range that the numbers of points have, if they have one.
            quantile: how estimates are brought back into it; see `clip_data`.
        """
        z = torch.randn(n, self.config.dim, generator=generator, **placed(self))
        path = self.path(z, steps, eta, generator, spacing, clip, quantile)
        return deque(path, maxlen=1).pop().x

    @checked
    def path(
        self,
        z: Tensor,
        steps: Count | None = None,
        eta: Probability = 0.0,
        generator: torch.Generator | None = None,
        spacing: str = "time",
        clip: tuple[float, float] | None = None,
        quantile: Quantile | None = None,
    ) -> Iterator[Step]:
        """Every step of `sample` from normal noise z (B, D); the arguments are the same."""
        check_vectors(z, self.config.dim, "z", self)
        stations = self.schedule.steps(steps or self.config.steps, spacing)
        within = _within(clip, quantile)
        return denoising_path(self.denoise, z, stations, eta, generator, within)

    @graph_if_wanted
    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each point, (B, D) -> (B,), nats, by the probability flow.

        Of what the flow makes of standard normal noise, which is the distribution of `decode` and,
        for many steps, of `sample`; with the little noise that is left at t = 0 (a standard
        deviation of 0.01 for linear betas).
        """
        x = check_vectors(x, self.config.dim, "points", self)
        return ode_log_prob(self.denoise, x, *self.schedule.ends, self.config.ode_steps)

    @graph_if_wanted
    def encode(self, x: Tensor) -> Tensor:
        """x (B, D) -> z (B, D), standard normal if x is drawn from the model."""
        x = check_vectors(x, self.config.dim, "points", self)
        high, low = self.schedule.ends
        return ode_flow(self.denoise, self._signal * x, high, low, self.config.ode_steps)

    @graph_if_wanted
    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> x (B, D), the inverse of `encode` up to the solver's error."""
        z = check_vectors(z, self.config.dim, "z", self)
        high, low = self.schedule.ends
        return ode_flow(self.denoise, z, low, high, self.config.ode_steps) / self._signal

    @property
    def _signal(self) -> float:
        """Signal rate at t = 0."""
        return 1 / math.sqrt(1 + math.exp(-self.schedule.ends[0]))


class ImageDiffusion(Pretrained, nn.Module):
    """Diffusion of images (B, C, H, W) in [0, 1].

    `initialise` sets mean and deviation of each channel from data; until then black is -1 and
    white is 1.
    """

    config_class = ImageDiffusionConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "bound", "encode", "decode"}
    )
    mean: Tensor
    std: Tensor

    @classmethod
    def complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Models that were saved before attention had a place to choose have it at the bottom."""
        network = config.get("network")
        if not isinstance(network, dict) or not isinstance(network.get("attention"), bool):
            return config
        bottom = [len(network.get("channels", [])) - 1] if network["attention"] else []
        return {**config, "network": {**network, "attention": bottom}}

    def __init__(self, config: ImageDiffusionConfig | None = None):
        super().__init__()
        self.config = config = config or ImageDiffusionConfig()
        self.schedule = Schedule(config.schedule)
        self.network = UNet(config.image_shape[0], config.network)
        shape = (config.image_shape[0], 1, 1)
        self.register_buffer("mean", torch.full(shape, 0.5))
        self.register_buffer("std", torch.full(shape, 0.5))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Take mean and deviation of each channel from images (B, C, H, W); all of them, or many.

        Raises:
            ValueError: a channel is the same everywhere.
        """
        x = check_some(self._check(x), self)
        std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True, correction=0)
        if not bool((std > 0).all()):
            raise ValueError(
                f"channels have deviations {std.flatten().tolist()}; one that is the same "
                "everywhere can not be brought to variance 1"
            )
        self.mean.copy_(mean[0])
        self.std.copy_(std[0])

    def denoise(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised x_t (B, C, H, W) and log_snr (B,) -> estimates of (noise, data)."""
        check_batch(x, self.config.image_shape, "images", self)
        return estimates(self.network(x, log_snr), x, log_snr, self.config.prediction)

    def loss(
        self,
        x: Tensor,
        config: DiffusionLossConfig = BOOK,
        generator: torch.Generator | None = None,
    ) -> DiffusionLosses:
        """Error of the noise, at random levels of noise.

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        x = self.normalise(check_some(self._check(x), self))
        return diffusion_loss(self.denoise, x, self.schedule, config, generator)

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        eta: Probability = 0.0,
        spacing: str = "time",
        clip: tuple[float, float] | None = PIXELS,
        quantile: Quantile | None = None,
    ) -> Tensor:
        """n images (n, C, H, W) in [0, 1].

        Args:
            steps: config.steps if not given.
            eta: 0 for DDIM, 1 for DDPM.
            spacing: of the steps, "time" or "log-snr"; see `Schedule.steps`.
            clip: range of pixels, into which every estimate of the image is brought; None leaves
                them, and only the last one is clipped.
            quantile: None clips. A share such as 0.995 keeps contrasts; see `clip_data`.
        """
        z = torch.randn(n, *self.config.image_shape, generator=generator, **placed(self))
        return self.decode(z, steps, eta, generator, spacing, clip, quantile)

    @checked
    @torch.no_grad()
    def decode(
        self,
        z: Tensor,
        steps: Count | None = None,
        eta: Probability = 0.0,
        generator: torch.Generator | None = None,
        spacing: str = "time",
        clip: tuple[float, float] | None = PIXELS,
        quantile: Quantile | None = None,
    ) -> Tensor:
        """Noise z (B, C, H, W) -> images in [0, 1]; the same noise always gives the same image, if
        eta is 0. Arguments are those of `sample`."""
        path = self.path(z, steps, eta, generator, spacing, clip, quantile)
        return self.denormalise(deque(path, maxlen=1).pop().x)

    @checked
    def path(
        self,
        z: Tensor,
        steps: Count | None = None,
        eta: Probability = 0.0,
        generator: torch.Generator | None = None,
        spacing: str = "time",
        clip: tuple[float, float] | None = PIXELS,
        quantile: Quantile | None = None,
    ) -> Iterator[Step]:
        """Every step of `decode`, of images as `normalise` makes them."""
        check_batch(z, self.config.image_shape, "z", self)
        stations = self.schedule.steps(steps or self.config.steps, spacing)
        within = _within(clip, quantile, self.mean, self.std)
        return denoising_path(self.denoise, z, stations, eta, generator, within)

    @checked
    @torch.no_grad()
    def encode(
        self,
        x: Tensor,
        steps: Count | None = None,
        clip: tuple[float, float] | None = PIXELS,
        quantile: Quantile | None = None,
    ) -> Tensor:
        """Images -> the noise z (B, C, H, W) that DDIM would make them of, run in reverse.

        Arguments are those of `sample`.
        """
        stations = self.schedule.steps(steps or self.config.steps)
        within = _within(clip, quantile, self.mean, self.std)
        path = noising_path(self.denoise, self.normalise(self._check(x)), stations, within)
        return deque(path, maxlen=1).pop()

    @checked
    @torch.no_grad()
    def bound(
        self, x: Tensor, num_draws: Count = 32, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability of each image, (B, C, H, W) -> (B,), nats.

        The variational bound in continuous time (Kingma et al. 2021): its estimate has noise, its
        mean is a bound. Divide by -log(2) * C * H * W for bits per dimension.

        Args:
            num_draws: noise levels that are tried for each image.
        Raises:
            ValueError: a pixel is none of config.levels values.
        """
        x = self._check(x)
        high, low = self.schedule.ends
        rest = variational_gap(self.denoise, self.normalise(x), high, low, num_draws, generator)
        return self._log_prob_of_levels(x, high, generator) - rest

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> mean 0 and deviation 1."""
        return (x - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse, clipped to [0, 1]."""
        return (self.mean + self.std * x).clamp(0, 1)

    def _log_prob_of_levels(
        self, x: Tensor, log_snr: float, generator: torch.Generator | None
    ) -> Tensor:
        """log p(x | x_t) when x_t has the least noise: levels in proportion to how well they
        explain what is seen, pixel by pixel; (B,)."""
        last = self.config.levels - 1
        level = to_levels(x, self.config.levels)
        # In units of one level: its noise, and where among the levels the pixel seems to be.
        width = math.exp(-log_snr / 2) * self.std * last
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        seen = level + width * eps
        log_prob = x.new_zeros(len(x))
        for c in range(x.shape[1]):
            levels = torch.arange(last + 1, device=x.device, dtype=x.dtype)
            for i in range(len(x)):  # one at a time: all levels of all pixels take much memory
                distance = (seen[i, c].flatten()[:, None] - levels) / width[c, 0, 0]
                log_p = (-0.5 * distance.square()).log_softmax(1)
                log_prob[i] += log_p.gather(1, level[i, c].flatten().long()[:, None]).sum()
        return log_prob

    def _check(self, x: Tensor) -> Tensor:
        return check_images(x, self.config.image_shape, self)


def _within(
    clip: tuple[float, float] | None,
    quantile: float | None,
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
) -> Clip | None:
    """`clip_data` into a range of numbers of which mean and deviation were taken out."""
    if clip is None and quantile is None:
        return None
    if clip is None or not -math.inf < clip[0] < clip[1] < math.inf:
        raise ValueError(
            f"clip is {clip} and quantile {quantile}; give the lowest and the highest number of an "
            "example, or None for both"
        )
    low, high = ((end - mean) / std for end in clip)
    return partial(clip_data, low=low, high=high, quantile=quantile)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class DiffusionLearner:
    """AdamW on the error of the noise; `kept` has the average of the weights."""

    def __init__(
        self, model: PointDiffusion | ImageDiffusion, config: DiffusionLossConfig, steps: int
    ):
        self.model, self.config = model, config
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, config.clip, config.ema
        )

    @property
    def kept(self) -> Any:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on points (B, D) or images (B, C, H, W), as the model takes them."""
        losses = self.model.loss(batch, self.config)
        self.optimisation.step(losses.loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
