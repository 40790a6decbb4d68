"""Labelled images in memory, with a fixed split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["PARTS", "ImageSet", "evenly", "fit_images", "random_split"]

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with the factors of each and its part of the split.

    Args:
        images: uint8 (N, H, W, C) with values 0 .. levels - 1.
        factors: int64 (N, F), one column for every name in factor_names; classes count from 0.
        split: uint8 (N,), index into `PARTS`.
        levels: number of values of a pixel.
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

    def __repr__(self) -> str:
        counts = np.bincount(self.split, minlength=len(PARTS))
        parts = ", ".join(f"{n} {name}" for name, n in zip(PARTS, counts, strict=True))
        return (
            f"ImageSet({len(self)} images {self.images.shape[1:]} of {self.levels} levels with "
            f"{len(self.factor_names)} factors: {parts})"
        )

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
        rows = np.flatnonzero(np.isin(self.split, [PARTS.index(name) for name in names]))
        if not len(rows):
            raise ValueError(f"no image is in {' or '.join(names)}; the set has {len(self)} images")
        if rows[-1] - rows[0] + 1 == len(rows):  # they lie together: a view, which takes no memory
            return self[rows[0] : rows[-1] + 1]
        return self[rows]

    def thin(self, max_images: int | None) -> ImageSet:
        """At most max_images images, evenly spaced; None keeps all."""
        kept = evenly(len(self), max_images)
        return self if len(kept) == len(self) else self[kept]

    def __getitem__(self, rows: np.ndarray | slice) -> ImageSet:
        """The set of these images only."""
        return ImageSet(
            self.images[rows], self.factors[rows], self.split[rows], self.levels, self.factor_names
        )

    def as_tensor(
        self, rows: np.ndarray | slice = slice(None), device: torch.device | str = "cpu"
    ) -> Tensor:
        """Images as float32 (N, C, H, W) in [0, 1]: value / (levels - 1); all of them, or rows."""
        import torch

        pixels = torch.from_numpy(self.images[rows]).to(device)
        return pixels.movedim(-1, -3).contiguous().float().div(self.levels - 1)


def evenly(n: int, count: int | None) -> np.ndarray:
    """Indices of at most count of n things, evenly spaced."""
    if count is None or count >= n:
        return np.arange(n)
    if count < 1:
        raise ValueError(f"{count} images are asked for; ask for at least 1, or None for all")
    return np.arange(count) * n // count


def random_split(n: int, num_val: int, num_test: int, seed: int = 0) -> np.ndarray:
    """Part of the split for each of n examples, uint8 (n,); a seed always gives the same.

    The test examples are the last of the seed's permutation, those for validation come before.
    """
    if num_val < 0 or num_test < 0 or num_val + num_test >= n:
        raise ValueError(f"{num_val} + {num_test} of {n} examples leave none to train on")
    split = np.zeros(n, dtype=np.uint8)
    order = np.random.default_rng(seed).permutation(n)
    split[order[n - num_test - num_val : n - num_test]] = PARTS.index("val")
    split[order[n - num_test :]] = PARTS.index("test")
    return split


def fit_images(
    images: ImageSet, image_shape: tuple[int, int, int], levels: int | None = None
) -> ImageSet:
    """The same images in another shape and with fewer levels.

    Square images that are up to a quarter smaller than wanted get a black border, as 28x28 becomes
    32x32 in the book; all others are resized by Pillow (area averages when they shrink). Colour
    becomes grey by the usual weights, grey becomes three equal channels.

    Args:
        image_shape: (C, H, W), C is 1 or 3.
        levels: number of values of a pixel afterwards, at most as before; None keeps it.
    Raises:
        ValueError: there are fewer levels than asked for, or the channels are not 1 or 3.
    """
    c, h, w = image_shape
    levels = images.levels if levels is None else levels
    if c not in (1, 3) or not 2 <= levels <= images.levels:
        raise ValueError(
            f"image_shape is {image_shape} and levels {levels}; these images can have 1 or 3 "
            f"channels and 2 to {images.levels} levels"
        )
    pixels = _with_channels(images.images, c)
    pixels = _with_size(pixels, h, w)
    if images.levels < 256:  # where images grow, what is interpolated may lie above the levels
        pixels = np.minimum(pixels, np.uint8(images.levels - 1))
    if levels != images.levels:
        pixels = (pixels.astype(np.int64) * levels // images.levels).astype(np.uint8)
    return ImageSet(pixels, images.factors, images.split, levels, images.factor_names)


def _with_channels(pixels: np.ndarray, c: int) -> np.ndarray:
    if pixels.shape[-1] == c:
        return pixels
    if c == 3:
        return np.repeat(pixels[..., :1], 3, axis=-1)
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return grey.round().astype(np.uint8)[..., None]


def _with_size(pixels: np.ndarray, h: int, w: int) -> np.ndarray:
    height, width = pixels.shape[1:3]
    if (height, width) == (h, w):
        return pixels
    missing = (h - height, w - width)
    if all(0 <= m <= side // 4 and m % 2 == 0 for m, side in zip(missing, (h, w), strict=True)):
        border = [(0, 0), *((m // 2, m // 2) for m in missing), (0, 0)]
        return np.pad(pixels, border)
    from PIL import Image

    shrinks = h <= height and w <= width
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    resized = np.empty((len(pixels), h, w, pixels.shape[-1]), dtype=np.uint8)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
        resized[i] = np.asarray(picture.resize((w, h), method)).reshape(h, w, -1)
    return resized
