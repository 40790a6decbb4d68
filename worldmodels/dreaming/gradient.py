"""The other way to train C: back-propagate the imagined return through M into the controller.

z, h, c and the rewards of a dream follow from the actions by functions that have a derivative,
and noise is reparameterised, so its return has a gradient in the controller's 867 numbers (the
pathwise estimator; Heess et al. 2015, Hafner et al. 2020). Far fewer dreams are needed than in
evolution, and M's errors are found just as much faster: keep the dream uncertain, take few steps
per round, and let real episodes choose.

Unless asked for, ends are not drawn here: every reward is weighted with the probability that the
dream has not ended before it, the product of 1 - p, so the gradient knows how an action changes p
(`GradientConfig.ends`).

Which of M's Gaussians the next z comes from is drawn, and that choice has no gradient: how an
action changes the weights of a mixture does not enter. In the committed car's dreams of 10
decisions this is less than can be measured: along the gradient the mean return rises by 16.4 +/-
2.5 (standard error) by back-propagation and by 16.9 +/- 0.7 by differences. Over 30 decisions
gradients of single dreams are so large that 1,024 of them tell nothing: 25 +/- 60, by differences
-7 +/- 6 (`benchmarks/gradient.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generative.training.optimisation import learning_rate
from worldmodels.configs import GradientConfig
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts

__all__ = ["GradientConfig", "GradientResult", "GradientStep", "climb"]

CHECK_STREAM = 2**33
"""Sets the random numbers of the checks apart from those of the steps."""


@dataclass(frozen=True)
class GradientStep:
    """Figures of one training step."""

    index: int
    dream_return: float
    """Mean imagined return of the step's dreams."""
    grad_norm: float
    """Before clipping."""


@dataclass(frozen=True)
class GradientResult:
    """The best controller that was checked, and the curve on the way."""

    vector: Tensor
    dream_return: float
    """Mean imagined return at its check."""
    steps: list[GradientStep]


def climb(
    dream: Dream,
    starts: DreamStarts,
    vector: Tensor,
    config: GradientConfig,
    seed: int,
    on_step: Callable[[GradientStep], None] | None = None,
) -> GradientResult:
    """Adam on the mean imagined return, from `vector` (num_parameters,).

    Outputs that saturate cost a little: where tanh is flat no gradient comes back, and a
    controller that once steers hard left would do so for ever. A climb can also fall, since
    gradients through many decisions are noisy: every `check_every` steps the mean of the weights
    since the last check is tried on dreams of its own, always the same, and the best is returned.
    The start is tried too, so the answer is never worse than it on those dreams.

    Every step draws its starts and noise from (seed, step), so the result depends on nothing else.

    Raises:
        FloatingPointError: the return or its gradient is not finite; says the step.
    """
    theta = vector.detach().clone().to(dream.device).requires_grad_(True)
    optimizer = torch.optim.Adam([theta], lr=config.lr)
    check = _Check(dream, starts, config.check_dreams, seed)
    best, best_return = theta.detach().clone(), check(theta)
    total, count, curve = torch.zeros_like(theta), 0, []
    for index in range(config.steps):
        rate = learning_rate(index, config.steps, config.lr, 0.1 * config.lr)
        optimizer.param_groups[0]["lr"] = rate
        rng = np.random.default_rng([seed, index])
        generator = torch.Generator(dream.device).manual_seed(int(rng.integers(2**63)))
        result = dream.rollout(
            theta.unsqueeze(0), starts.draw(config.lanes, rng), generator, ends=config.ends
        )
        objective = result.returns.mean()
        loss = config.saturation_cost * result.saturation.mean() - objective
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([theta], config.clip_norm)
        step = GradientStep(index, objective.item(), norm.item())
        if not (math.isfinite(step.dream_return) and math.isfinite(step.grad_norm)):
            raise FloatingPointError(
                f"step {index} (seed {seed}): imagined return {step.dream_return}, gradient norm "
                f"{step.grad_norm}; shorten the horizon or lower the temperature"
            )
        optimizer.step()
        curve.append(step)
        if on_step:
            on_step(step)
        total, count = total + theta.detach(), count + 1
        if count == config.check_every or index + 1 == config.steps:
            candidate = total / count
            candidate_return = check(candidate)
            if candidate_return > best_return:
                best, best_return = candidate, candidate_return
            total, count = torch.zeros_like(theta), 0
    return GradientResult(best.cpu(), best_return, curve)


class _Check:
    """Mean return of a controller on dreams that no step is trained on."""

    def __init__(self, dream: Dream, starts: DreamStarts, dreams: int, seed: int):
        rng = np.random.default_rng([seed, CHECK_STREAM])
        self.dream, self.starts = dream, starts.draw(dreams, rng)
        self.seed = int(rng.integers(2**63))

    def __call__(self, theta: Tensor) -> float:
        result = self.dream.evaluate(theta.detach().unsqueeze(0), self.starts, self.seed)
        return float(result.returns.mean())
