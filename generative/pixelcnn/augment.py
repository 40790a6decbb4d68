"""More images than there are, and a model that knows which are which.

A generative model that is shown changed images learns to make changed images. One that is told
which images were changed can learn from them what lines are like, and still give the probability of
images as they are: changed ones are another kind (Jun et al. 2020, Distribution Augmentation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["redraw"]

FINE = 4
"""Points on each side of a pixel at which ink is looked for."""


def redraw(
    x: Tensor,
    levels: int,
    turn: float = 0.2,
    stretch: float = 0.12,
    shift: float = 0.6,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Drawings turned, sheared, stretched and moved a little, each in its own way.

    A pixel of scikit-learn's digits is the number of black points in a square of 4x4. So the points
    are guessed (black where the image, made smooth, is above one half), moved, and counted again.

    Args:
        x: grey images (B, 1, H, W) in [0, 1].
        levels: of the result, whose pixels are again multiples of 1 / (levels - 1).
        turn: largest angle of rotation and of shear, radians.
        stretch: largest relative change of width and of height.
        shift: largest move on either axis, pixels.
        generator: of the draws.
    """
    n, _, h, w = x.shape
    u = 2 * torch.rand(n, 6, generator=generator, device=x.device, dtype=x.dtype) - 1
    angle, shear, wide, high, right, down = u.unbind(1)
    cos, sin = (turn * angle).cos(), (turn * angle).sin()
    shear, wide, high = (turn * shear).tan(), 1 + stretch * wide, 1 + stretch * high
    rows = [
        torch.stack([wide * cos, wide * (shear * cos - sin), 2 * shift * right / w], 1),
        torch.stack([high * sin, high * (shear * sin + cos), 2 * shift * down / h], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 1, FINE * h, FINE * w], align_corners=False)
    smooth = F.grid_sample(x, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    ink = F.avg_pool2d((smooth > 0.5).to(x.dtype), FINE)
    return (ink * (levels - 1)).round() / (levels - 1)
