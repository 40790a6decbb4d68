"""Bars and stripes: small black and white images whose distribution is known exactly.

Either every column is all black or all white (bars), or every row is (stripes). All distinct
patterns are equally likely, so no model has fewer than log(count) nats per image (MacKay 2003,
section 43.3).
"""

from __future__ import annotations

import itertools

import numpy as np

from generative.data.image_set import ImageSet

__all__ = ["bars_and_stripes"]


def bars_and_stripes(side: int = 4) -> ImageSet:
    """All 2 * 2^side - 2 distinct patterns of side x side pixels; 30 of 4x4, floor log 30 = 3.4012.

    The class is 0 for bars, 1 for stripes; the two patterns of one colour count as bars. All are
    for training: a model's probability can be summed over all of them, so none is held out.

    Raises:
        ValueError: side is below 2, or so large that the patterns fill the memory.
    """
    if not 2 <= side <= 16:
        raise ValueError(f"side is {side}; give 2 to 16")
    lines = np.array(list(itertools.product((0, 1), repeat=side)), dtype=np.uint8)
    bars = np.repeat(lines[:, None, :], side, axis=1)
    stripes = np.repeat(lines[1:-1, :, None], side, axis=2)
    images = np.concatenate([bars, stripes])[..., None]
    classes = np.repeat([0, 1], [len(bars), len(stripes)]).astype(np.int64)
    return ImageSet(images, classes[:, None], np.zeros(len(images), dtype=np.uint8), levels=2)
