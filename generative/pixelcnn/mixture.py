"""PixelCNN++: mixtures of logistics cut into levels, and the network of two streams.

A softmax over 256 levels has to learn that 200 and 201 are neighbours. A few logistic
distributions, each cut into the intervals that stand for the levels, know it from the start
(Salimans et al. 2017):

    P(level) = sum_k pi_k (F_k(level + 1/2) - F_k(level - 1/2))

The lowest and the highest level get the tails. Either part works without the other, and both
without `generative.pixelcnn`, whose `PixelCNN` they are options of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.pixelcnn.config import PlusPlusConfig

__all__ = ["LogisticMixture", "PlusPlusNet", "WeightNormConv", "log_level_probs"]

MIN_SCALE = math.exp(-7.0)
"""Smallest scale of a logistic, where the levels span 2 (the book's library has the same)."""


# ---------------------------------------------------------------------------------------------
# The distribution
# ---------------------------------------------------------------------------------------------


def log_level_probs(level: Tensor, mean: Tensor, scale: Tensor, levels: int) -> Tensor:
    """log probability of levels under logistics cut into intervals; shapes broadcast.

    With a and b the standardised upper and lower ends of a level's interval,

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)),

    which loses no digits however far the level lies out in a tail.

    Args:
        level: whole numbers 0 .. levels - 1, as floats.
        mean, scale: of the logistic, on the axis where level l stands at 2 l / (levels - 1) - 1.
        levels: how many there are.
    """
    half = 1 / (levels - 1)
    centred = (2 * level - (levels - 1)) * half - mean
    upper, lower = (centred + half) / scale, (centred - half) / scale
    below = F.logsigmoid(upper)
    above = F.logsigmoid(-lower)
    between = torch.log(-torch.expm1(-2 * half / scale))
    bottom, top = level == 0, level == levels - 1
    return (
        torch.where(top, 0.0, below)
        + torch.where(bottom, 0.0, above)
        + torch.where(bottom | top, 0.0, between)
    )


class _Parts(NamedTuple):
    """Parameters of the mixture in each pixel; `...` are the axes after the batch."""

    log_pi: Tensor
    """(B, K, ...)."""
    mean: Tensor
    """(B, K, C, ...), before the colours move each other's."""
    scale: Tensor
    """(B, K, C, ...)."""
    slopes: Tensor
    """(B, K, C (C - 1) / 2, ...): of green on red, blue on red, blue on green."""


class LogisticMixture:
    """Colours of a pixel: one of K components for all, means of later colours moved by earlier.

    Green's mean is shifted by a multiple of red, blue's by multiples of red and green. The
    network need not order the colours, and runs once for all of them.

    Args:
        colours: C.
        levels: values a colour can have.
        num_mixtures: K.
    """

    ordered_network = False

    def __init__(self, colours: int, levels: int, num_mixtures: int):
        self.colours, self.levels, self.num_mixtures = colours, levels, num_mixtures
        self.num_slopes = colours * (colours - 1) // 2
        self.num_params = num_mixtures * (1 + 2 * colours + self.num_slopes)

    def log_probs(self, params: Tensor, level: Tensor) -> Tensor:
        """log probability of each colour given the earlier ones of its pixel.

        Args:
            params: (B, P, H, W).
            level: (B, C, H, W).
        Returns:
            (B, C, H, W), nats.
        """
        parts = self._parts(params)
        found, log_weight = [], parts.log_pi
        for c in range(self.colours):
            mean = self._mean(parts, level, c)
            each = log_level_probs(level[:, None, c], mean, parts.scale[:, :, c], self.levels)
            joint = log_weight + each
            found.append(joint.logsumexp(1) - log_weight.logsumexp(1))
            log_weight = joint
        return torch.stack(found, 1)

    def table(self, params: Tensor, pixel: Tensor, c: int) -> Tensor:
        """log probability of every level of colour c of one pixel.

        Args:
            params: (B, P).
            pixel: levels (B, C), of which the first c are known.
        Returns:
            (B, levels), normalised.
        """
        parts = self._parts(params)
        log_weight = parts.log_pi
        for known in range(c):
            mean = self._mean(parts, pixel, known)
            log_weight = log_weight + log_level_probs(
                pixel[:, None, known], mean, parts.scale[:, :, known], self.levels
            )
        every = torch.arange(self.levels, device=params.device, dtype=params.dtype)
        mean, scale = self._mean(parts, pixel, c)[..., None], parts.scale[:, :, c, None]
        each = log_level_probs(every, mean, scale, self.levels)
        return (log_weight.log_softmax(1)[..., None] + each).logsumexp(1)

    def _parts(self, params: Tensor) -> _Parts:
        k, c = self.num_mixtures, self.colours
        sizes = [k, k * c, k * c, k * self.num_slopes]
        logits, mean, scale, slopes = params.split(sizes, 1)
        return _Parts(
            logits.log_softmax(1),
            mean.unflatten(1, (k, c)),
            F.softplus(scale.unflatten(1, (k, c))) + MIN_SCALE,
            slopes.unflatten(1, (k, self.num_slopes)).tanh() if self.num_slopes else slopes,
        )

    def _mean(self, parts: _Parts, level: Tensor, c: int) -> Tensor:
        """Mean of colour c, (B, K, ...), given the levels (B, C, ...) of the earlier ones."""
        mean, first = parts.mean[:, :, c], c * (c - 1) // 2
        for earlier in range(c):
            value = 2 * level[:, None, earlier] / (self.levels - 1) - 1
            mean = mean + parts.slopes[:, :, first + earlier] * value
        return mean


# ---------------------------------------------------------------------------------------------
# The network
# ---------------------------------------------------------------------------------------------


class WeightNormConv(nn.Module):
    """Convolution, or transposed one, of whose kernel some rows and columns are kept.

    Each output channel's weights are a direction and a length (Salimans & Kingma 2016). All of a
    kernel is stored, as in the book's library, so that sizes can be compared; what is masked has no
    influence on anything.

    Args:
        in_dim, out_dim: channels.
        kernel: (rows, columns).
        kept: how many (rows, columns) of it, from the top left.
        padding: as of `nn.Conv2d`.
        stride: 1, or 2.
        transposed: grow by the stride instead of shrinking.
    """

    mask: Tensor

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: tuple[int, int] = (1, 1),
        kept: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        stride: int = 1,
        transposed: bool = False,
    ):
        super().__init__()
        self.padding, self.stride, self.transposed = padding, stride, transposed
        self.axis = 1 if transposed else 0
        shape = (in_dim, out_dim, *kernel) if transposed else (out_dim, in_dim, *kernel)
        mask = torch.zeros(kernel)
        mask[: kept[0], : kept[1]] = 1
        self.register_buffer("mask", mask, persistent=False)
        self.direction = nn.Parameter(torch.empty(shape))
        self.log_length = nn.Parameter(torch.zeros(out_dim))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        nn.init.xavier_uniform_(self.direction)

    def forward(self, x: Tensor) -> Tensor:
        direction = self.direction * self.mask
        others = [axis for axis in range(4) if axis != self.axis]
        length = self.log_length.exp().view([-1 if a == self.axis else 1 for a in range(4)])
        weight = length * direction / direction.square().sum(others, keepdim=True).sqrt()
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, weight, self.bias, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def initialise(self, y: Tensor) -> Tensor:
        """Make what came out have mean 0 and deviation 1 in each channel; returns it so."""
        mean, std = y.mean((0, 2, 3)), y.std((0, 2, 3), correction=0).clamp_min(1e-3)
        self.log_length.sub_(std.log())
        self.bias.sub_(mean).div_(std)
        return (y - mean[:, None, None]) / std[:, None, None]


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, twice the channels."""
    return F.elu(torch.cat([x, -x], 1))


class _GatedBlock(nn.Module):
    """x + p sigmoid(q), with p and q from x and perhaps from `aux_dim` features beside it."""

    def __init__(self, dim: int, kept: tuple[int, int], aux_dim: int, dropout: float):
        super().__init__()
        self.first = WeightNormConv(2 * dim, dim, (3, 3), kept, (1, 1))
        self.aux = WeightNormConv(2 * aux_dim, dim) if aux_dim else None
        self.dropout = nn.Dropout(dropout)
        self.second = WeightNormConv(2 * dim, 2 * dim, (3, 3), kept, (1, 1))

    def forward(self, x: Tensor, aux: Tensor | None = None) -> Tensor:
        a = self.first(concat_elu(x))
        if self.aux is not None and aux is not None:
            a = a + self.aux(concat_elu(aux))
        p, q = self.second(self.dropout(concat_elu(a))).chunk(2, 1)
        return x + p * q.sigmoid()


class _Streams(nn.Module):
    """One block of either stream: vertical sees the rows above, horizontal also its own row."""

    def __init__(self, dim: int, skip: bool, dropout: float):
        super().__init__()
        self.vertical = _GatedBlock(dim, (2, 3), dim * skip, dropout)
        self.horizontal = _GatedBlock(dim, (2, 2), dim * (1 + skip), dropout)

    def forward(
        self, v: Tensor, h: Tensor, skip: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        if skip is None:
            v = self.vertical(v)
            return v, self.horizontal(h, v)
        v = self.vertical(v, skip[0])
        return v, self.horizontal(h, torch.cat([v, skip[1]], 1))


class _Resize(nn.Module):
    """Halve or double the side of both streams."""

    def __init__(self, dim: int, grow: bool):
        super().__init__()
        if grow:
            self.vertical = WeightNormConv(dim, dim, (2, 4), (2, 3), (0, 1), 2, True)
            self.horizontal = WeightNormConv(dim, dim, (2, 2), (2, 2), (0, 0), 2, True)
        else:
            self.vertical = WeightNormConv(dim, dim, (4, 4), (2, 3), (1, 1), 2)
            self.horizontal = WeightNormConv(dim, dim, (4, 4), (2, 2), (1, 1), 2)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.vertical(v), self.horizontal(h)


class PlusPlusNet(nn.Module):
    """Images -> parameters of every pixel, which depend on earlier pixels only.

    The layers are those of the book's library: 624,990 parameters at the book's sizes.

    Args:
        config: sizes.
        image_shape: (C, H, W).
        num_params: of a pixel, P.
    """

    def __init__(self, config: PlusPlusConfig, image_shape: tuple[int, int, int], num_params: int):
        super().__init__()
        dim, c = config.num_filters, image_shape[0]
        self.fold = 2 ** (config.num_scales - 1)
        self.first_vertical = WeightNormConv(c, dim, (5, 3), (2, 3), (2, 1))
        self.first_above = WeightNormConv(c, dim, (3, 3), (1, 3), (1, 1))
        self.first_left = WeightNormConv(c, dim, (3, 3), (2, 1), (1, 1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for scale in range(config.num_scales):
            if scale:
                self.down.append(_Resize(dim, grow=False))
            self.down.extend(_Streams(dim, False, config.dropout) for _ in range(config.num_resnet))
        for scale in reversed(range(config.num_scales)):
            # One skip link for each block of this scale on the way down and one for its entrance.
            num = config.num_resnet + (scale < config.num_scales - 1)
            self.up.extend(_Streams(dim, True, config.dropout) for _ in range(num))
            if scale:
                self.up.append(_Resize(dim, grow=True))
        self.last = WeightNormConv(dim, num_params)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, P, H, W)."""
        x = 2 * x - 1
        v, h = self.first_vertical(x), self.first_above(x) + self.first_left(x)
        skips = [(v, h)]
        for layer in self.down:
            v, h = layer(v, h)
            skips.append((v, h))
        v, h = skips.pop()
        for layer in self.up:
            v, h = layer(v, h) if isinstance(layer, _Resize) else layer(v, h, skips.pop())
        return self.last(F.elu(h))

    def row(self, x: Tensor, i: int) -> Callable[[int], Tensor]:
        """A function that gives the parameters (B, P) of row i's pixel in a column.

        It reads x anew whenever it is called; rows below i are not computed.
        """
        seen = x[:, :, : (i // self.fold + 1) * self.fold]
        return lambda j: self(seen)[:, :, i, j]

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start every layer with outputs of mean 0 and deviation 1 on images (B, C, H, W)."""
        layers = [m for m in self.modules() if isinstance(m, WeightNormConv)]

        def adjust(layer: nn.Module, _: object, y: Tensor) -> Tensor:
            return cast("WeightNormConv", layer).initialise(y)

        hooks = [layer.register_forward_hook(adjust) for layer in layers]
        self(x)
        for hook in hooks:
            hook.remove()
