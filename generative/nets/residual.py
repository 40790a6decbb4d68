"""Residual blocks of generators and critics, which double or halve the sides of feature maps.

The blocks of SAGAN and BigGAN (Zhang et al. 2019; Brock et al. 2019, figures 15 and 16).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.norms import ConditionalBatchNorm2d

__all__ = ["CriticBlock", "GeneratorBlock"]


class GeneratorBlock(nn.Module):
    """Two 3x3 convolutions behind conditional norms, between which the sides are doubled.

    (B, in, H, W) -> (B, out, 2H, 2W); beside them a 1x1 convolution, whose result is doubled: it
    commutes with repeated pixels and costs a quarter before them.

    Args:
        in_channels, out_channels: before and after.
        given_dim: width of the condition of both norms; 0 for none.
    """

    def __init__(self, in_channels: int, out_channels: int, given_dim: int = 0):
        super().__init__()
        self.norm1 = ConditionalBatchNorm2d(in_channels, given_dim)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ConditionalBatchNorm2d(out_channels, given_dim)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        h = F.interpolate(F.relu(self.norm1(x, given)), scale_factor=2)
        h = self.conv2(F.relu(self.norm2(self.conv1(h), given)))
        return h + F.interpolate(self.skip(x), scale_factor=2)


class CriticBlock(nn.Module):
    """Two 3x3 convolutions, then means of 2x2 places, without a norm.

    (B, in, H, W) -> (B, out, H/2, W/2); beside them a 1x1 convolution, or nothing where neither
    channels nor sides change.

    Args:
        in_channels, out_channels: before and after.
        halve: whether the sides are halved.
        first: the block sees an image, which has no activation before the first convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, halve: bool = True, first: bool = False
    ):
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        changes = halve or in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halve:
            return h + self.skip(x)
        # A 1x1 convolution commutes with means of places, and costs a quarter behind them.
        return F.avg_pool2d(h, 2) + self.skip(F.avg_pool2d(x, 2))
