"""PixelRNN's network: a diagonal bidirectional LSTM, which sees all that comes before a pixel.

One LSTM walks from the upper left corner to the lower right one, a diagonal at a time, and one from
the upper right corner to the lower left one. A pixel's state is made of those of its neighbour in
the row and of the one above, so that after one layer nothing earlier is unseen, however far away
(van den Oord et al. 2016a, section 3.2). The price is H + W - 1 steps one after the other, where a
masked convolution takes one.
"""

from __future__ import annotations

from collections.abc import Callable

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
        for layer in self.layers:
            h = h + layer(h, h + own)
        return self.last(h)

    def row(self, x: Tensor, i: int) -> Callable[[int], Tensor]:
        """A function that gives the parameters (B, P) of row i's pixel in a column.

        It reads x anew whenever it is called; rows below i are not computed.
        """
        seen = x[:, :, : i + 1]
        return lambda j: self(seen)[:, :, i, j]


class _BothWays(nn.Module):
    """An LSTM of either direction, of features (B, D, H, W) without and with their own pixels."""

    def __init__(self, dim: int, dropout: float, colours: int):
        super().__init__()
        self.right = DiagonalLSTM(dim, colours)
        self.left = DiagonalLSTM(dim, colours)
        self.dropout = nn.Dropout2d(dropout)
        self.out = MaskedConv2d(dim, dim, 1, "B", colours)

    def forward(self, without: Tensor, with_own: Tensor) -> Tensor:
        # What comes from the right has seen later pixels of its row; moved down by one it has not.
        left = self.left(with_own.flip(3)).flip(3)
        return self.out(self.dropout(self.right(without) + F.pad(left, (0, 0, 1, -1))))


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
            gates_and_new = wide + self.states(F.pad(h, (1, 0)))
            write, forget, read, new = gates_and_new.chunk(4, 1)
            c = there * (forget.sigmoid() * c + write.sigmoid() * new.tanh())
            h = read.sigmoid() * c.tanh()
            states.append(h)
        return unskew(torch.stack(states, 3), width)


def skew(x: Tensor) -> Tensor:
    """Move row i of (B, D, H, W) right by i; (B, D, H, W + H - 1), whose columns are diagonals."""
    h, w = x.shape[2:]
    return F.pad(x, (0, h)).flatten(2)[..., : h * (w + h - 1)].unflatten(2, (h, w + h - 1))


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`, for maps that were `width` wide."""
    h = x.shape[2]
    return F.pad(x.flatten(2), (0, h)).unflatten(2, (h, width + h))[..., :width]
