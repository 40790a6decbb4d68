"""Padding that keeps ceil(side / stride) pixels."""

import math

import pytest
import torch
from torch import nn

from generative.nets.conv import same_pad, same_padding


@pytest.mark.parametrize(
    ("side", "kernel", "stride"),
    [(8, 3, 1), (8, 3, 2), (7, 3, 2), (8, 4, 2), (5, 3, 3), (6, 1, 2), (9, 5, 1)],
)
def test_same_padding_keeps_ceil_of_side_by_stride(side, kernel, stride):
    before, after = same_padding(side, kernel, stride)
    starts = [r * stride - before for r in range(math.ceil(side / stride))]
    assert starts[-1] + kernel <= side + after < starts[-1] + kernel + stride
    assert after - before in (0, 1)
    out = nn.functional.conv1d(torch.zeros(1, 1, side + before + after), torch.zeros(1, 1, kernel),
                               stride=stride)  # fmt: skip
    assert out.shape[-1] == math.ceil(side / stride)


def test_pad_of_a_height_and_a_width():
    pad = same_pad((7, 8), (3, 5), (2, 1))
    assert pad.padding == (2, 2, 1, 1)
    assert same_pad((8, 8), 4, 2).padding == (1, 1, 1, 1)
