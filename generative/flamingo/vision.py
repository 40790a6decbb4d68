"""NFNet: residual convolutions without normalisation layers, whose variance is kept by arithmetic.

Filters are standardised, activations are divided by their deviation, and what a block reads is
divided by the deviation that the blocks before it have built up (Brock et al. 2021, "High-
performance large-scale image recognition without normalization", sections 2 and 3):

    x_(l+1) = x_l + alpha f_l(x_l / beta_l),   beta_l^2 = Var(x_l),   Var(x_(l+1)) = beta_l^2 + a^2

    vision = NFNet(NFNetConfig())
    vision(images)                    # (B, C, H, W) in [0, 1] -> (B, D, h, w)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flamingo.config import NFNetConfig
from generative.nets.attention import MultiHeadAttention
from generative.training.checks import check_images
from generative.training.pretrained import Pretrained

__all__ = ["GAINS", "NFNet", "ScaledConv", "VisionTower"]

GAINS = {
    "relu": math.sqrt(2 / (1 - 1 / math.pi)),
    "gelu": 1.7015043497085571,
    "silu": 1.7881293296813965,
}
"""Factor by which each activation of normal numbers has variance 1; of ReLU in closed form, of the
others as in the authors' program."""
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class ScaledConv(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1 / fan_in at every use, times a gain.

    The gain is one learned number a filter, 1 at first (scaled weight standardisation, Brock et al.
    2021).
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(channels, width, kernel, stride, kernel // 2, groups=groups)
        self.gain = nn.Parameter(torch.ones(width, 1, 1, 1))
        # Deviation 1 / fan_in ("linear gain"); the standardisation makes any scale the same.
        nn.init.normal_(self.weight, 0, self.weight[0].numel() ** -0.5)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def standardised(self) -> Tensor:
        """The filters that are used, (width, channels / groups, kernel, kernel)."""
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        return (self.weight - mean) * (variance * fan_in).clamp_min(1e-4).rsqrt() * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H / stride, W / stride), sides rounded up."""
        return self._conv_forward(x, self.standardised(), self.bias)


class Activation(nn.Module):
    """An activation, divided by its deviation on normal numbers."""

    def __init__(self, kind: str):
        super().__init__()
        self.gain, self.function = GAINS[kind], ACTIVATIONS[kind]

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.function(x) * self.gain


class SqueezeExcite(nn.Module):
    """Weighs feature maps by what is in all of them, around 1 (Hu et al. 2018, times 2)."""

    def __init__(self, width: int, share: float):
        super().__init__()
        inner = max(1, int(width * share))
        self.squeeze, self.excite = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        weights = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return 2 * x * weights[:, :, None, None]


class Block(nn.Module):
    """Bottleneck of two 3x3 convolutions between 1x1 ones, added to a shortcut.

    Args:
        config: see `NFNetConfig`.
        channels, width: feature maps before and after.
        stride: of the block; above 1, or with another width, the shortcut is a mean over places and
            a 1x1 convolution of the activations.
        beta: deviation of what it reads.
    """

    def __init__(self, config: NFNetConfig, channels: int, width: int, stride: int, beta: float):
        super().__init__()
        self.alpha, self.beta, self.stride = config.alpha, beta, stride
        inner = max(1, int(width * config.expansion))
        groups = max(1, inner // config.group_size) if config.group_size else 1
        inner = inner // groups * groups
        self.activation = Activation(config.activation)
        self.shortcut = ScaledConv(channels, width, 1) if stride > 1 or channels != width else None
        self.convs = nn.ModuleList(
            [
                ScaledConv(channels, inner, 1),
                ScaledConv(inner, inner, 3, stride, groups),
                ScaledConv(inner, inner, 3, 1, groups),
                ScaledConv(inner, width, 1),
            ]
        )
        self.excite = SqueezeExcite(width, config.squeeze) if config.squeeze else None
        self.gain = nn.Parameter(torch.tensor(float(config.gain)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H / stride, W / stride)."""
        # The paper divides in front of the activation; its authors' program multiplies behind it,
        # which is the same for ReLU alone.
        out = self.activation(x / self.beta)
        shortcut = x
        if self.shortcut is not None:
            pooled = F.avg_pool2d(out, 2, ceil_mode=True) if self.stride > 1 else out
            shortcut = self.shortcut(pooled)
        for k, conv in enumerate(self.convs):
            out = conv(out if k == 0 else self.activation(out))
        if self.excite is not None:
            out = self.excite(out)
        return self.alpha * self.gain * out + shortcut


class NFNet(Pretrained, nn.Module):
    """Images -> grids of features.

    `NFNet(nfnet_f(0))` to F6 are the published ones without their classifier.
    """

    config_class = NFNetConfig

    def __init__(self, config: NFNetConfig | None = None):
        super().__init__()
        self.config = config = config or NFNetConfig()
        self.activation = Activation(config.activation)
        channels, stem = config.image_shape[0], []
        for width, stride in zip(config.stem, config.stem_strides, strict=True):
            stem.append(ScaledConv(channels, width, 3, stride))
            channels = width
        self.stem = nn.ModuleList(stem)
        blocks, variance = [], 1.0
        stages = zip(config.widths, config.depths, config.strides, strict=True)
        for width, depth, stage_stride in stages:
            for k in range(depth):
                stride = stage_stride if k == 0 else 1
                blocks.append(Block(config, channels, width, stride, math.sqrt(variance)))
                # Where the shortcut has a convolution of its own, its variance is 1 again.
                begins = 1.0 if blocks[-1].shortcut is not None else variance
                variance = begins + config.alpha**2
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.beta = math.sqrt(variance)
        """Deviation of the result of the blocks."""
        self.last = ScaledConv(channels, config.last, 1) if config.last else None
        self.places = None
        if config.places:
            self.places = nn.Parameter(config.places * torch.randn(config.dim, *config.grid))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> (B, D, h, w).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        x = 2 * check_images(x, self.config.image_shape, self) - 1
        for k, conv in enumerate(self.stem):
            x = conv(x if k == 0 else self.activation(x))
        for block in self.blocks:
            x = block(x)
        x = x / self.beta
        x = self.activation(x if self.last is None else self.last(x))
        return x if self.places is None else x + self.places


class VisionTower(nn.Module):
    """A vision with a vector for a whole image, by which it is trained against captions.

    The vector is what attention from the mean of the grid finds, as in CLIP's convolutional
    encoders (Radford et al. 2021, section 2.4); a mean would forget where things are.
    """

    def __init__(self, vision: NFNet, embed_dim: int, num_heads: int = 4):
        super().__init__()
        (rows, columns), dim = vision.config.grid, vision.config.dim
        self.vision = vision
        self.positions = nn.Parameter(torch.randn(1 + rows * columns, dim) * dim**-0.5)
        self.attention = MultiHeadAttention(dim, num_heads)
        self.projection = nn.Linear(dim, embed_dim, bias=False)
        nn.init.normal_(self.projection.weight, 0, dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> (B, embed_dim)."""
        places = self.vision(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positions
        return self.projection(self.attention(tokens[:, :1], tokens)[:, 0])
