"""Drawn sprites: every image is known, so that each generated image can be identified exactly.

One shape in one colour, place and size on a black ground, 32x32 pixels. All combinations together
are the data set; no two images are equal.

    everything = sprites()                       # 4,608 images
    index, error = nearest(everything, model_images)
    everything.factors[index]                    # factors of the generated images
"""

from __future__ import annotations

import itertools

import numpy as np

from generative.data.image_set import ImageSet, random_split

__all__ = ["COLOURS", "FACTORS", "PLACES", "SHAPES", "SIZES", "draw", "nearest", "sprites"]

SIDE = 32
SHAPES = ("square", "disc", "triangle", "cross")
COLOURS = {
    "red": (230, 60, 50),
    "green": (70, 190, 80),
    "blue": (60, 110, 230),
    "yellow": (240, 210, 60),
    "violet": (170, 80, 210),
    "white": (240, 240, 240),
}
PLACES = tuple(range(9, 24, 2))
"""Centre of a sprite on either axis, in pixels; none is cut off."""
SIZES = (5, 7, 9)
"""Half the width of a sprite, in pixels."""
FACTORS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "x": len(PLACES),
    "y": len(PLACES),
    "size": len(SIZES),
}
"""Values of each factor."""


def draw(shape: int, colour: int, x: int, y: int, size: int) -> np.ndarray:
    """One sprite by the indices of its factors, uint8 (32, 32, 3)."""
    colours = np.array(list(COLOURS.values()), dtype=np.uint8)
    return _outline(shape, x, y, size)[..., None] * colours[colour]


def sprites(seed: int = 0) -> ImageSet:
    """All sprites, in the order of their factors; a tenth each for validation and test."""
    factors = np.array(list(itertools.product(*map(range, FACTORS.values()))), dtype=np.int64)
    numbers = [range(FACTORS[name]) for name in ("shape", "x", "y", "size")]
    outlines = np.stack([_outline(*row) for row in itertools.product(*numbers)])
    outlines = outlines.reshape(len(SHAPES), 1, -1, SIDE, SIDE, 1)
    colours = np.array(list(COLOURS.values()), dtype=np.uint8)
    images = (outlines * colours[:, None, None, None]).reshape(-1, SIDE, SIDE, 3)
    tenth = len(images) // 10
    split = random_split(len(images), tenth, tenth, seed)
    return ImageSet(images, factors, split, factor_names=tuple(FACTORS))


def _outline(shape: int, x: int, y: int, size: int) -> np.ndarray:
    """Pixels of a sprite, bool (32, 32)."""
    down, right = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    # Centres lie between pixels, so that every shape is symmetric.
    right, down = right - PLACES[x] + 0.5, down - PLACES[y] + 0.5
    half = float(SIZES[size])
    across, along = np.abs(right), np.abs(down)
    return {
        "square": np.maximum(across, along) < 0.85 * half,
        "disc": right**2 + down**2 < half**2,
        "triangle": (along < half) & (across < (down + half) / 2),
        "cross": (np.minimum(across, along) < 0.3 * half) & (np.maximum(across, along) < half),
    }[SHAPES[shape]]


def nearest(known: ImageSet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the closest known image to each image.

    Args:
        known: e.g. `sprites()`.
        images: uint8 (M, H, W, C).
    Returns:
        index (M,) into known, and the mean squared difference (M,) of pixels from 0 to 255.
    """
    if images.dtype != np.uint8 or images.shape[1:] != known.images.shape[1:]:
        raise ValueError(
            f"images are {images.dtype} {images.shape}; the known ones are uint8 "
            f"(N, {', '.join(map(str, known.images.shape[1:]))})"
        )
    table = known.images.reshape(len(known), -1).astype(np.float32)
    squares = np.einsum("ij,ij->i", table, table, dtype=np.float64)
    index = np.empty(len(images), dtype=np.int64)
    error = np.empty(len(images))
    for start in range(0, len(images), 256):
        rows = images[start : start + 256].reshape(-1, table.shape[1]).astype(np.float32)
        # Sums of up to 3,072 * 255^2 need float64 to be told apart by a single pixel.
        own = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        distance = own[:, None] + squares - 2 * (rows @ table.T).astype(np.float64)
        best = distance.argmin(1)
        index[start : start + 256] = best
        difference = table[best] - rows
        error[start : start + 256] = np.square(difference, dtype=np.float64).mean(1)
    return index, error
