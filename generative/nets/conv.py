"""Convolutions with "same" padding, and stacks that halve or double the sides of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from torch import nn

__all__ = ["doubling_layers", "halving_layers", "same_pad", "same_padding"]


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after so that a convolution leaves ceil(side / stride) pixels.

    The odd one goes behind, as in the book's framework (Dumoulin & Visin 2016 for the arithmetic).
    """
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def same_pad(
    sides: Sequence[int], kernel: int | Sequence[int], stride: int | Sequence[int]
) -> nn.ZeroPad2d:
    """Layer that pads images of these sides (H, W) as `same_padding` says.

    Args:
        kernel, stride: one number, or one for each side.
    """
    kernels = (kernel, kernel) if isinstance(kernel, int) else kernel
    strides = (stride, stride) if isinstance(stride, int) else stride
    rows, columns = map(same_padding, sides, kernels, strides)
    return nn.ZeroPad2d((*columns, *rows))


def halving_layers(
    channels: Sequence[int], behind: Callable[[int], Sequence[nn.Module]]
) -> Iterator[nn.Module]:
    """3x3 convolutions of stride 2, (B, channels[0], H, W) with even sides at each of them.

    Args:
        channels: of the images, then of each convolution.
        behind: channels -> layers that follow a convolution.
    """
    for before, after in itertools.pairwise(channels):
        # "same" padding of an even side puts its single row and column at the end.
        yield nn.ZeroPad2d((0, 1, 0, 1))
        yield nn.Conv2d(before, after, 3, stride=2)
        yield from behind(after)


def doubling_layers(
    channels: Sequence[int], behind: Callable[[int], Sequence[nn.Module]]
) -> Iterator[nn.Module]:
    """Transposed 3x3 convolutions of stride 2, the mirror image of `halving_layers`."""
    for before, after in itertools.pairwise(channels):
        yield nn.ConvTranspose2d(before, after, 3, stride=2)
        yield nn.ZeroPad2d((0, -1, 0, -1))  # the transposed padding takes that row and column away
        yield from behind(after)
