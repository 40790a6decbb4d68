"""The best velocity there is, for data whose density is a mixture of Gaussians.

The mean of data - noise over all lines through x_t is known where the best denoiser is, and its
flow carries normal noise exactly to the data. No network can have a smaller loss:

    exact = MixtureVelocity.of(Standardised(TwoMoons()))
    exact(x_t, t)                        # E[data - noise | x_t]
    exact.floor()                        # the least loss, of one number, t uniform
    exact.jump(x_t, t, r)                # x_r on the same path
    matching_loss(flow, density).excess  # how far a trained flow is above the floor
    mean_flow_error(model, density, 99)  # how far a MeanFlow is from 99 of the exact jumps
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.diffusion.exact import MixtureDenoiser, sobol
from generative.flow_matching.paths import as_velocity, interpolate, wide
from generative.known.densities import Standardised
from generative.known.quadrature import Density
from generative.solvers import equal_steps, rk4
from generative.training.checks import checked
from generative.training.ranges import Count

if TYPE_CHECKING:
    from generative.flow_matching.mean_flow import MeanFlow
    from generative.flow_matching.model import FlowMatching

__all__ = [
    "MatchingLoss",
    "MeanFlowError",
    "MixtureVelocity",
    "matching_loss",
    "mean_flow_error",
]

EDGE = 1e-6
"""Distance of times from 0 and 1 within which the velocity is that at this distance."""
STEPS = 16
"""Runge-Kutta steps of a jump."""


@dataclass(frozen=True, eq=False)
class MixtureVelocity:
    """E[data - noise | x_t] for data from a mixture of Gaussians, in float64.

    Args:
        exact: the best denoiser of the mixture.
    """

    exact: MixtureDenoiser

    @classmethod
    def of(cls, density: Density) -> MixtureVelocity:
        """For two moons, mixtures, and either of them standardised; see `MixtureDenoiser.of`.

        Raises:
            ValueError: another density.
        """
        return cls(MixtureDenoiser.of(density))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x_t (B, D) and t (B,) -> velocity (B, D), of the type of x_t."""
        return as_velocity(self.exact, EDGE)(x.double(), t.double()).to(x)

    def floor(self, n: int = 2**15, seed: int = 0) -> float:
        """The least mean squared error of one number of the velocity, t uniform in [0, 1].

        The mean of the exact conditional variance over n pairs of time and x_t that are spread
        evenly, which leaves an error in the fourth digit.
        """
        u = sobol(1 + self.exact.numbers, n, seed)
        t = u[:, 0].clamp(EDGE, 1 - EDGE)
        log_snr = 2 * (t.log() - (-t).log1p())
        # With x_t fixed, velocity = (data - x_t) / (1 - t): the variances are proportional.
        variance = self.exact.data_variance(self.exact.at(log_snr, u[:, 1:]), log_snr)
        return float((variance / (1 - t).square()).mean()) / len(self.exact.std)

    @checked
    def jump(self, x: Tensor, t: Tensor, r: Tensor, steps: Count = STEPS) -> Tensor:
        """x_r (B, D), to which the flow carries x_t (B, D) between times t and r (B,).

        Args:
            steps: of Runge-Kutta; equal for each example, whose error falls as their 4th power.
        """
        span = wide(r - t, x)

        def rate(s: float, x: Tensor) -> tuple[Tensor, Tensor]:
            return span * self(x, t + s * (r - t)), x.new_zeros(())

        return rk4(rate, x, equal_steps(0.0, 1.0, steps))[0]

    def mean_velocity(self, x: Tensor, t: Tensor, r: Tensor, steps: int = STEPS) -> Tensor:
        """(x_r - x_t) / (r - t), and at r = t the velocity; (B, D)."""
        span = wide(r - t, x)
        mean = (self.jump(x, t, r, steps) - x) / torch.where(span == 0, torch.ones_like(span), span)
        return torch.where(span == 0, self(x, t), mean)


class MatchingLoss(NamedTuple):
    """Mean squared error of one number of the velocity, t uniform."""

    loss: float
    floor: float
    """Error of the best velocity there is."""
    excess: float
    """`loss` less `floor`: the mean squared distance from the best one."""


@torch.no_grad()
def matching_loss(
    model: FlowMatching, density: Standardised, n: int = 2**15, seed: int = 1
) -> MatchingLoss:
    """Loss of a flow of points on fresh ones, beside the least there is.

    The mean squared error of any velocity is that of the best one plus its mean squared distance
    from the best one. The excess is therefore that distance, which has little noise.

    Args:
        model: of points, on any device.
        density: of the data, one that `MixtureDenoiser.of` knows.
        n: points, each at one time.
        seed: of the points, the times and the noise.
    """
    exact, device = MixtureVelocity.of(density), next(model.parameters()).device
    t = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    x = _on_lines(density, t, seed + 1)
    found = model.velocity(x.to(device), t.to(device)).cpu()
    excess, floor = float((found - exact(x, t)).square().mean()), exact.floor()
    return MatchingLoss(floor + excess, floor, excess)


class MeanFlowError(NamedTuple):
    """Mean squares of one number of the mean velocity; both times uniform, the smaller one is t."""

    error: float
    """Distance of the model from the exact mean velocity."""
    size: float
    """The exact mean velocity itself."""


@torch.no_grad()
def mean_flow_error(
    model: MeanFlow, density: Standardised, n: int = 2**13, seed: int = 1
) -> MeanFlowError:
    """Squared error of a MeanFlow of points, by the exact mean velocity.

    Its loss tells little of it, as the model is on both of its sides. Along lines (`tangent`) even
    the exact one has a large loss: both sides differ by J (data - noise - v), where J is the
    Jacobian of the jump from t to r, which is large between two modes, where paths part.

    Args:
        model: of points, on any device.
        density: of the data, one that `MixtureDenoiser.of` knows.
        n: points, each with two times.
        seed: of the points, the times and the noise.
    """
    exact, device = MixtureVelocity.of(density), next(model.parameters()).device
    both = torch.rand(2, n, generator=torch.Generator().manual_seed(seed))
    t, r = both.amin(0), both.amax(0)
    x = _on_lines(density, t, seed + 1)
    best = exact.mean_velocity(x.double(), t.double(), r.double())
    found = model.mean_velocity(*(part.to(device) for part in (x, t, r))).cpu().double()
    return MeanFlowError(float((found - best).square().mean()), float(best.square().mean()))


def _on_lines(density: Standardised, t: Tensor, seed: int) -> Tensor:
    """A point x_t (B, 2) of a line at each time t (B,)."""
    generator = torch.Generator().manual_seed(seed)
    data = density.sample(len(t), generator, even=True)
    return interpolate(torch.randn(data.shape, generator=generator), data, t)
