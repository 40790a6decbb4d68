"""Growth from images of 4x4 to the full side: a function of the number of images seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.stylegan.config import SMALLEST

__all__ = ["Stage", "level_of", "reduce", "stage_of"]


class Stage(NamedTuple):
    """Stage of growing networks."""

    side: int
    """Size of the images that they make and judge."""
    alpha: float
    """Share of the newest layers, from 0 to 1."""


def stage_of(images: int, side: int, phase_images: int) -> Stage:
    """Stage after so many images have been seen.

    The first phase trains side 4. For each doubling, a phase fades the new layers in, alpha rising
    from 0 to 1 with every image, and a phase trains them. Then it is (side, 1) for ever.

    Args:
        side: at full growth.
        phase_images: images of a phase.
    """
    phase, within = divmod(images, phase_images)
    now = SMALLEST * 2 ** ((phase + 1) // 2)
    if now > side:
        return Stage(side, 1.0)
    return Stage(now, within / phase_images if phase % 2 else 1.0)


def reduce(x: Tensor, stage: Stage) -> Tensor:
    """Images (B, C, S, S) at a stage: pixels averaged down to its side, and faded as the
    generator's are between the doubled image of half the side (alpha 0) and their own (alpha 1)."""
    side, alpha = stage
    x = F.avg_pool2d(x, x.shape[-1] // side)
    return x if alpha == 1 else torch.lerp(doubled(F.avg_pool2d(x, 2)), x, alpha)


def doubled(x: Tensor) -> Tensor:
    """Features (B, C, H, W), each pixel four times."""
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def level_of(side: int, sides: tuple[int, ...]) -> int:
    """Number of doublings up to a side.

    Raises:
        ValueError: the network does not grow through it.
    """
    if side not in sides:
        raise ValueError(f"side is {side}; this network grows through {', '.join(map(str, sides))}")
    return sides.index(side)
