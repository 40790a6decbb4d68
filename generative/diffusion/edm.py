"""EDM: a network whose input, output and target have variance 1 at every noise level.

Noise is added without fading the data, x = data + sigma eps, and a network F of any kind estimates

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

(Karras et al. 2022). At low noise most of x is kept, at high noise most of the network's output.

    model = EDM.from_pretrained("runs/edm/model")
    points = model.sample(1000)                  # 18 steps of Heun's method, 35 calls
    model.denoise                                # for the samplers of `generative.diffusion`

With data of variance 1, F is minus the velocity that `Diffusion` can predict; what EDM adds is any
other variance, its law of noise levels, its steps and its solver.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from generative.diffusion.config import EDMLossConfig, ImageEDMConfig, PointEDMConfig
from generative.diffusion.examples import Examples, normal_like
from generative.diffusion.samplers import ode_flow, ode_log_prob
from generative.training.checks import at_least_float32, check_some, checked
from generative.training.gradients import graph_if_wanted
from generative.training.learner import ModelLearner, adamw
from generative.training.ranges import Count, CountOrZero

__all__ = [
    "EDM",
    "Churn",
    "EDMLearner",
    "EDMLosses",
    "Preconditioned",
    "Scalings",
    "heun_path",
    "rho_sigmas",
    "scalings",
]

LOSS = EDMLossConfig()
SigmaDenoiser = Callable[[Tensor, Tensor], Tensor]
"""(x = data + sigma eps (B, ...), sigma (B,)) -> estimate of the data, of the shape of x."""


# ---------------------------------------------------------------------------------------------
# Preconditioning
# ---------------------------------------------------------------------------------------------


class Scalings(NamedTuple):
    """Factors of the network's parts at noise levels sigma, each (B,) (Karras et al., table 1)."""

    skip: Tensor
    """Factor of x, which makes the best linear estimate of the data."""
    out: Tensor
    """Factor of the network's output."""
    into: Tensor
    """Factor of x before the network."""
    noise: Tensor
    """log(sigma) / 4, which the network is told."""
    weight: Tensor
    """Weight of the squared error of the data in the loss, 1 / out^2."""


def scalings(sigma: Tensor, sigma_data: float) -> Scalings:
    """Factors for data of standard deviation sigma_data at noise levels sigma (B,), above 0."""
    total = sigma.square() + sigma_data**2
    out = sigma * sigma_data / total.sqrt()
    return Scalings(sigma_data**2 / total, out, 1 / total.sqrt(), sigma.log() / 4, 1 / out.square())


class Preconditioned(nn.Module):
    """Any network as an estimate of the data, c_skip x + c_out F(c_in x, log_snr).

    Networks of this project take log_snr = -2 log sigma, where EDM says c_noise = log(sigma) / 4.

    Args:
        network: F, (c_in x (B, ...), log_snr (B,)) -> (B, ...), with a third argument where a
            context is given.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5):
        super().__init__()
        self.network, self.sigma_data = network, sigma_data

    def forward(self, x: Tensor, sigma: Tensor, *context: Tensor) -> Tensor:
        """Estimate of the data from x = data + sigma eps (B, ...), sigma (B,)."""
        found = scalings(sigma, self.sigma_data)
        skip, out, into = (_wide(part, x) for part in found[:3])
        return skip * x + out * self.network(into * x, -8 * found.noise, *context)


# ---------------------------------------------------------------------------------------------
# Sampling
# ---------------------------------------------------------------------------------------------


@checked
def rho_sigmas(
    num: Count, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[float]:
    """Noise levels of num steps, from sigma_max to sigma_min and then 0 (equation 5).

    Their roots of order rho go by equal steps; a larger rho takes shorter steps near the data.
    """
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    last = max(1, num - 1)
    return [*((ends[0] + i / last * (ends[1] - ends[0])) ** rho for i in range(num)), 0.0]


class Churn(NamedTuple):
    """Settings of fresh noise in sampling (algorithm 2); the defaults add none."""

    amount: float = 0.0
    """Share of noise that is added before a step, times the number of steps: at each step sigma
    grows by the factor 1 + min(amount / steps, sqrt(2) - 1)."""
    low: float = 0.0
    """Noise levels below this one get none."""
    high: float = math.inf
    """Noise levels above this one get none."""
    scale: float = 1.0
    """Standard deviation of the fresh noise; a little above 1 makes up for detail that is lost."""


@torch.no_grad()
def heun_path(
    denoise: SigmaDenoiser,
    x: Tensor,
    sigmas: Sequence[float],
    churn: Churn | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Every step of Heun's method along dx / dsigma = (x - D(x, sigma)) / sigma.

    A step asks twice, the last one, which ends at 0, once (Karras et al., algorithms 1 and 2).

    Args:
        x: noise of standard deviation sigmas[0], (B, ...).
        sigmas: falling noise levels, the last may be 0.
        churn: fresh noise before each step; none if not given.
    """
    num = len(sigmas) - 1
    for sigma, target in itertools.pairwise(sigmas):
        if churn is not None and churn.amount and churn.low <= sigma <= churn.high:
            higher = sigma * (1 + min(churn.amount / num, math.sqrt(2) - 1))
            added = math.sqrt(higher**2 - sigma**2) * churn.scale
            x, sigma = x + added * normal_like(x, generator), higher
        slope = (x - denoise(x, _level(x, sigma))) / sigma
        ahead = x + (target - sigma) * slope
        if target > 0:
            other = (ahead - denoise(ahead, _level(x, target))) / target
            ahead = x + (target - sigma) * (slope + other) / 2
        x = ahead
        yield x


# ---------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------


class EDMLosses(NamedTuple):
    """Means over the batch and the numbers of an example."""

    loss: Tensor
    """Squared error of the data, with weights that make it 1 for a network that gives 0."""
    data_mse: Tensor
    """Squared error of the data, all noise levels alike."""


class EDM(Examples):
    """Diffusion of examples of any shape, preconditioned as in EDM.

    `PointEDMConfig().build()` and `ImageEDMConfig().build()` are models whose config is saved with
    them.

    Args:
        network: F, (c_in x (B, *shape), log_snr (B,)) -> (B, *shape), with a third argument where a
            context is given.
        shape: of an example.
        sigma_data: standard deviation of the data, that of pixels in [-1, 1].
        sigma_min, sigma_max, rho, steps: of sampling; see `rho_sigmas`.
        ode_steps: Runge-Kutta steps of `encode`, `decode` and `log_prob`.
        pixels: examples are images in [0, 1].
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ImageEDM": ImageEDMConfig, "PointEDM": PointEDMConfig}

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        sigma_data: float = 0.5,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        steps: int = 18,
        ode_steps: int = 64,
        pixels: bool = False,
        config: PointEDMConfig | ImageEDMConfig | None = None,
    ):
        super().__init__(shape, pixels)
        self.estimate = Preconditioned(network, sigma_data)
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho
        self.steps, self.ode_steps, self.config = steps, ode_steps, config

    def denoise(
        self, x: Tensor, log_snr: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimates of (noise, data) at diffusion's x_t (B, *shape) and log_snr (B,)."""
        sigma = (-log_snr / 2).exp()
        level = _wide(sigma, x)
        whole = x * (1 + level.square()).sqrt()
        data = self.estimate(whole, sigma, *_given(context))
        return (whole - data) / level, data

    def loss(
        self,
        x: Tensor,
        config: EDMLossConfig = LOSS,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> EDMLosses:
        """Weighted squared error of the data, log(sigma) normal (Karras et al., equation 8).

        Raises:
            ValueError: another shape than (B, *shape), integers, or pixels outside [0, 1].
        """
        x = self.normalise(check_some(self.check_examples(x), self))
        sigma = draw_sigmas(x, config, generator)
        noisy = x + _wide(sigma, x) * normal_like(x, generator)
        squared = (self.estimate(noisy, sigma, *_given(context)) - x).square().flatten(1).mean(1)
        weight = scalings(sigma, self.estimate.sigma_data).weight
        return EDMLosses((weight * squared).mean(), squared.mean())

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        churn: Churn | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """n examples (n, *shape); pixels are in [0, 1].

        Args:
            steps: the model's own number if not given.
            churn: fresh noise in each step; none if not given.
            context: of each example, as the network takes it.
        """
        path = self.path(self.draw_noise(n, generator), steps, churn, generator, context)
        return self.denormalise(deque(path, maxlen=1).pop())

    @checked
    def path(
        self,
        z: Tensor,
        steps: Count | None = None,
        churn: Churn | None = None,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """x after every step of `sample` from standard normal noise z (B, *shape)."""
        sigmas = rho_sigmas(steps or self.steps, self.sigma_min, self.sigma_max, self.rho)
        x = sigmas[0] * self.check_noise(z)

        def estimate(x: Tensor, sigma: Tensor) -> Tensor:
            return self.estimate(x, sigma, *_given(context))

        return heun_path(estimate, x, sigmas, churn, generator)

    @graph_if_wanted
    def encode(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Examples -> the standard normal noise z (B, *shape) that `decode` turns into them."""
        high, low = self._ends
        x = self._signal * self.normalise(self.check_examples(x))
        return ode_flow(self.denoise, x, high, low, steps or self.ode_steps)

    @graph_if_wanted
    def decode(self, z: Tensor, steps: int | None = None) -> Tensor:
        """Noise z (B, *shape) -> examples, the inverse of `encode` up to the solver's error."""
        high, low = self._ends
        x = ode_flow(self.denoise, self.check_noise(z), low, high, steps or self.ode_steps)
        return self.denormalise(x / self._signal)

    @graph_if_wanted
    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each example, (B, *shape) -> (B,), nats, by the probability flow.

        With the noise of sigma_min that is left in the data; see `ode_log_prob`.

        Raises:
            ValueError: another shape, or pixels, which have no density.
        """
        if self.pixels:
            raise ValueError("pixels have probabilities of levels and no density")
        return ode_log_prob(self.denoise, self.check_examples(x), *self._ends, self.ode_steps)

    @property
    def _ends(self) -> tuple[float, float]:
        """log_snr of data and of noise."""
        return -2 * math.log(self.sigma_min), -2 * math.log(self.sigma_max)

    @property
    def _signal(self) -> float:
        """Diffusion's signal rate at sigma_min."""
        return 1 / math.sqrt(1 + self.sigma_min**2)


class EDMLearner(ModelLearner[EDM]):
    """AdamW on the weighted error of the data; `kept` has the average of the weights."""

    def __init__(self, model: EDM, config: EDMLossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, batch: Tensor) -> dict[str, Any]:
        """One step on examples (B, *shape)."""
        return self.descend(self.model.loss(batch, self.config))


def draw_sigmas(x: Tensor, config: EDMLossConfig, generator: torch.Generator | None) -> Tensor:
    """A noise level for each example of x (B, ...), (B,): exp of a normal number."""
    n, kind = len(x), {"device": x.device, "dtype": at_least_float32(x)}
    if config.even:
        u = torch.rand(1, generator=generator, **kind) + torch.arange(n, device=x.device)
        normal = torch.special.ndtri((u / n).clamp(1e-6, 1 - 1e-6))
    else:
        normal = torch.randn(n, generator=generator, **kind)
    return (config.mean + config.std * normal).exp().to(x.dtype)


def _given(context: Tensor | None) -> tuple[Tensor, ...]:
    return () if context is None else (context,)


def _level(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
