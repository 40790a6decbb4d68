"""Glow and the multi-scale RealNVP: flows on images, made of convolutional couplings.

Every scale folds 2x2 pixels into channels, goes through steps of ActNorm, a mixing of the channels
and a coupling, and puts half of the numbers aside as finished code, so that what stays is small and
far-reaching (Dinh, Sohl-Dickstein & Bengio 2017, section 3.6). Glow mixes the channels by a learnt
invertible 1x1 convolution (Kingma & Dhariwal 2018), RealNVP by turning their order round, with
couplings between the black and the white pixels of a checkerboard in front.

    glow = ImageFlow.from_pretrained("runs/glow/model")
    glow.sample(16, temperature=0.7)             # (16, C, H, W), on the levels of the data
    z = glow.encode(images)                      # (B, C*H*W)
    glow.decode(0.5 * (z[:1] + z[1:2]))          # between the first image and the second

Pixels of few levels get uniform noise, so the images have a density; its mean is a lower bound of
the log probability (`bound`).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flow.chain import ActNorm, FlowLayer
from generative.flow.config import GlowConfig
from generative.flow.splines import rational_quadratic
from generative.nets.init import zero_
from generative.training.checks import at_least_float32, placed

__all__ = [
    "CheckerboardCoupling",
    "ConvCoupling",
    "InvertibleConv",
    "MultiScale",
    "ReverseChannels",
    "Split",
    "Squeeze",
]


# ---------------------------------------------------------------------------------------------
# Layers without couplings
# ---------------------------------------------------------------------------------------------


class Squeeze(nn.Module):
    """2x2 pixels become channels: (B, C, H, W) -> (B, 4C, H/2, W/2).

    The four pixels come one after the other, each with all its colours, so that a coupling of half
    the channels sees every colour of half the pixels.
    """

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing is stretched: log |det| is 0."""
        _, _, h, w = x.shape
        pixels = x.unflatten(3, (w // 2, 2)).unflatten(2, (h // 2, 2))
        return pixels.permute(0, 3, 5, 1, 2, 4).flatten(1, 3), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        pixels = z.unflatten(1, (2, 2, z.shape[1] // 4)).permute(0, 3, 4, 1, 5, 2)
        return pixels.flatten(4, 5).flatten(2, 3)


class ReverseChannels(nn.Module):
    """The order of the channels turned round."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| is 0."""
        return x.flip(1), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        return z.flip(1)


class InvertibleConv(nn.Module):
    """1x1 convolution by a square matrix that begins as a random rotation (section 3.2).

    With `lu` the matrix is P L (U + diag(s)): P is a fixed permutation, L lower triangular with
    ones on its diagonal, U strictly upper triangular. |det| is then the product of |s|, and as the
    signs of s are fixed the matrix stays invertible throughout training. The paper has both.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, lu: bool):
        super().__init__()
        self.lu = lu
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        if not lu:
            self.weight = nn.Parameter(rotation)
            return
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(upper.diagonal().abs().log())

    def matrix(self) -> Tensor:
        """(C, C)."""
        if not self.lu:
            return self.weight
        lower = self.lower.tril(-1) + torch.eye(len(self.sign), **placed(self))
        return (
            self.permutation @ lower @ (self.upper.triu(1) + (self.sign * self.log_s.exp()).diag())
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the same, and H * W * log |det matrix|."""
        matrix = self.matrix()
        if self.lu:
            log_abs_det = self.log_s.sum()
        else:
            wide = matrix.to(at_least_float32(matrix))
            log_abs_det = torch.linalg.slogdet(wide).logabsdet.to(matrix.dtype)
        places = math.prod(x.shape[2:])
        return F.conv2d(x, matrix[:, :, None, None]), (places * log_abs_det).expand(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        # In float64: the smallest singular value of a trained matrix can be tiny.
        inverse = torch.linalg.inv(self.matrix().double()).to(z.dtype)
        return F.conv2d(z, inverse[:, :, None, None])


class Split(nn.Module):
    """Puts half of the channels aside as code.

    With a learnt prior they are first made standard normal by a mean and a deviation that a
    convolution computes from the kept half.
    """

    def __init__(self, channels: int, learnt_prior: bool):
        super().__init__()
        self.num_kept = channels - channels // 2
        prior = nn.Conv2d(self.num_kept, 2 * (channels // 2), 3, padding=1)
        self.prior = zero_(prior) if learnt_prior else None

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> kept half, half put aside, log |det| (B,)."""
        kept, aside = x[:, : self.num_kept], x[:, self.num_kept :]
        if self.prior is None:
            return kept, aside, x.new_zeros(len(x))
        mean, log_std = self.prior(kept).chunk(2, 1)
        return kept, (aside - mean) * (-log_std).exp(), -log_std.flatten(1).sum(1)

    def decode(self, kept: Tensor, aside: Tensor) -> Tensor:
        """The inverse."""
        if self.prior is not None:
            mean, log_std = self.prior(kept).chunk(2, 1)
            aside = mean + log_std.exp() * aside
        return torch.cat([kept, aside], 1)


# ---------------------------------------------------------------------------------------------
# Couplings
# ---------------------------------------------------------------------------------------------


class ConvCoupling(nn.Module):
    """The first half of the channels decides what becomes of the second."""

    def __init__(self, channels: int, config: GlowConfig):
        super().__init__()
        self.num_kept, self.config = channels // 2, config
        self.network = _network(self.num_kept, channels - self.num_kept, config)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> z of the same shape, log |det| (B,)."""
        kept, changed = x[:, : self.num_kept], x[:, self.num_kept :]
        z, log_slope = _change(changed, self.network(kept), self.config)
        return torch.cat([kept, z], 1), log_slope.flatten(1).sum(1)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        kept, changed = z[:, : self.num_kept], z[:, self.num_kept :]
        x, _ = _change(changed, self.network(kept), self.config, inverse=True)
        return torch.cat([kept, x], 1)


class CheckerboardCoupling(nn.Module):
    """The black pixels decide what becomes of the white ones, or the other way round."""

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], odd: bool, config: GlowConfig):
        super().__init__()
        c, h, w = shape
        row, column = torch.arange(h)[:, None] % 2 == 1, torch.arange(w) % 2 == 1
        self.register_buffer("mask", (row ^ column) == odd, persistent=False)
        # One channel more tells the zeros of the other colour from those of the image.
        self.network, self.config = _network(c + 1, c, config), config

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> z of the same shape, log |det| (B,)."""
        z, log_slope = _change(x, self._numbers(x), self.config)
        log_slope = torch.where(self.mask, 0.0, log_slope)
        return torch.where(self.mask, x, z), log_slope.flatten(1).sum(1)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        x, _ = _change(z, self._numbers(z), self.config, inverse=True)
        return torch.where(self.mask, z, x)

    def _numbers(self, x: Tensor) -> Tensor:
        mask = self.mask.to(x.dtype).expand(len(x), 1, -1, -1)
        return self.network(torch.cat([x * mask, mask], 1))


def _change(
    x: Tensor, numbers: Tensor, config: GlowConfig, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Every entry of x (B, C, H, W) by a monotone map, and the logarithm of its slope.

    Args:
        numbers: (B, C * N, H, W), the N of each entry; zeros start near the identity.
    """
    numbers = numbers.unflatten(1, (x.shape[1], -1)).movedim(2, -1)
    if config.coupling == "spline":
        return rational_quadratic(x, numbers, config.bound, inverse)
    raw, shift = numbers.unbind(-1)
    # Between 0 and 1, unlike exp, so that no single value can blow up; 0.88 at first.
    log_scale = F.logsigmoid(raw + 2)
    if inverse:
        return x * (-log_scale).exp() - shift, -log_scale
    return (x + shift) * log_scale.exp(), log_scale


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _network(in_channels: int, out_channels: int, config: GlowConfig) -> nn.Sequential:
    """Network of a coupling, which gives zeros at first."""
    width, drop = config.hidden_dim, [nn.Dropout2d(config.dropout)] if config.dropout else []
    layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1)]
    if config.num_blocks:
        layers += [
            part for _ in range(config.num_blocks) for part in (_ResidualBlock(width), *drop)
        ]
    else:
        layers += [nn.ReLU(), *drop, nn.Conv2d(width, width, 1)]
    per_entry = 2 if config.coupling == "affine" else 3 * config.num_bins - 1
    last = nn.Conv2d(width, out_channels * per_entry, 3, padding=1)
    return nn.Sequential(*layers, nn.ReLU(), *drop, zero_(last))


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


class MultiScale(nn.Module):
    """Flow on real-valued images (B, C, H, W) that finishes half of its code at every scale."""

    def __init__(self, config: GlowConfig):
        super().__init__()
        self.scales, self.splits = nn.ModuleList(), nn.ModuleList()
        c, h, w = config.image_shape
        self.code_shapes: list[tuple[int, int, int]] = []
        for scale in range(config.num_scales):
            layers = nn.ModuleList()
            for i in range(config.checkerboard):
                layers += [ActNorm(c), CheckerboardCoupling((c, h, w), i % 2 == 1, config)]
            layers.append(Squeeze())
            c, h, w = 4 * c, h // 2, w // 2
            for _ in range(config.num_steps):
                reverse = config.mixing == "reverse"
                mix = ReverseChannels() if reverse else InvertibleConv(c, config.mixing == "lu")
                layers += [ActNorm(c), mix, ConvCoupling(c, config)]
            self.scales.append(layers)
            if scale + 1 < config.num_scales:
                self.splits.append(Split(c, config.learnt_prior))
                self.code_shapes.append((c // 2, h, w))
                c -= c // 2
            elif config.learnt_prior:
                layers.append(ActNorm(c))  # a normal density with a mean and a deviation
        self.code_shapes.append((c, h, w))

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> z (B, C*H*W), the finest code first, the last scale's last."""
        return self.encode_log_det(x)[0]

    def encode_log_det(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> z (B, C*H*W) and log |det dz/dv| (B,)."""
        log_det, code = v.new_zeros(len(v)), []
        for i, layers in enumerate(self._scales()):
            for layer in layers:
                v, part = layer.encode(v)
                log_det = log_det + part
            if i < len(self.splits):
                v, aside, part = cast("Split", self.splits[i]).encode(v)
                log_det = log_det + part
                code.append(aside.flatten(1))
        return torch.cat([*code, v.flatten(1)], 1), log_det

    def decode(self, z: Tensor) -> Tensor:
        """z (B, C*H*W) -> images (B, C, H, W), the inverse of `encode`."""
        sizes = [c * h * w for c, h, w in self.code_shapes]
        parts = [
            part.unflatten(1, shape)
            for part, shape in zip(z.split(sizes, 1), self.code_shapes, strict=True)
        ]
        v = parts.pop()
        for i, layers in reversed(list(enumerate(self._scales()))):
            if parts and i < len(self.splits):
                v = cast("Split", self.splits[i]).decode(v, parts.pop())
            for layer in reversed(layers):
                v = layer.decode(v)
        return v

    @torch.no_grad()
    def initialise(self, v: Tensor) -> None:
        """Set every `ActNorm` from a first batch of images."""
        for i, layers in enumerate(self._scales()):
            for layer in layers:
                if isinstance(layer, ActNorm):
                    layer.initialise(v)
                v, _ = layer.encode(v)
            if i < len(self.splits):
                v, _, _ = cast("Split", self.splits[i]).encode(v)

    def _scales(self) -> list[list[FlowLayer]]:
        scales = [list(cast("nn.ModuleList", layers)) for layers in self.scales]
        return cast("list[list[FlowLayer]]", scales)
