"""Flow matching around any network: loss, sampling, likelihood; and its learner."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from generative.diffusion.examples import Examples, normal_like
from generative.flow_matching.config import (
    FlowMatchingLossConfig,
    ImageFlowMatchingConfig,
    PointFlowMatchingConfig,
)
from generative.flow_matching.paths import (
    Pair,
    as_denoiser,
    draw_times,
    interpolate,
    optimal_noise,
)
from generative.solvers import SOLVERS, equal_steps, probes, rk4, with_divergence
from generative.training.checks import check_batch, check_some, checked
from generative.training.gradients import graph_if_wanted
from generative.training.learner import ModelLearner, adamw
from generative.training.ranges import Count, CountOrZero

__all__ = ["FlowMatching", "FlowMatchingLearner", "FlowMatchingLosses", "Lines"]

LOSS = FlowMatchingLossConfig()


class Lines(Examples):
    """Base of the models of straight lines from noise to data."""

    def lines(self, batch: Tensor | Pair, generator: torch.Generator | None) -> Pair:
        """The ends of a line for each example (B, *shape), of which noise is drawn if not given.

        Raises:
            ValueError: another shape, integers, pixels outside [0, 1], or no examples.
        """
        noise, data = (None, batch) if isinstance(batch, Tensor) else batch
        data = self.normalise(check_some(self.check_examples(data), self))
        return Pair(
            normal_like(data, generator) if noise is None else self.check_noise(noise), data
        )


class FlowMatchingLosses(NamedTuple):
    """Mean over the batch and the numbers of an example."""

    loss: Tensor
    """Squared error of the velocity."""


class FlowMatching(Lines):
    """Flow matching of examples of any shape: vectors, images, latents, next frames.

    The velocity v(x_t, t) carries noise at t = 0 to data at t = 1 by dx/dt = v. Examples should
    have a variance near 1; of pixels, black is -1 and white is 1.

    `PointFlowMatchingConfig().build()` and `ImageFlowMatchingConfig().build()` are models whose
    config is saved with them. One that is put together by hand is saved by its weights: put it
    together again and call `load_weights(folder)`.

    Args:
        network: (x_t (B, *shape), t (B,)) -> velocity (B, *shape), with a third argument where a
            context is given.
        shape: of an example.
        solver: of sampling: "euler", "heun" or "rk4".
        steps: of sampling, unless another number is asked for.
        ode_steps: Runge-Kutta steps of `encode`, `decode` and `log_prob`.
        pixels: examples are images in [0, 1].
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "ImageFlowMatching": ImageFlowMatchingConfig,
        "PointFlowMatching": PointFlowMatchingConfig,
    }

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        solver: str = "heun",
        steps: int = 50,
        ode_steps: int = 100,
        *,
        pixels: bool = False,
        config: PointFlowMatchingConfig | ImageFlowMatchingConfig | None = None,
    ):
        super().__init__(shape, pixels)
        self.network, self.config = network, config
        self.solver, self.steps, self.ode_steps = solver, steps, ode_steps

    def velocity(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity at normalised x_t (B, *shape) and times t (B,), 0 for noise and 1 for data."""
        check_batch(x, self.shape, "x_t", self)
        return self.network(x, t) if context is None else self.network(x, t, context)

    def denoise(
        self, x: Tensor, log_snr: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimates of (noise, data) at diffusion's x_t and log_snr, for its samplers."""
        return as_denoiser(lambda x, t: self.velocity(x, t, context))(x, log_snr)

    def loss(
        self,
        batch: Tensor | Pair,
        config: FlowMatchingLossConfig = LOSS,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> FlowMatchingLosses:
        """Squared error of the velocity, at random times (Lipman et al. 2023, equation 9).

        Args:
            batch: examples (B, *shape); or pairs of noise and data, as reflow has them, which stay
                together.
        Raises:
            ValueError: another shape than (B, *shape), integers, or pixels outside [0, 1].
        """
        noise, data = self.lines(batch, generator)
        if config.pairing == "optimal" and isinstance(batch, Tensor):
            noise = optimal_noise(noise, data)
        t = draw_times(data, config, generator, config.even)
        found = self.velocity(interpolate(noise, data, t), t, context)
        return FlowMatchingLosses((found - (data - noise)).square().mean())

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        solver: str | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """n examples (n, *shape); pixels are in [0, 1].

        Args:
            steps, solver: the model's own if not given.
            context: of each example, as the network takes it.
        """
        path = self.path(self.draw_noise(n, generator), steps, solver, context)
        return self.denormalise(deque(path, maxlen=1).pop())

    @checked
    def path(
        self,
        z: Tensor,
        steps: Count | None = None,
        solver: str | None = None,
        context: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """x_t after every step of `sample` from normal noise z (B, *shape), as `normalise` has it.

        Raises:
            ValueError: another shape, or a solver that there is not.
        """
        name = solver or self.solver
        if name not in SOLVERS:
            raise ValueError(f"solver is {name!r}; give one of {', '.join(SOLVERS)}")
        times = equal_steps(0.0, 1.0, steps or self.steps)
        return self._steps(self.check_noise(z), times, name, context)

    @graph_if_wanted
    def encode(self, x: Tensor, steps: int | None = None, context: Tensor | None = None) -> Tensor:
        """Examples -> the noise z (B, *shape) that `decode` turns into them.

        Standard normal if x is drawn from the model.

        Args:
            steps: of Runge-Kutta; the model's own number if not given.
        """
        return self._move(self.normalise(self.check_examples(x)), 1.0, 0.0, steps, context)

    @graph_if_wanted
    def decode(self, z: Tensor, steps: int | None = None, context: Tensor | None = None) -> Tensor:
        """Noise z (B, *shape) -> examples, the inverse of `encode` up to the solver's error.

        Args:
            steps: of Runge-Kutta; the model's own number if not given.
        """
        return self.denormalise(self._move(self.check_noise(z), 0.0, 1.0, steps, context))

    @graph_if_wanted
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log density of each example, (B, *shape) -> (B,), nats.

            log p(x) = log N(z; 0, I) - integral over t from 0 to 1 of div v(x_t, t)

        (Chen et al. 2018), exact up to the solver's error. It takes one backward pass for each
        number of an example in each of 4 `ode_steps` calls of the network.

        Raises:
            ValueError: another shape, or pixels, which have no density.
        """
        if self.pixels:
            raise ValueError("pixels have probabilities of levels and no density")
        x = self.check_examples(x)

        def field(t: float, x: Tensor) -> Tensor:
            return self._rate(context)(t, x)[0]

        rate, times = with_divergence(field, probes(x)), equal_steps(1.0, 0.0, self.ode_steps)
        z, log_det = rk4(rate, x, times)
        size = math.prod(self.shape)
        log_normal = -0.5 * (z.square().flatten(1).sum(1) + size * math.log(2 * math.pi))
        return log_normal + log_det

    @torch.no_grad()
    def pairs(self, n: int, generator: torch.Generator | None = None, steps: int = 20) -> Pair:
        """n noises and the examples they flow to, for reflow (Liu et al. 2023).

        A flow that is trained on them has the same marginal law and straighter paths.

        Args:
            steps: of Heun's method.
        """
        z = self.draw_noise(n, generator)
        return Pair(z, self.denormalise(deque(self.path(z, steps, "heun"), maxlen=1).pop()))

    @torch.no_grad()
    def _steps(
        self, x: Tensor, times: list[float], solver: str, context: Tensor | None
    ) -> Iterator[Tensor]:
        rate = self._rate(context)
        for t, after in itertools.pairwise(times):
            x, _ = SOLVERS[solver](rate, x, (t, after))
            yield x

    def _rate(self, context: Tensor | None):
        """Velocity for the solvers, without a further rate."""

        def rate(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
            times = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
            return self.velocity(x, times, context), x.new_zeros(())

        return rate

    def _move(
        self, x: Tensor, start: float, end: float, steps: int | None, context: Tensor | None
    ) -> Tensor:
        num = self.ode_steps if steps is None else steps
        return rk4(self._rate(context), x, equal_steps(start, end, num))[0]


class FlowMatchingLearner(ModelLearner[FlowMatching]):
    """AdamW on the error of the velocity; `kept` has the average of the weights."""

    def __init__(self, model: FlowMatching, config: FlowMatchingLossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, batch: Tensor | Pair) -> dict[str, Any]:
        """One step on examples (B, *shape), or on pairs of noise and data."""
        return self.descend(self.model.loss(batch, self.config))
