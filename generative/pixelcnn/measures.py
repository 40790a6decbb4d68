"""Likelihood of a set of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from generative.data.image_set import ImageSet
    from generative.pixelcnn.model import PixelCNN

__all__ = ["bits_per_dim"]


@torch.no_grad()
def bits_per_dim(
    model: PixelCNN, images: ImageSet, most: int | None = 2000, batch_size: int = 100
) -> float:
    """Bits per number, exact, over at most this many images at even distances.

    Args:
        model: classes, if it has any, are summed out.
        images: of the model's shape and levels.
        most: None takes all images.
        batch_size: images at a time.
    """
    images, total = images.thin(most), 0.0
    device = next(model.parameters()).device
    for first in range(0, len(images), batch_size):
        x = images.as_tensor(slice(first, first + batch_size), device)
        total += float(model.loss(x).bits_per_dim) * len(x) / len(images)
    return total
