"""Diffusion around any network: loss, sampling, likelihood; and its learner."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from generative.diffusion.config import (
    SIGMA_DATA,
    DiffusionLossConfig,
    ImageDiffusionConfig,
    PointDiffusionConfig,
    ScheduleConfig,
)
from generative.diffusion.guidance import Guidance, drop_context, guided
from generative.diffusion.samplers import (
    Clip,
    Denoiser,
    SamplerStep,
    clip_data,
    denoising_path,
    noising_path,
    ode_flow,
    ode_log_prob,
    variational_gap,
)
from generative.diffusion.schedules import Schedule, signal_and_noise
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
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, Probability, Quantile

__all__ = [
    "Diffusion",
    "DiffusionLearner",
    "DiffusionLosses",
    "LevelLoss",
    "diffusion_loss",
    "estimates",
    "into_network",
    "level_losses",
    "within",
]

LOSS = DiffusionLossConfig()
PIXELS = (0.0, 1.0)
"""Range of what images have."""
Context: TypeAlias = Any
"""Condition of the examples, as the network takes it: a tensor (B, ...), or a tuple of tensors such
as `generative.nets.conditional_unet.Condition`."""


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


class LevelLoss(NamedTuple):
    """Mean squared errors at one noise level."""

    log_snr: float
    noise: float
    """Error of a number of the noise."""
    data: float
    """Error of a number of the data: that of the noise / exp(log_snr)."""


def estimates(
    output: Tensor, x: Tensor, log_snr: Tensor, prediction: str, sigma_data: float = SIGMA_DATA
) -> tuple[Tensor, Tensor]:
    """Estimates of (noise, data) from a network's output at x_t.

    Flow matching and EDM have the same examples with the same noise, at another length: x_t /
    (signal + noise rate) is the point (1 - t) data + t noise of rectified flow, t = noise rate /
    (signal + noise rate), and x_t / signal is EDM's data + sigma noise. So all predictions have the
    same samplers, and errors that can be compared.

    Args:
        output, x: (B, ...).
        log_snr: (B,).
        prediction: "noise", "data", "pixels" for data too; "velocity" for signal * noise - noise
            rate * data; "flow" for data - noise, the velocity of flow matching from noise to data
            (Lipman et al. 2023; Liu et al. 2023); "edm" for the F of data = c_skip x_t / signal +
            c_out F (Karras et al. 2022, table 1).
        sigma_data: of "edm", the deviation of the data.
    """
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    if prediction == "velocity":
        return rate * x + signal * output, signal * x - rate * output
    if prediction == "flow":
        length = signal + rate
        return (x - signal * output) / length, (x + rate * output) / length
    if prediction == "edm":
        # `generative.diffusion.edm.scalings` with sigma = rate / signal, without dividing by rates.
        square = rate.square() + (sigma_data * signal).square()
        output = sigma_data * output / square.sqrt()
        noise = rate * x / square - signal * output
        return noise, sigma_data**2 * signal * x / square + rate * output
    if prediction in ("data", "pixels"):
        return (x - signal * output) / rate, output
    return output, (x - rate * output) / signal


def into_network(
    x: Tensor, log_snr: Tensor, prediction: str, sigma_data: float = SIGMA_DATA
) -> Tensor:
    """Input of the network at x_t (B, ...) and log_snr (B,), at the length that its kind has.

    That of "flow" is the point (1 - t) data + t noise, that of "edm" has variance 1 at every noise
    level, and all others have x_t; see `estimates`.
    """
    if prediction not in ("flow", "edm"):
        return x
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    if prediction == "flow":
        return x / (signal + rate)
    return x / (rate.square() + (sigma_data * signal).square()).sqrt()


class _Within(torch.autograd.Function):
    """Values brought into a range; gradients pass where a step against them leads inwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(x, low), high)
        ctx.save_for_backward(x - inside)
        return inside

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (beyond,), (grad,) = ctx.saved_tensors, grads
        return grad * (grad * beyond >= 0), None, None


def within(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Estimates brought into the range of the data, which can be learned.

    Past an end of the range, an estimate of data at that end is right, and is not pulled back; one
    of data inside is pulled as if there was no end. So the least squared error is where it was, the
    posterior mean, and data at an end need not be met exactly by the network.
    """
    return _Within.apply(x, low, high)


def diffusion_loss(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    config: DiffusionLossConfig = LOSS,
    generator: torch.Generator | None = None,
    sigma_data: float = SIGMA_DATA,
) -> DiffusionLosses:
    """Error of the noise in examples x (B, ...) that noise of random level was added to.

    Args:
        denoise: (x_t, log_snr) -> (noise, data).
        x: examples of mean 0 and variance 1, more or less.
        sigma_data: deviation of the data in EDM's weighting.
    """
    log_snr = _draw_levels(x, schedule, config, generator)
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    noise, _ = denoise(signal * x + rate * eps, log_snr)
    absolute = (eps - noise).abs().flatten(1).mean(1)
    squared = (eps - noise).square().flatten(1).mean(1)
    # The velocity is in error by the error of the noise / signal, the data by it / exp(log_snr/2),
    # and data - noise by the sum of that of both, which point the same way.
    if config.weighting == "velocity":
        weight = 1 / log_snr.sigmoid()
    elif config.weighting == "data":
        weight = (-log_snr).exp()
    elif config.weighting == "flow":
        weight = (1 + (-log_snr / 2).exp()).square()
    elif config.weighting == "edm":
        weight = 1 + (-log_snr).exp() / sigma_data**2
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
    if config.levels == "normal":
        drawn = config.level_mean + config.level_std * torch.special.ndtri(u)
        return drawn.clamp(low, high).to(x.dtype)
    return (low + (high - low) * u).to(x.dtype)


@torch.no_grad()
def level_losses(
    denoise: Denoiser,
    x: Tensor,
    log_snrs: Sequence[float],
    generator: torch.Generator | None = None,
) -> list[LevelLoss]:
    """Errors of a denoiser at chosen noise levels, means over examples x (B, ...).

    A loss over all levels hides where it is lost: what a condition tells, for instance, only shows
    in a band of levels.

    Args:
        denoise: (x_t, log_snr) -> (noise, data).
        log_snrs: the levels; all of them have the same noise.
    """
    eps, found = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype), []
    for level in log_snrs:
        log_snr = torch.full((len(x),), float(level), dtype=x.dtype, device=x.device)
        signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
        noise, data = denoise(signal * x + rate * eps, log_snr)
        errors = (eps - noise).square().mean(), (x - data).square().mean()
        found.append(LevelLoss(float(level), *map(float, errors)))
    return found


# ---------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------


class Diffusion(Pretrained, nn.Module):
    """Diffusion of examples of any shape: vectors, images, latents, next frames.

    Of pixels, black is -1 and white is 1 until `initialise` sets mean and deviation of each channel
    from data. Other examples should have mean 0 and variance 1.

    `PointDiffusionConfig().build()` and `ImageDiffusionConfig().build()` are models whose config is
    saved with them and read by `from_pretrained`. One that is put together by hand is saved by its
    weights: put it together again and call `load_weights(folder)`.

        model = Diffusion(UNet(4, UNetConfig()), (4, 32, 32), ScheduleConfig(), "velocity")

    Args:
        network: (x_t (B, *shape), log_snr (B,)) -> (B, *shape), with a third argument where a
            context is given.
        shape: of an example.
        schedule: of the signal.
        prediction: "noise", "velocity", "data", "flow", "edm", or of images "pixels"; see
            `estimates`, `within`.
        steps: of sampling, unless another number is asked for.
        levels: values that a pixel in [0, 1] can have, where examples are images; else None.
        solver: of `encode` and `decode`: "ddim", in `steps` steps as in sampling, or "rk4", in
            `ode_steps` Runge-Kutta steps.
        ode_steps: also of `log_prob`.
        sigma_data: deviation of the examples in prediction and weighting "edm".
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "ImageDiffusion": ImageDiffusionConfig,
        "PointDiffusion": PointDiffusionConfig,
    }
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        schedule: ScheduleConfig,
        prediction: str = "noise",
        steps: int = 20,
        *,
        levels: int | None = None,
        solver: str = "ddim",
        ode_steps: int = 64,
        sigma_data: float = SIGMA_DATA,
        config: ImageDiffusionConfig | PointDiffusionConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape, self.schedule = config, shape, Schedule(schedule)
        self.prediction, self.steps, self.levels = prediction, steps, levels
        self.solver, self.ode_steps, self.sigma_data = solver, ode_steps, sigma_data
        self.network = network
        if prediction == "pixels" and levels is None:
            raise ValueError(
                "prediction is pixels, and without levels examples are no pixels and have no "
                "range; give levels, or prediction data"
            )
        if levels is not None:
            self.register_buffer("mean", torch.full((shape[0], 1, 1), 0.5))
            self.register_buffer("std", torch.full((shape[0], 1, 1), 0.5))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Take mean and deviation of each channel from images (B, C, H, W); all of them, or many.

        Raises:
            ValueError: a channel is the same everywhere, or examples are no images.
        """
        self._need_pixels("initialise")
        x = check_some(self._check(x), self)
        std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True, correction=0)
        if not bool((std > 0).all()):
            raise ValueError(
                f"channels have deviations {std.flatten().tolist()}; one that is the same "
                "everywhere can not be brought to variance 1"
            )
        self.mean.copy_(mean[0])
        self.std.copy_(std[0])

    def denoise(
        self, x: Tensor, log_snr: Tensor, context: Context | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalised x_t (B, *shape) and log_snr (B,) -> estimates of (noise, data)."""
        check_batch(x, self.shape, "x_t", self)
        given = () if context is None else (context,)
        scaled = into_network(x, log_snr, self.prediction, self.sigma_data)
        output = self.network(scaled, log_snr, *given)
        if self.prediction == "pixels":
            output = within(output, *((end - self.mean) / self.std for end in PIXELS))
        return estimates(output, x, log_snr, self.prediction, self.sigma_data)

    def loss(
        self,
        x: Tensor,
        config: DiffusionLossConfig = LOSS,
        generator: torch.Generator | None = None,
        context: Context | None = None,
        null: Context | None = None,
    ) -> DiffusionLosses:
        """Error of the noise, at random levels of noise.

        Args:
            context: of each example, as the network takes it.
            null: condition of nothing, which the share `config.drop` of the examples gets, so that
                `Guidance` has something to go away from.
        Raises:
            ValueError: another shape than (B, *shape), integers, or pixels outside [0, 1]; or
                examples are to be told nothing, and no condition of nothing is given.
        """
        x = self.normalise(check_some(self._check(x), self))
        if config.drop and context is not None:
            if null is None:
                raise ValueError(
                    f"drop is {config.drop}, and there is no condition of nothing for these "
                    "examples; pass null, or drop 0"
                )
            context = drop_context(context, null, config.drop, generator)
        denoise = self._given(context)
        return diffusion_loss(denoise, x, self.schedule, config, generator, self.sigma_data)

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        eta: Probability = 0.0,
        spacing: str = "time",
        clip: tuple[float, float] | str | None = "own",
        quantile: Quantile | None = None,
        context: Context | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """n examples (n, *shape); pixels are in [0, 1].

        Args:
            steps: the model's own number if not given.
            eta: 0 for DDIM, 1 for DDPM.
            spacing: of the steps, "time" or "log-snr"; see `Schedule.steps`.
            clip: range into which every estimate of an example is brought: "own" for that of
                pixels, where examples have them; or (low, high). None leaves the estimates, and of
                pixels clips only the last one.
            quantile: None clips. A share such as 0.995 keeps contrasts; see `clip_data`.
            context: of each example, as the network takes it.
            guidance: towards the context and away from nothing; None for plain sampling.
        """
        z = torch.randn(n, *self.shape, generator=generator, **placed(self))
        path = self.path(z, steps, eta, generator, spacing, clip, quantile, context, guidance)
        return self.denormalise(deque(path, maxlen=1).pop().x)

    @checked
    def path(
        self,
        z: Tensor,
        steps: Count | None = None,
        eta: Probability = 0.0,
        generator: torch.Generator | None = None,
        spacing: str = "time",
        clip: tuple[float, float] | str | None = "own",
        quantile: Quantile | None = None,
        context: Context | None = None,
        guidance: Guidance | None = None,
    ) -> Iterator[SamplerStep]:
        """Every step of `sample` from normal noise z (B, *shape), of examples as `normalise` makes
        them; the arguments are the same."""
        self._check_noise(z)
        stations = self.schedule.steps(steps or self.steps, spacing)
        within = self.clipping(clip, quantile)
        denoise = self.guided(context, guidance)
        return denoising_path(denoise, z, stations, eta, generator, within)

    def guided(self, context: Context | None, guidance: Guidance | None = None) -> Denoiser:
        """Denoiser of examples that are told a context, with or without guidance."""
        given = self._given(context)
        if guidance is None:
            return given
        return guided(given, self._given(guidance.null), guidance.scale, guidance.interval)

    @graph_if_wanted
    def encode(
        self, x: Tensor, steps: int | None = None, context: Context | None = None, **settings: Any
    ) -> Tensor:
        """Examples -> the noise z (B, *shape) that `decode` turns into them.

        Standard normal if x is drawn from the model. By "ddim" without gradient.

        Args:
            steps: of the solver; its own number if not given.
            settings: clip and quantile of solver "ddim"; see `sample`.
        Raises:
            ValueError: settings that the solver has not, or another shape.
        """
        x = self.normalise(self._check(x))
        if self.solver == "ddim":
            return self._noise_of(x, steps, context, **settings)
        self._no_more(settings)
        high, low = self.schedule.ends
        num = self.ode_steps if steps is None else steps
        return ode_flow(self._given(context), self._signal * x, high, low, num)

    @graph_if_wanted
    def decode(
        self, z: Tensor, steps: int | None = None, context: Context | None = None, **settings: Any
    ) -> Tensor:
        """Noise z (B, *shape) -> examples, the inverse of `encode` up to the solver's error.

        By "ddim" without gradient, and with eta 0 always the same.

        Args:
            steps: of the solver; its own number if not given.
            settings: eta, generator, spacing, clip, quantile and guidance of solver "ddim"; see
                `sample`.
        Raises:
            ValueError: settings that the solver has not, or another shape.
        """
        if self.solver == "ddim":
            with torch.no_grad():
                path = self.path(z, steps, context=context, **settings)
                return self.denormalise(deque(path, maxlen=1).pop().x)
        self._no_more(settings)
        high, low = self.schedule.ends
        num = self.ode_steps if steps is None else steps
        z = self._check_noise(z)
        return self.denormalise(ode_flow(self._given(context), z, low, high, num) / self._signal)

    @graph_if_wanted
    def log_prob(self, x: Tensor, context: Context | None = None) -> Tensor:
        """log density of each example, (B, *shape) -> (B,), nats, by the probability flow.

        Of what the flow makes of standard normal noise, which is the distribution of `decode` and,
        for many steps, of `sample`; with the little noise that is left at t = 0 (a standard
        deviation of 0.01 for linear betas). It takes one backward pass for each number of an
        example in each of 4 `ode_steps` calls of the network.

        Raises:
            ValueError: another shape, or pixels, whose levels have `bound`.
        """
        if self.levels is not None:
            raise ValueError("pixels have probabilities of levels and no density; use bound")
        x = self._check(x)
        return ode_log_prob(self._given(context), x, *self.schedule.ends, self.ode_steps)

    @checked
    @torch.no_grad()
    def bound(
        self,
        x: Tensor,
        num_draws: Count = 32,
        generator: torch.Generator | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Lower bound of the log probability of each image, (B, C, H, W) -> (B,), nats.

        The variational bound in continuous time (Kingma et al. 2021): its estimate has noise, its
        mean is a bound. Divide by -log(2) * C * H * W for bits per dimension.

        Args:
            num_draws: noise levels that are tried for each image.
        Raises:
            ValueError: a pixel is none of the model's levels, or examples are no images.
        """
        self._need_pixels("bound")
        x = self._check(x)
        high, low = self.schedule.ends
        normal, denoise = self.normalise(x), self._given(context)
        rest = variational_gap(denoise, normal, high, low, num_draws, generator)
        return self._log_prob_of_levels(x, high, generator) - rest

    def normalise(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] -> mean 0 and deviation 1; other examples as they are."""
        return x if self.levels is None else (x - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse; pixels are clipped to [0, 1]."""
        return x if self.levels is None else (self.mean + self.std * x).clamp(0, 1)

    @checked
    @torch.no_grad()
    def _noise_of(
        self,
        x: Tensor,
        steps: Count | None,
        context: Context | None,
        clip: tuple[float, float] | str | None = "own",
        quantile: Quantile | None = None,
    ) -> Tensor:
        """`encode` by DDIM run in reverse, of normalised examples."""
        stations = self.schedule.steps(steps or self.steps)
        within = self.clipping(clip, quantile)
        path = noising_path(self._given(context), x, stations, within)
        return deque(path, maxlen=1).pop()

    def _given(self, context: Context | None) -> Denoiser:
        return self.denoise if context is None else partial(self.denoise, context=context)

    def clipping(
        self, clip: tuple[float, float] | str | None = "own", quantile: float | None = None
    ) -> Clip | None:
        """Bring estimates of examples, as `normalise` makes them, into a range; see `sample`.

        Raises:
            ValueError: the range has no width, or there is a quantile and no range.
        """
        if clip == "own":
            clip = None if self.levels is None else PIXELS
        if clip is None and quantile is None:
            return None
        if not isinstance(clip, tuple) or not -math.inf < clip[0] < clip[1] < math.inf:
            raise ValueError(
                f"clip is {clip} and quantile {quantile}; give the lowest and the highest number "
                "of an example, or None for both"
            )
        low, high = clip
        if self.levels is not None:
            low, high = ((end - self.mean) / self.std for end in clip)
        return partial(clip_data, low=low, high=high, quantile=quantile)

    def _log_prob_of_levels(
        self, x: Tensor, log_snr: float, generator: torch.Generator | None
    ) -> Tensor:
        """log p(x | x_t) when x_t has the least noise: levels in proportion to how well they
        explain what is seen, pixel by pixel; (B,)."""
        levels = self.levels or 0
        last = levels - 1
        level = to_levels(x, levels)
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
        if self.levels is not None:
            return check_images(x, self.shape, self)
        if len(self.shape) == 1:
            return check_vectors(x, self.shape[0], "points", self)
        return check_batch(x, self.shape, "examples", self)

    def _check_noise(self, z: Tensor) -> Tensor:
        return check_batch(z, self.shape, "z", self)

    def _need_pixels(self, what: str) -> None:
        if self.levels is None:
            raise ValueError(f"{what} is for images of some levels; this model has none")

    def _no_more(self, settings: dict[str, Any]) -> None:
        if settings:
            raise ValueError(f"solver {self.solver!r} has no {', '.join(settings)}; leave it out")

    @property
    def _signal(self) -> float:
        """Signal rate at t = 0."""
        return 1 / math.sqrt(1 + math.exp(-self.schedule.ends[0]))


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class DiffusionLearner(ModelLearner[Diffusion]):
    """AdamW or Muon on the error of the noise; `kept` has the average of the weights."""

    def __init__(self, model: Diffusion, config: DiffusionLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config

    def update(self, batch: Tensor | tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """One step on examples (B, *shape), or on (examples, context)."""
        x, context = (batch, None) if isinstance(batch, Tensor) else batch
        return self.descend(self.model.loss(x, self.config, context=context))
