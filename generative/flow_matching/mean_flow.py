"""MeanFlow: the mean velocity between two times, which samples in one step (Geng et al. 2025).

    u(x_t, t, r) = (x_r - x_t) / (r - t),    t before r, on the path of the flow

so that x_1 = x_0 + u(x_0, 0, 1) is an example. Differentiated by t along the path,

    u(x_t, t, r) = v(x_t, t) + (r - t) d/dt u(x_t, t, r)

which the loss asks for, with data - noise in the place of v and no gradient through the right
side. In du/dt the path is that of data - noise too, or of the model's own velocity (improved
MeanFlow, Geng et al. 2025b). Times go from noise to data here; the paper counts them from data to
noise, which turns the signs of v, u and r - t.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from generative.flow_matching.config import (
    ImageMeanFlowConfig,
    MeanFlowLossConfig,
    PointMeanFlowConfig,
)
from generative.flow_matching.model import FlowMatching, Lines
from generative.flow_matching.paths import Pair, draw_times, interpolate, wide
from generative.solvers import equal_steps
from generative.training.checks import check_batch, checked
from generative.training.gradients import graph_if_wanted
from generative.training.learner import ModelLearner, adamw
from generative.training.ranges import Count, CountOrZero

__all__ = ["MeanFlow", "MeanFlowLearner", "MeanFlowLosses", "mean_flow_target"]

LOSS = MeanFlowLossConfig()


def mean_flow_target(
    mean_velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    r: Tensor,
    velocity: Tensor,
    tangent: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean velocity u, and v + (r - t) du/dt, which it equals where it is right.

    The derivative along the path comes in forward mode with u itself, at about the cost of a
    second forward pass.

    Args:
        mean_velocity: (x_t (B, ...), t (B,), r (B,)) -> u (B, ...).
        velocity: v, dx/dt at x_t, (B, ...); or data - noise, whose mean it is.
        tangent: direction in which x_t moves in du/dt; `velocity` if not given.
    Returns:
        u with its graph, and the other side without one.
    """
    # The fused kernels of attention have no derivative in forward mode.
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        along = velocity if tangent is None else tangent
        moving = forward_ad.make_dual(x, along), forward_ad.make_dual(t, torch.ones_like(t))
        u, change = forward_ad.unpack_dual(mean_velocity(*moving, r))
    change = torch.zeros_like(u) if change is None else change
    return u, (velocity + wide(r - t, x) * change).detach()


class MeanFlowLosses(NamedTuple):
    """Means over the batch and the numbers of an example."""

    loss: Tensor
    """With the weights of the config."""
    squared: Tensor
    """Squared difference of both sides, all examples alike."""
    velocity: Tensor
    """The same of the examples with equal times, the error of the velocity; 0 if there are none."""


class MeanFlow(Lines):
    """MeanFlow of examples of any shape.

    `PointMeanFlowConfig().build()` and `ImageMeanFlowConfig().build()` are models whose config is
    saved with them.

    Args:
        network: (x_t (B, *shape), times (B, 2)) -> u (B, *shape), times of t and r; with a third
            argument where a context is given. Differentiable in forward mode.
        shape: of an example.
        steps: jumps of sampling, unless another number is asked for.
        pixels: examples are images in [0, 1].
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "ImageMeanFlow": ImageMeanFlowConfig,
        "PointMeanFlow": PointMeanFlowConfig,
    }

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        steps: int = 1,
        *,
        pixels: bool = False,
        config: PointMeanFlowConfig | ImageMeanFlowConfig | None = None,
    ):
        super().__init__(shape, pixels)
        self.network, self.steps, self.config = network, steps, config

    def mean_velocity(
        self, x: Tensor, t: Tensor, r: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Mean velocity from normalised x_t (B, *shape) on, between times t and r (B,)."""
        check_batch(x, self.shape, "x_t", self)
        times = torch.stack([t, r], 1)
        return self.network(x, times) if context is None else self.network(x, times, context)

    def loss(
        self,
        batch: Tensor | Pair,
        config: MeanFlowLossConfig = LOSS,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> MeanFlowLosses:
        """Squared difference of both sides of the identity, at random times.

        The last `instant` of the batch have r = t, where the loss is that of flow matching.

        Args:
            batch: examples (B, *shape), or pairs of noise and data.
        Raises:
            ValueError: another shape than (B, *shape), integers, or pixels outside [0, 1].
        """
        noise, data = self.lines(batch, generator)
        both = torch.stack([draw_times(data, config, generator) for _ in range(2)])
        num = round(len(data) * (1 - config.instant))
        t, r = both.amin(0), both.amax(0)
        # Either of two times has the law of the config, the smaller one has not.
        t = torch.cat([t[:num], both[0, num:]])
        x, line = interpolate(noise, data, t), data - noise
        told = [part for part in (context,) if part is not None]

        def mean_velocity(x: Tensor, t: Tensor, r: Tensor) -> Tensor:
            return self.mean_velocity(x, t, r, *(part[: len(x)] for part in told))

        sides = []
        if num:
            now = x[:num], t[:num], r[:num]
            tangent = None
            if config.tangent == "model":
                with torch.no_grad():
                    tangent = mean_velocity(now[0], now[1], now[1])
            sides.append(mean_flow_target(mean_velocity, *now, line[:num], tangent))
        if num < len(data):
            later = (part[num:] for part in told)
            u = self.mean_velocity(x[num:], t[num:], t[num:], *later)
            sides.append((u, line[num:]))
        u, target = (torch.cat(parts) for parts in zip(*sides, strict=True))
        squared = (u - target).square().flatten(1).mean(1)
        weight = (squared.detach() + config.offset) ** -config.power
        velocity = squared[num:].mean() if num < len(data) else squared.new_zeros(())
        return MeanFlowLosses((weight * squared).mean(), squared.mean(), velocity)

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """n examples (n, *shape); pixels are in [0, 1].

        Args:
            steps: jumps; the model's own number if not given.
            context: of each example, as the network takes it.
        """
        return self.decode(self.draw_noise(n, generator), steps, context)

    @graph_if_wanted
    @checked
    def decode(
        self, z: Tensor, steps: Count | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Noise z (B, *shape) -> examples, in jumps."""
        return self.denormalise(deque(self.path(z, steps, context), maxlen=1).pop())

    @checked
    def path(
        self, z: Tensor, steps: Count | None = None, context: Tensor | None = None
    ) -> Iterator[Tensor]:
        """x_t after every jump from normal noise z (B, *shape), as `normalise` has it."""
        x = self.check_noise(z)
        times = equal_steps(0.0, 1.0, steps or self.steps)
        for t, after in itertools.pairwise(times):
            begin, end = (x.new_full((len(x),), u) for u in (t, after))
            x = x + (after - t) * self.mean_velocity(x, begin, end, context)
            yield x

    def flow(self, solver: str = "heun", steps: int = 50, ode_steps: int = 100) -> FlowMatching:
        """The flow of its velocity, which is u from t to t; with the same weights."""
        instant = Instant(self.network)
        return FlowMatching(instant, self.shape, solver, steps, ode_steps, pixels=self.pixels)


class Instant(nn.Module):
    """Velocity of a network of mean velocities.

    Args:
        network: (x_t, times (B, 2), context) -> mean velocity.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, *context: Tensor) -> Tensor:
        """Mean velocity from t to t."""
        return self.network(x, torch.stack([t, t], 1), *context)


class MeanFlowLearner(ModelLearner[MeanFlow]):
    """AdamW on the identity of MeanFlow; `kept` has the average of the weights."""

    def __init__(self, model: MeanFlow, config: MeanFlowLossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, batch: Tensor | Pair) -> dict[str, Any]:
        """One step on examples (B, *shape), or on pairs of noise and data."""
        return self.descend(self.model.loss(batch, self.config))
