"""Settings of the score networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from generative.training.ranges import (
    Checked,
    Depth,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
    Widths,
)

if TYPE_CHECKING:
    from generative.score_matching.model import ScoreNetwork


@dataclass(frozen=True)
class ScoreConfig(Checked):
    """A noise-conditional score network (Song & Ermon 2019), small; the chapter names it only."""

    shape: Widths = (2,)
    """Shape of an example: (D,) for points, (C, H, W) for images with H and W that 4 divides."""
    sigma_max: Positive = 1.0
    """Largest standard deviation of noise: about the distance between far examples (Song & Ermon
    2020, technique 1)."""
    sigma_min: Positive = 0.01
    """Smallest noise level; a sample keeps this much noise."""
    num_levels: Annotated[int, Range(2, 2**16)] = 10
    """Noise levels, evenly spaced in the logarithm."""
    hidden_dim: Size = 128
    """Width of the perceptron on points; channels of the convolutions on images."""
    num_hidden: Depth = 3
    """Hidden layers on points; residual blocks at each size on images."""
    sample_steps: Size = 100
    """Langevin steps of `sample` at each level."""
    step_size: Positive = 2e-5
    """Step size at the smallest level; it grows with the variance of the level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) not in (1, 3):
            raise ValueError(f"shape is {self.shape}; give (D,) or (C, H, W) of positive numbers")
        if len(self.shape) == 3 and any(side % 4 for side in self.shape[1:]):
            raise ValueError(
                f"shape is {self.shape}; images need a height and width that 4 divides"
            )
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; the smallest must "
                "be positive and below the largest"
            )

    def build(self) -> ScoreNetwork:
        """A perceptron on points, convolutions on images."""
        from generative.score_matching.model import ScoreNetwork, noise_levels
        from generative.score_matching.networks import ScoreConvolutions, ScorePerceptron

        kind = ScorePerceptron if len(self.shape) == 1 else ScoreConvolutions
        network = kind(self.shape[0], self.hidden_dim, self.num_hidden)
        sampling = noise_levels(self), self.sample_steps, self.step_size
        return ScoreNetwork(network, self.shape, *sampling, config=self)


@dataclass(frozen=True)
class ScoreLossConfig(Checked):
    """Training settings of a score network."""

    method: Literal["denoising", "sliced"] = "denoising"
    """denoising: against the noise that was added (Vincent 2011). sliced: from noisy examples
    alone, by derivatives along random directions (Song et al. 2019); slower, and noisier."""
    lr: Positive = 1e-3
    """Adam's learning rate."""
    final_lr: NonNegative = 1e-3
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    clip: NonNegative = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: Share = 0.0
    """Decay of the average of the weights that is kept in their place (Song & Ermon 2020, technique
    5); 0 keeps the last weights."""
