"""PixelRNN's network: a diagonal bidirectional LSTM, which sees all that comes before a pixel.

One LSTM walks from the upper left corner to the lower right one, a diagonal at a time, and one from
the upper right corner to the lower left one. A pixel's state is made of those of its neighbour in
the row and of the one above, so that after one layer nothing earlier is unseen, however far away
(van den Oord et al. 2016a, section 3.2). The price is H + W - 1 steps one after the other, where a
masked convolution takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.init import glorot_
from generative.pixelcnn.config import RecurrentConfig
from generative.pixelcnn.networks import MaskedConv2d

__all__ = ["DiagonalLSTM", "RecurrentNet", "skew", "unskew"]


class RecurrentNet(nn.Module):
    """A masked convolution, residual layers of diagonal LSTMs in both directions, layers of 1x1.

    Args:
        config: sizes.
        image_shape: (C, H, W).
        num_params: of a pixel, P.
        colours: C where the network has to order them, else 1.
    """

    def __init__(
        self,
        config: RecurrentConfig,
        image_shape: tuple[int, int, int],
        num_params: int,
        colours: int,
    ):
        super().__init__()
        dim = config.hidden_dim
        self.first = MaskedConv2d(image_shape[0], dim, config.first_kernel, "A", colours)
        # A feature knows nothing of its own pixel, so those of a row all miss the last one. What
        # comes from the right may know it and is told; the publication leaves it unseen.
        self.own = nn.Conv2d(image_shape[0], dim, 1)
        self.layers = nn.ModuleList(
            _BothWays(dim, config.dropout, colours) for _ in range(config.num_recurrent)
        )
        self.last = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(dim, dim, 1, "B", colours),
            nn.ReLU(),
            MaskedConv2d(dim, num_params, 1, "B", colours),
        )
        glorot_(self)
        for layer in self.modules():
            if isinstance(layer, DiagonalLSTM):
                layer.remember()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, P, H, W)."""
        x = 2 * x - 1
        h, own = self.first(x), self.own(x)
        for layer in self._layers():
            h = h + layer(h, h + own)
        return self.last(h)

    def row(self, x: Tensor, i: int) -> Callable[[int], Tensor]:
        """A function that gives the parameters (B, P) of row i's pixel in a column.

        What the rows above say is computed once; then each pixel costs a part of one row. The
        function reads row i of x anew whenever it is called.
        """
        above = self._last_row(x[:, :, :i])
        near = x[:, :, max(0, i - self.first.kernel_size[0] // 2) : i + 1]

        def at(j: int) -> Tensor:
            h = self.first(2 * near - 1)[:, :, -1:, : j + 1]
            for layer, (right, left) in zip(self._layers(), above, strict=True):
                h = h + layer.along_row(h, right[..., : j + 1], left[..., : j + 1])
            return self.last(h[..., -1:])[:, :, 0, 0]

        return at

    def _last_row(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """States of each layer's two LSTMs in the last row of x, (B, D, W); zeros without a row."""
        if not x.shape[2]:
            zeros = x.new_zeros(len(x), self.own.out_channels, x.shape[3])
            return [(zeros, zeros)] * len(self.layers)
        x, rows = 2 * x - 1, []
        h, own = self.first(x), self.own(x)
        for layer in self._layers():
            right, left = layer.states(h, h + own)
            rows.append((right[:, :, -1], left[:, :, -1]))
            h = h + layer.joined(right, left)
        return rows

    def _layers(self) -> Iterator[_BothWays]:
        return cast("Iterator[_BothWays]", iter(self.layers))


class _BothWays(nn.Module):
    """An LSTM of either direction, of features (B, D, H, W) without and with their own pixels."""

    def __init__(self, dim: int, dropout: float, colours: int):
        super().__init__()
        self.right = DiagonalLSTM(dim, colours)
        self.left = DiagonalLSTM(dim, colours)
        self.dropout = nn.Dropout2d(dropout)
        self.out = MaskedConv2d(dim, dim, 1, "B", colours)

    def forward(self, without: Tensor, with_own: Tensor) -> Tensor:
        return self.joined(*self.states(without, with_own))

    def states(self, without: Tensor, with_own: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the LSTM that goes to the right, and of the one that goes to the left."""
        return self.right(without), self.left(with_own.flip(3)).flip(3)

    def joined(self, right: Tensor, left: Tensor) -> Tensor:
        """Output (B, D, H, W) of the states of all rows."""
        # What comes from the right has seen later pixels of its row; moved down by one it has not.
        return self.out(self.dropout(right + F.pad(left, (0, 0, 1, -1))))

    def along_row(self, x: Tensor, right: Tensor, left: Tensor) -> Tensor:
        """Output of the left part of one row.

        Args:
            x: its features, (B, D, 1, W).
            right, left: states of the row above there, (B, D, W).
        """
        states = self.right.along_row(x, right) + left
        return self.out(self.dropout(states[:, :, None]))


class DiagonalLSTM(nn.Module):
    """An LSTM over the diagonals of a map, from the upper left corner on.

    The state at (i, j) is made of the input there and of the states at (i, j - 1) and (i - 1, j);
    the memory is that of (i, j - 1). So it knows exactly what lies above and to the left.

    Args:
        dim: feature maps of input and state, D.
        colours: 1 where colours need no order.
    """

    def __init__(self, dim: int, colours: int = 1):
        super().__init__()
        self.dim = dim
        self.inputs = MaskedConv2d(dim, 4 * dim, 1, "B", colours)
        # A kernel over (i - 1, i) of the diagonal before; all colours there are earlier ones.
        self.states = nn.Conv1d(dim, 4 * dim, 2)

    def remember(self) -> None:
        """Begin with open forget gates (Jozefowicz et al. 2015)."""
        assert self.states.bias is not None
        with torch.no_grad():
            self.states.bias[self.dim : 2 * self.dim].fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> states (B, D, H, W)."""
        width, gates = x.shape[3], skew(self.inputs(x))
        # Where a row has not begun, its state stays 0.
        begun = skew(torch.ones_like(x[:1, :1]))
        h = c = x.new_zeros(x.shape[:3])
        states = []
        for wide, there in zip(gates.unbind(3), begun.unbind(3), strict=True):
            h, c = _cell(wide + self.states(F.pad(h, (1, 0))), c)
            h, c = there * h, there * c
            states.append(h)
        return unskew(torch.stack(states, 3), width)

    def along_row(self, x: Tensor, above: Tensor) -> Tensor:
        """States (B, D, W) of one row of features (B, D, 1, W), below the states (B, D, W)."""
        gates = self.inputs(x)[:, :, 0]
        h = c = torch.zeros_like(above[:, :, 0])
        states = []
        for wide, over in zip(gates.unbind(2), above.unbind(2), strict=True):
            h, c = _cell(wide + self.states(torch.stack([over, h], 2))[:, :, 0], c)
            states.append(h)
        return torch.stack(states, 2)


def _cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Next state and memory of an LSTM, of the sums (B, 4 D, ...) and the memory before."""
    write, forget, read, new = gates.chunk(4, 1)
    c = forget.sigmoid() * c + write.sigmoid() * new.tanh()
    return read.sigmoid() * c.tanh(), c


def skew(x: Tensor) -> Tensor:
    """Move row i of (B, D, H, W) right by i; (B, D, H, W + H - 1), whose columns are diagonals."""
    h, w = x.shape[2:]
    return F.pad(x, (0, h)).flatten(2)[..., : h * (w + h - 1)].unflatten(2, (h, w + h - 1))


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`, for maps that were `width` wide."""
    h = x.shape[2]
    return F.pad(x.flatten(2), (0, h)).unflatten(2, (h, width + h))[..., :width]
