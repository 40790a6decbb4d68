"""Layers of the grown GANs: weights that all learn equally fast, norms without batch, modulation.

Weights are drawn from N(0, 1) and divided by sqrt(fan_in) whenever they are used. Adam moves every
weight by about the same step, so layers of any width then learn at one speed (Karras et al. 2018,
section 4.1).

    conv = EqualisedConv2d(64, 32, 3, gain=2**0.5)      # (B, 64, H, W) -> (B, 32, H, W)
    conv = ModulatedConv2d(64, 32, 3, style_dim=128)
    conv(x, w)                                          # w (B, 128) scales its input channels
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "EqualisedConv2d",
    "EqualisedLinear",
    "ModulatedConv2d",
    "downsample",
    "minibatch_std",
    "modulated_conv2d",
    "pixel_norm",
    "upsample",
]


class EqualisedLinear(nn.Module):
    """Linear map, (..., in_dim) -> (..., out_dim), whose weights are scaled where they are used.

    Args:
        gain: second moment of the output per second moment of the input, as its root; sqrt(2) in
            front of a ReLU.
        bias: first value of the bias; None for no bias.
        lr_multiplier: the layer learns as if Adam's learning rate were so many times as large.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        gain: float = 1.0,
        bias: float | None = 0.0,
        lr_multiplier: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((out_dim,), float(bias)))
        if self.bias is not None:
            self.bias.data /= lr_multiplier
        self.scale, self.lr_multiplier = gain * lr_multiplier / math.sqrt(in_dim), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.lr_multiplier
        return F.linear(x, self.weight * self.scale, bias)


class EqualisedConv2d(nn.Module):
    """Convolution, (B, C, H, W) -> (B, out_channels, H', W'), weights scaled where they are used.

    Args:
        gain: as of `EqualisedLinear`.
        padding: zeros at each border; None keeps the sides of an odd kernel.
        down: halve the sides, with the filter of `downsample` in front.
        bias: whether there is one, at first 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        gain: float = 1.0,
        padding: int | None = None,
        down: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = gain / math.sqrt(in_channels * kernel**2)
        self.padding, self.down = kernel // 2 if padding is None else padding, down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if not self.down:
            return F.conv2d(x, weight, self.bias, padding=self.padding)
        # A filter commutes with a convolution, so that only the pixels that stay are computed.
        x = _filtered(x, padding=1 + self.padding)
        return F.conv2d(x, weight, self.bias, stride=2)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Features (B, C, ...) divided by their root mean square over C (Karras et al. 2018, 4.2)."""
    return x * (x.square().mean(1, keepdim=True) + eps).rsqrt()


def minibatch_std(x: Tensor, group_size: int = 4, eps: float = 1e-8) -> Tensor:
    """Features (B, C, H, W) with a further map of how different the examples are.

    Groups are of the examples n, n + B / group_size, ...; their map is the standard deviation of
    each feature over the group, averaged over features and pixels (Karras et al. 2018, section 3).

    Raises:
        ValueError: groups do not divide the batch.
    """
    n = len(x)
    if n % group_size:
        raise ValueError(
            f"got a batch of {n} examples, which groups of {group_size} do not divide; give a "
            f"multiple of {group_size}, or build the critic with another std_group (0: no groups)"
        )
    groups = x.reshape(group_size, n // group_size, *x.shape[1:])
    variance = (groups - groups.mean(0)).square().mean(0)
    deviation = (variance + eps).sqrt().mean((1, 2, 3))
    each = deviation.repeat(group_size)[:, None, None, None]
    return torch.cat([x, each.expand(-1, 1, *x.shape[2:])], 1)


def upsample(x: Tensor) -> Tensor:
    """Features (B, C, H, W) with doubled sides: zeros between, then the filter [1, 3, 3, 1]."""
    kernel = _kernel(x, 4 / 64)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """Features (B, C, H, W) with halved sides: the filter [1, 3, 3, 1], then every second pixel."""
    return _filtered(x, padding=1, stride=2)


def _filtered(x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    kernel = _kernel(x, gain / 64)
    return F.conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])


def _kernel(x: Tensor, scale: float) -> Tensor:
    """[1, 3, 3, 1] on both axes for each channel, (C, 1, 4, 4)."""
    line = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    return (scale * torch.outer(line, line)).expand(x.shape[1], 1, 4, 4)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    demodulate: bool = True,
    up: bool = False,
    eps: float = 1e-8,
) -> Tensor:
    """Convolve each example with weights of its own: input channel i scaled by style_i.

    Demodulated, the weights of an output channel j then have norm 1, so that its deviation is that
    of the input whatever the style (Karras et al. 2020, equations 1 and 3). Scaling what goes in
    and what comes out is the same as scaling the weights, and on a CPU faster than a convolution
    in as many groups as there are examples.

    Args:
        x: (B, C, H, W).
        weight: (out_channels, C, K, K).
        style: (B, C).
        up: double the sides, as `upsample` of x does (transposed, with the filter behind; 3x3).
    Returns:
        (B, out_channels, H, W), or with 2H and 2W.
    """
    x = x * style[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = _filtered(x, padding=1, gain=4.0)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if not demodulate:
        return x
    norm = style.square() @ weight.square().sum((2, 3)).T
    return x * (norm + eps).rsqrt()[:, :, None, None]


class ModulatedConv2d(nn.Module):
    """`modulated_conv2d` with weights of its own, and a style that is an affine map of w.

    Args:
        style_dim: width of w.
        demodulate, up: see `modulated_conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style_dim: int,
        demodulate: bool = True,
        up: bool = False,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.affine = EqualisedLinear(style_dim, in_channels, bias=1.0)
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.demodulate, self.up = demodulate, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, in_channels, H, W) and w (B, style_dim) -> (B, out_channels, H, W) or doubled."""
        weight = self.weight * self.scale
        return modulated_conv2d(x, weight, self.affine(w), self.demodulate, self.up)
