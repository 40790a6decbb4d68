"""Labelled images in memory, with a fixed split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PARTS", "ImageSet", "random_split"]

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, what is known of each, and which part of the split it belongs to.

    Args:
        images: uint8 (N, H, W, C) with values 0 .. levels - 1.
        factors: int64 (N, F), one column for every name in factor_names; classes count from 0.
        split: uint8 (N,), index into `PARTS`.
        levels: values a pixel can have.
        factor_names: e.g. ("class",), or ("shape", "colour", "x", "y", "size").
    Raises:
        ValueError: an array has another type or shape, or a pixel is out of range.
    """

    images: np.ndarray
    factors: np.ndarray
    split: np.ndarray
    levels: int = 256
    factor_names: tuple[str, ...] = ("class",)

    def __post_init__(self) -> None:
        n = len(self.images)
        wanted = {
            "images": (np.uint8, (n, *self.images.shape[1:]), 4),
            "factors": (np.int64, (n, len(self.factor_names)), 2),
            "split": (np.uint8, (n,), 1),
        }
        for name, (dtype, shape, ndim) in wanted.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape or array.ndim != ndim:
                raise ValueError(
                    f"{name} are {array.dtype} {array.shape}; {n} images with factors "
                    f"{self.factor_names} need {np.dtype(dtype)} with {ndim} axes, {n} rows"
                )
        if n and (self.images.max() >= self.levels or self.split.max() >= len(PARTS)):
            raise ValueError(
                f"pixels reach {self.images.max()}, parts {self.split.max()}; the largest are "
                f"{self.levels - 1} and {len(PARTS) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as models take it."""
        h, w, c = self.images.shape[1:]
        return (c, h, w)

    def part(self, *names: str) -> ImageSet:
        """The images of one part of the split, or of several: part("train", "val").

        Raises:
            ValueError: no such part, or nothing in it.
        """
        unknown = set(names) - set(PARTS)
        if unknown or not names:
            raise ValueError(f"there is no part {sorted(unknown)}; parts are {', '.join(PARTS)}")
        rows = np.isin(self.split, [PARTS.index(name) for name in names])
        if not rows.any():
            raise ValueError(f"no image is in {' or '.join(names)}; the set has {len(self)} images")
        return ImageSet(
            self.images[rows], self.factors[rows], self.split[rows], self.levels, self.factor_names
        )

    def as_tensor(self) -> Tensor:
        """All images as float32 (N, C, H, W) in [0, 1]: value / (levels - 1)."""
        import torch

        return torch.from_numpy(self.images).movedim(-1, -3).float().div(self.levels - 1)


def random_split(n: int, num_val: int, num_test: int, seed: int = 0) -> np.ndarray:
    """uint8 (n,): which part each example is in; a seed always gives the same.

    The test examples are the last of the seed's permutation, those for validation come before.
    """
    if num_val < 0 or num_test < 0 or num_val + num_test >= n:
        raise ValueError(f"{num_val} + {num_test} of {n} examples leave none to train on")
    split = np.zeros(n, dtype=np.uint8)
    order = np.random.default_rng(seed).permutation(n)
    split[order[n - num_test - num_val : n - num_test]] = PARTS.index("val")
    split[order[n - num_test :]] = PARTS.index("test")
    return split
