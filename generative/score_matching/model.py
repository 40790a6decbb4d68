"""Score matching: a network that learns the gradient of the log density at several noise levels.

The energy of energy.py is never needed, only its gradient, the score s(x) = grad log p(x). With
noise of standard deviation sigma on the data, the best answer to "which noise was added?" is the
score of the noisy density (Vincent 2011). Large noise fills the empty space between the data, small
noise keeps their detail, and Langevin walks go from the one to the other (Song & Ermon 2019).

    model = ScoreNetwork.from_pretrained("runs/score/model")
    model.score(x, sigma)                # (B, *shape), (B,) -> (B, *shape)
    model.sample(64)                     # annealed Langevin dynamics

Diffusion models are the next step on this way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from generative.score_matching.config import ScoreConfig, ScoreLossConfig
from generative.training.checks import (
    check_batch,
    check_images,
    check_some,
    check_vectors,
    checked,
    placed,
)
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, Positive

__all__ = [
    "ScoreConfig",
    "ScoreLearner",
    "ScoreLossConfig",
    "ScoreLosses",
    "ScoreNetwork",
    "annealed_langevin",
    "annealed_langevin_path",
    "denoising_score_matching",
    "noise_levels",
    "sliced_score_matching",
]

ScoreFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Noisy examples (B, ...) and their noise levels (B,) -> scores (B, ...)."""


def noise_levels(config: ScoreConfig) -> Tensor:
    """The standard deviations, largest first, (num_levels,)."""
    ends = math.log(config.sigma_max), math.log(config.sigma_min)
    return torch.linspace(*ends, config.num_levels, dtype=torch.float64).exp().float()


# ---------------------------------------------------------------------------------------------
# Losses and sampler, of any score
# ---------------------------------------------------------------------------------------------


def denoising_score_matching(score: ScoreFunction, x: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """sigma^2 / 2 * |s(x + sigma eps, sigma) + eps / sigma|^2 of each example, (B,).

    Its expectation is least for the score of the noisy density (Vincent 2011); the factor gives all
    levels the same weight (Song & Ermon 2019, equation 6).

    Args:
        x: examples (B, ...).
        sigma: standard deviations, (B,).
        eps: standard normal noise of the shape of x.
    """
    wide = _wide(sigma, x)
    error = wide * score(x + wide * eps, sigma) + eps
    return error.square().flatten(1).sum(1) / 2


def sliced_score_matching(
    score: ScoreFunction, x: Tensor, sigma: Tensor, direction: Tensor
) -> Tensor:
    """sigma^2 * (v^T grad(v^T s(x)) + |s(x)|^2 / 2) of each example, (B,).

    The form of reduced variance of Song et al. (2019, equation 8); needs no knowledge of how x came
    about, but a second derivative.

    Args:
        x: noisy examples (B, ...).
        sigma: standard deviations of their noise, (B,).
        direction: v, standard normal or random signs, of the shape of x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = score(x, sigma)
        (along,) = torch.autograd.grad((s * direction).sum(), x, create_graph=True)
    curvature = (along * direction).flatten(1).sum(1)
    return sigma.square() * (curvature + s.square().flatten(1).sum(1) / 2)


@checked
def annealed_langevin_path(
    score: ScoreFunction,
    x: Tensor,
    levels: Tensor,
    steps: Count,
    step_size: Positive,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The state after each level of `annealed_langevin`, which explains the arguments."""
    for sigma in levels:
        a = float(step_size * (sigma / levels[-1]) ** 2)
        for _ in range(steps):
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + a / 2 * score(x, sigma.to(x).expand(len(x))) + math.sqrt(a) * noise
        yield x


def annealed_langevin(
    score: ScoreFunction,
    x: Tensor,
    levels: Tensor,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Langevin walks through noise levels, largest first (Song & Ermon 2019, algorithm 1).

    x <- x + a s(x, sigma) / 2 + sqrt(a) N(0, I) with a = step_size * sigma^2 / sigma_min^2, so
    that signal and noise of a step keep their ratio at all levels.

    Args:
        x: where walks begin, (B, ...).
        levels: standard deviations, falling, (L,).
        steps: of each level.
    Returns:
        where they end, with noise of the last level, less what the score can take away of it:
        `ScoreNetwork.sample` does (Jolicoeur-Martineau et al. 2021).
    """
    path = annealed_langevin_path(score, x, levels, steps, step_size, generator)
    return deque(path, maxlen=1).pop()


def _wide(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (x.dim() - 1))


# ---------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------


class ScoreLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Loss of the method, per number of an example. Denoising: 1/2 for a network that answers 0."""


class ScoreNetwork(Pretrained, nn.Module):
    """s(x, sigma) = network(x / sqrt(1 + sigma^2), log sigma) / sigma.

    The division makes the network's task, to tell the noise, one of the same size at all levels
    (Song & Ermon 2020, technique 3). `ScoreConfig().build()` has a perceptron on points, residual
    convolutions at three sizes on images. One that is put together by hand is saved by its weights:
    put it together again and call `load_weights(folder)`.

    Args:
        network: (x (B, *shape), log sigma (B,)) -> (B, *shape).
        shape: of an example, (D,) for points, (C, H, W) for images in [0, 1].
        levels: standard deviations of the noise, largest first; see `noise_levels`.
        sample_steps: Langevin steps of `sample` at each level.
        step_size: of a step at the smallest level.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ScoreNetwork": ScoreConfig}
    levels: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        levels: Tensor,
        sample_steps: int = 100,
        step_size: float = 2e-5,
        config: ScoreConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape = config, shape
        self.sample_steps, self.step_size = sample_steps, step_size
        self.register_buffer("levels", levels.to(torch.get_default_dtype()), persistent=False)
        self.network = network

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """grad log of the density of data with noise, (B, *shape) -> (B, *shape).

        Args:
            x: noisy examples; of images, pixels may lie outside [0, 1].
            sigma: standard deviation of the noise, one number or (B,).
        """
        check_batch(x, self.shape, "x", self)
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        wide = _wide(sigma, x)
        return self.network(x / (1 + wide.square()).sqrt(), sigma.log()) / wide

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[clean | noisy x] = x + sigma^2 s(x, sigma), Tweedie's formula."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        return x + _wide(sigma, x).square() * self.score(x, sigma)

    def loss(
        self, x: Tensor, method: str = "denoising", generator: torch.Generator | None = None
    ) -> ScoreLosses:
        """Mean loss of examples (B, *shape), each at a level of its own.

        Raises:
            ValueError: another shape, integers, or pixels outside [0, 1]; another method.
        """
        check_some(x, self)
        if len(self.shape) == 1:
            x = check_vectors(x, self.shape[0], "points", self)
        else:
            x = check_images(x, self.shape, self)
        draw = {"generator": generator, "device": x.device}
        sigma = self.levels[torch.randint(len(self.levels), (len(x),), **draw)].to(x.dtype)
        eps = torch.randn(x.shape, dtype=x.dtype, **draw)
        if method == "denoising":
            losses = denoising_score_matching(self.score, x, sigma, eps)
        elif method == "sliced":
            signs = torch.randint(2, x.shape, **draw).to(x.dtype).mul(2).sub(1)
            losses = sliced_score_matching(self.score, x + _wide(sigma, x) * eps, sigma, signs)
        else:
            raise ValueError(f"method is {method!r}; give 'denoising' or 'sliced'")
        return ScoreLosses(losses.mean() / x[0].numel())

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) by annealed Langevin dynamics; images are clipped to [0, 1]."""
        x = self.start(n, generator)
        walk = self.sample_steps, self.step_size, generator
        x = annealed_langevin(self.score, x, self.levels, *walk)
        return self.finish(x)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """First states of walks: noise of the largest level, for images around grey."""
        shape = (n, *self.shape)
        x = torch.randn(shape, generator=generator, **placed(self))
        return float(self.levels[0]) * x + (0.5 if len(shape) == 4 else 0.0)

    def finish(self, x: Tensor) -> Tensor:
        """Take the noise of the last level away, and clip images to [0, 1]."""
        x = self.denoise(x, float(self.levels[-1]))
        return x.clamp(0, 1) if x.dim() == 4 else x


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class ScoreLearner(ModelLearner[ScoreNetwork]):
    """Adam on score matching; `kept` holds the weights to keep: their average, if there is one."""

    def __init__(self, model: ScoreNetwork, config: ScoreLossConfig, steps: int):
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
        super().__init__(
            model, Optimisation(model, optimizer, steps, config.final_lr, config.clip, config.ema)
        )
        self.config = config

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch (B, *shape)."""
        return self.descend(self.model.loss(batch, self.config.method))
