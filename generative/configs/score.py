"""Settings of the score networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScoreConfig:
    """A noise-conditional score network (Song & Ermon 2019), small; the chapter names it only."""

    shape: tuple[int, ...] = (2,)
    """Of one example: (D,) for points, (C, H, W) for images with H and W that 4 divides."""
    sigma_max: float = 1.0
    """Largest standard deviation of noise: about the distance between far examples (Song & Ermon
    2020, technique 1)."""
    sigma_min: float = 0.01
    """Smallest; what is left in a sample."""
    num_levels: int = 10
    """Noise levels, evenly spaced in the logarithm."""
    hidden_dim: int = 128
    """Width of the perceptron on points; channels of the convolutions on images."""
    num_hidden: int = 3
    """Hidden layers on points; residual blocks at each size on images."""
    sample_steps: int = 100
    """Langevin steps of `sample` at each level."""
    step_size: float = 2e-5
    """Of a step at the smallest level; those at others are as their variances."""

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; give (D,) or (C, H, W) of positive numbers")
        if len(self.shape) == 3 and any(side % 4 for side in self.shape[1:]):
            raise ValueError(
                f"shape is {self.shape}; images need a height and width that 4 divides"
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; the smallest must "
                "be positive and below the largest"
            )
        for name in ("hidden_dim", "num_hidden", "sample_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_levels < 2 or not self.step_size > 0:
            raise ValueError(
                f"num_levels is {self.num_levels} and step_size {self.step_size}; there must be at "
                "least 2 levels and a positive step"
            )


@dataclass(frozen=True)
class ScoreLossConfig:
    """How a score network is trained."""

    method: Literal["denoising", "sliced"] = "denoising"
    """denoising: against the noise that was added (Vincent 2011). sliced: from noisy examples
    alone, by derivatives along random directions (Song et al. 2019); slower, and noisier."""
    lr: float = 1e-3
    """Adam's learning rate."""
    final_lr: float = 1e-3
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept in their place (Song & Ermon 2020, technique
    5); 0 keeps the last weights."""

    def __post_init__(self) -> None:
        if not self.lr > 0 or not 0 <= self.ema < 1 or self.clip < 0:
            raise ValueError(
                f"lr is {self.lr}, ema {self.ema}, clip {self.clip}; lr must be positive, ema from "
                "0 to below 1, clip not negative"
            )
