"""Networks that compute numbers of each pixel of an image from the pixels before it.

`PlainNet` is the book's (Foster 2023, chapter 5), a stack of masked convolutions, which is blind
to some pixels above and to the right. `GatedNet` has two stacks and sees everything (van den
Oord et al. 2016b). Either maps images (B, C, H, W) in [0, 1] to P numbers for each pixel, (B, P, H,
W), of which `generative.pixelcnn` makes a distribution; so does `generative.pixelcnn.mixture`'s
`PlusPlusNet`. `row` gives the same numbers pixel by pixel, for sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.init import glorot_
from generative.pixelcnn.config import GatedConfig, PlainConfig

__all__ = ["GatedNet", "MaskedConv2d", "PlainNet"]


class MaskedConv2d(nn.Conv2d):
    """Convolution that sees no pixel after its own, and of its own no later colour.

    Rows above and the left part of the row are seen; of the own pixel, type A sees earlier colours
    only, type B also the same. Type A reads the image, whose pixel is to be predicted; type B reads
    features, which know no more than they should. Feature map k belongs to colour k % colours.

    Args:
        in_dim, out_dim: channels.
        kernel: side, or (rows, columns).
        kind: "A" or "B".
        colours: 1 where colours need no order.
        centre: where the own pixel is in the kernel; its middle if not given.
    """

    mask: Tensor

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int | tuple[int, int],
        kind: str,
        colours: int = 1,
        centre: tuple[int, int] | None = None,
    ):
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(in_dim, out_dim, (rows, columns))
        r, c = (rows // 2, columns // 2) if centre is None else centre
        self.border = (c, columns - 1 - c, r, rows - 1 - r)
        order = torch.arange(rows * columns).view(rows, columns)
        mask = (order < r * columns + c).expand(out_dim, in_dim, -1, -1).clone()
        own = torch.arange(out_dim)[:, None] % colours
        its = torch.arange(in_dim) % colours
        mask[:, :, r, c] = its < own if kind == "A" else its <= own
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # The mask is part of the function, so masked weights have no gradient, and no optimiser
        # with a memory can bring them back.
        x = F.pad(x, self.border) if any(self.border) else x
        return F.conv2d(x, self.weight * self.mask, self.bias)


class PlainNet(nn.Module):
    """The book's: a masked convolution, residual blocks of 1x1, 3x3, 1x1, and layers of 1x1.

    Stacked masks have a blind spot: one layer sees the pixel above and to its right, the next what
    that pixel sees, and so on along a diagonal; what lies to the right of it is never seen.

    Args:
        config: sizes.
        image_shape: (C, H, W).
        levels: values of a pixel.
        num_params: of a pixel, P.
        colours: C where the network has to order them, else 1.
    """

    def __init__(
        self,
        config: PlainConfig,
        image_shape: tuple[int, int, int],
        levels: int,
        num_params: int,
        colours: int,
    ):
        super().__init__()
        dim = config.hidden_dim
        # The book's pixels are level / levels, so white is below 1.
        self.scale = (levels - 1) / levels
        self.first = MaskedConv2d(image_shape[0], dim, config.first_kernel, "A", colours)
        narrow = dim // 2 // colours * colours
        self.blocks = nn.ModuleList(
            nn.Sequential(
                MaskedConv2d(dim, narrow, 1, "B", colours),
                nn.ReLU(),
                MaskedConv2d(narrow, narrow, config.kernel, "B", colours),
                nn.ReLU(),
                MaskedConv2d(narrow, dim, 1, "B", colours),
                nn.ReLU(),
            )
            for _ in range(config.num_blocks)
        )
        self.last = nn.Sequential()
        for _ in range(config.num_last):
            self.last.append(MaskedConv2d(dim, dim, 1, "B", colours)).append(nn.ReLU())
        self.last.append(MaskedConv2d(dim, num_params, 1, "B", colours))
        glorot_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, P, H, W)."""
        h = self.first(self.scale * x).relu()
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)

    def row(self, x: Tensor, i: int) -> Callable[[int], Tensor]:
        """A function that gives the parameters (B, P) of row i's pixel in a column.

        It reads x anew whenever it is called; rows below i are not computed.
        """
        seen = x[:, :, : i + 1]
        return lambda j: self(seen)[:, :, i, j]


class GatedNet(nn.Module):
    """Two stacks: one sees all rows above, the other the row's own left part and the first stack.

    There is no blind spot, because the first stack's kernels reach left and right without a mask;
    what it knows is moved down by a row before the second may read it (van den Oord et al. 2016b,
    figures 1 and 2).

    Args:
        config: sizes.
        image_shape: (C, H, W).
        levels: values of a pixel.
        num_params: of a pixel, P.
        colours: C where the network has to order them, else 1.
    """

    def __init__(
        self,
        config: GatedConfig,
        image_shape: tuple[int, int, int],
        levels: int,
        num_params: int,
        colours: int,
    ):
        super().__init__()
        (c, h, w), dim = image_shape, config.hidden_dim
        self.levels = levels
        self.embed = nn.Embedding(levels, config.embed_dim) if config.embed_dim else None
        self.layers = nn.ModuleList(
            _GatedLayer(dim, config.kernel, dim, "B", colours, config.dropout)
            if i
            else _GatedLayer(
                config.embed_dim or 3 * c, config.first_kernel, dim, "A", colours, config.dropout
            )
            for i in range(config.num_layers)
        )
        # What the gates of every layer and stack are told besides the image.
        wide = (config.num_layers, 2, 2 * dim)
        self.rows = nn.Parameter(torch.zeros(*wide, h, 1)) if config.positions else None
        self.columns = nn.Parameter(torch.zeros(*wide, 1, w)) if config.positions else None
        classes, views = config.num_classes, config.num_views
        self.classes = nn.Parameter(torch.zeros(classes, *wide)) if classes else None
        self.views = nn.Parameter(torch.zeros(views, *wide)) if views > 1 else None
        self.last = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(dim, dim, 1, "B", colours),
            nn.ReLU(),
            nn.Dropout2d(config.dropout),
            MaskedConv2d(dim, num_params, 1, "B", colours),
        )
        glorot_(self)

    def forward(
        self, x: Tensor, labels: Tensor | None = None, views: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, P, H, W).

        Args:
            x: the images.
            labels: classes, int64 (B,), of a network that has any.
            views: int64 (B,); 0 for all if not given.
        """
        known = self._known(labels, views)
        return self._along_rows(x, self._from_above(x, known), known, 0)

    def row(self, x: Tensor, i: int, labels: Tensor | None = None) -> Callable[[int], Tensor]:
        """A function that gives the parameters (B, P) of row i's pixel in a column.

        What the rows above say is computed once; then each pixel costs a part of one row.
        """
        known = self._known(labels, None)
        above = [context[:, :, i:] for context in self._from_above(x[:, :, : i + 1], known)]

        def at(j: int) -> Tensor:
            left = [context[..., : j + 1] for context in above]
            return self._along_rows(x[:, :, i : i + 1, : j + 1], left, known, i)[:, :, 0, j]

        return at

    def _read(self, x: Tensor) -> Tensor:
        """Input of the first layer: greys of the pixels, or the vectors of their levels."""
        if self.embed is None:
            return _with_ends(x)
        return self.embed((x[:, 0] * (self.levels - 1)).round().long()).movedim(-1, 1)

    def _from_above(self, x: Tensor, known: Tensor | None) -> list[Tensor]:
        """Output of each layer of the first stack for the second, (B, 2 D, H, W)."""
        v, contexts = self._read(x), []
        for i, layer in enumerate(self._layers()):
            v, context = layer.vertical_stack(v, self._told(x, known, 0, i, 0), residual=i > 0)
            contexts.append(context)
        return contexts

    def _along_rows(
        self, x: Tensor, contexts: list[Tensor], known: Tensor | None, row: int
    ) -> Tensor:
        """Parameters of the pixels of whole rows, or of the left part of one."""
        h = self._read(x)
        for i, (layer, context) in enumerate(zip(self._layers(), contexts, strict=True)):
            told = context + self._told(x, known, 1, i, row)
            h = layer.horizontal_stack(h, told, residual=i > 0)
        return self.last(h)

    def _known(self, labels: Tensor | None, views: Tensor | None) -> Tensor | None:
        """Embedding of class and view for every gate, (B, layer, 2, 2 D)."""
        known = None
        if self.classes is not None:
            known = self.classes[labels]
        if self.views is not None:
            view = self.views[:1] if views is None else self.views[views]
            known = view if known is None else known + view
        return known

    def _told(
        self, x: Tensor, known: Tensor | None, stack: int, layer: int, row: int
    ) -> Tensor | float:
        """Sum of embeddings before a stack's gates in a layer; the shape fits (B, 2 D, H, W)."""
        told = 0.0
        if self.rows is not None and self.columns is not None:
            rows = self.rows[layer, stack, :, row : row + x.shape[2]]
            told = rows + self.columns[layer, stack, :, :, : x.shape[3]]
        return told if known is None else told + known[:, layer, stack, :, None, None]

    def _layers(self) -> list[_GatedLayer]:
        return cast("list[_GatedLayer]", list(self.layers))


class _GatedLayer(nn.Module):
    def __init__(self, in_dim: int, kernel: int, dim: int, kind: str, colours: int, dropout: float):
        super().__init__()
        half = kernel // 2
        self.border = (half, half, half, 0)
        self.vertical = nn.Conv2d(in_dim, 2 * dim, (half + 1, kernel))
        self.across = nn.Conv2d(2 * dim, 2 * dim, 1)
        # The kernel ends at its own pixel, so no column of it is wasted on a mask.
        self.horizontal = MaskedConv2d(
            in_dim, 2 * dim, (1, half + 1), kind, colours, centre=(0, half)
        )
        self.out = MaskedConv2d(dim, dim, 1, "B", colours)
        self.dropout = nn.Dropout2d(dropout)

    def vertical_stack(
        self, v: Tensor, told: Tensor | float, residual: bool
    ) -> tuple[Tensor, Tensor]:
        """v (B, D, H, W) -> the next v, and the input of the horizontal stack, (B, 2 D, H, W)."""
        wide = self.vertical(F.pad(v, self.border)) + told
        # Row i of `wide` knows row i; what is given on in row i may know row i - 1 at most.
        context = self.across(F.pad(wide, (0, 0, 1, -1)))
        # The paper has a residual link in the other stack only; in short trainings this one helps.
        out = self.dropout(_gate(wide))
        return v + out if residual else out, context

    def horizontal_stack(self, h: Tensor, context: Tensor, residual: bool) -> Tensor:
        """h and the vertical stack's output -> the next h, (B, D, H, W)."""
        out = self.out(self.dropout(_gate(self.horizontal(h) + context)))
        return h + out if residual else out


def _with_ends(x: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, 3 C, H, W): values, which are 0, which are 1.

    Grounds are exactly black or white in many images, which a linear map can not tell from nearly.
    """
    return torch.cat([2 * x - 1, (x == 0).to(x.dtype), (x == 1).to(x.dtype)], 1)


def _gate(wide: Tensor) -> Tensor:
    signal, gate = wide.chunk(2, 1)
    return signal.tanh() * gate.sigmoid()
