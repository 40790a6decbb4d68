"""Examples of models whose pixels are scaled to [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.training.checks import check_batch, check_images, check_vectors, placed
from generative.training.pretrained import Pretrained

__all__ = ["Examples", "normal_like"]


class Examples(Pretrained, nn.Module):
    """Base of models of examples of one shape: checks, scale of pixels, noise.

    Args:
        shape: of an example.
        pixels: examples are images in [0, 1], which the model has in [-1, 1].
    """

    def __init__(self, shape: tuple[int, ...], pixels: bool):
        super().__init__()
        self.shape, self.pixels = tuple(shape), pixels

    def normalise(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] -> [-1, 1]; other examples as they are."""
        return 2 * x - 1 if self.pixels else x

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse; pixels are clipped to [0, 1]."""
        return ((x + 1) / 2).clamp(0, 1) if self.pixels else x

    def check_examples(self, x: Tensor) -> Tensor:
        """Return x if it holds examples (B, *shape).

        Raises:
            ValueError: another shape, integers, or pixels outside [0, 1].
        """
        if self.pixels:
            return check_images(x, self.shape, self)
        if len(self.shape) == 1:
            return check_vectors(x, self.shape[0], "points", self)
        return check_batch(x, self.shape, "examples", self)

    def check_noise(self, z: Tensor) -> Tensor:
        """Return z if it is (B, *shape), else raise ValueError."""
        return check_batch(z, self.shape, "z", self)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise, (n, *shape)."""
        return torch.randn(n, *self.shape, generator=generator, **placed(self))


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape, type and place of x."""
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
