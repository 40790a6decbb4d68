"""Two sets of sprites in six colours each, which one mapping of colours leads into each other.

Every shape, place and size is equally frequent in both, and colours are not: the n-th most frequent
colour of one set stands for the n-th of the other. Were all colours equally frequent, each of the
720 ways to pair them would fit both sets, and nothing could tell which one to learn.

    first, second = sprites(), recoloured(sprites(), SECOND)
    rows = by_frequency(rng, first, 64, FREQUENCIES)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from generative.data.image_set import ImageSet

__all__ = ["FREQUENCIES", "PARTNERS", "SECOND", "by_frequency", "recoloured"]

SECOND = {
    "orange": (250, 130, 20),
    "teal": (20, 160, 150),
    "lime": (170, 230, 40),
    "pink": (250, 150, 200),
    "navy": (40, 50, 150),
    "brown": (140, 80, 40),
}
"""Colours of the second set, in the place of those of `sprites.COLOURS`."""
FREQUENCIES = (0.36, 0.24, 0.16, 0.11, 0.08, 0.05)
"""Partners of the colours of the first set, in the order of `sprites.COLOURS`."""
PARTNERS = (2, 0, 4, 1, 5, 3)
"""Colour of the second set that is as frequent as the n-th of the first."""


def recoloured(images: ImageSet, colours: Mapping[str, Sequence[int]]) -> ImageSet:
    """Sprites with other colours in the same order; all other factors stay."""
    table = np.array(list(colours.values()), dtype=np.uint8)
    outlines = images.images.any(-1, keepdims=True)
    own = table[images.factors[:, images.factor_names.index("colour")]]
    return replace(images, images=outlines * own[:, None, None])


def by_frequency(
    rng: np.random.Generator, images: ImageSet, n: int, frequencies: Sequence[float]
) -> np.ndarray:
    """Rows of n sprites, (n,): first a colour by its frequency, then any sprite of that colour."""
    colours = images.factors[:, images.factor_names.index("colour")]
    drawn = rng.choice(len(frequencies), size=n, p=frequencies)
    order = np.argsort(colours, kind="stable")
    starts = np.searchsorted(colours[order], np.arange(len(frequencies) + 1))
    return order[rng.integers(starts[drawn], starts[drawn + 1])]
