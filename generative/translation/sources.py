"""Sources that pix2pix makes images from, computed from the images themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["edges", "grey"]


def edges(x: Tensor, threshold: float = 0.2) -> Tensor:
    """Pixels that differ from their right or lower neighbour: 1 there, 0 elsewhere.

    The outline of a sprite tells shape, place and size of it, and nothing of its colour.

    Args:
        x: images (B, C, H, W) in [0, 1].
        threshold: smallest difference of a channel that makes an edge.
    Returns:
        (B, 1, H, W).
    """
    right = F.pad((x[..., 1:] - x[..., :-1]).abs(), (0, 1))
    below = F.pad((x[..., 1:, :] - x[..., :-1, :]).abs(), (0, 0, 0, 1))
    return (torch.maximum(right, below).amax(1, keepdim=True) > threshold).to(x.dtype)


def grey(x: Tensor) -> Tensor:
    """Brightness of colour images, (B, 3, H, W) in [0, 1] -> (B, 1, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device, dtype=x.dtype)
    return (x * weights[:, None, None]).sum(1, keepdim=True).clamp(0, 1)
