"""A critic that judges every patch of an image by itself.

    critic = PatchCritic(channels=3)                # patches of 34x34 pixels
    heights = critic(x)                             # (B, 3, 64, 64) -> (B, 14, 14)

It looks at texture and edges more than at the whole, which is what blurred images lack (PatchGAN;
Isola et al. 2017, section 3.2.2).
"""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor, nn

from generative.nets.init import normal_

__all__ = ["PatchCritic", "patch_grid"]


class PatchCritic(nn.Module):
    """Images (B, C, H, W) -> heights of their patches (B, h, w), higher for real ones.

    A height is the logit of "real" to a GAN. 663,361 parameters at the defaults with 3 channels;
    with three levels 2,765,633 and patches of 70x70 pixels, the publication's.

    Args:
        channels: of the images; of a pair, those of both.
        width: feature maps of the first convolution; each further one has twice as many, at most
            eight times.
        num_levels: convolutions of stride 2. Neighbouring patches are 2 ** num_levels pixels apart.
        norm: what normalises between the convolutions: batch norm, instance norm without weights
            (CycleGAN), or nothing, which a penalty on slopes needs.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        num_levels: int = 2,
        norm: Literal["batch", "instance", "none"] = "batch",
    ):
        super().__init__()
        self.num_levels = num_levels
        widths = [width * min(2**i, 8) for i in range(num_levels + 1)]
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2))
        for i, (before, after) in enumerate(itertools.pairwise(widths), 2):
            stride = 2 if i <= num_levels else 1
            self.layers.append(nn.Conv2d(before, after, 4, stride, 1, bias=norm != "batch"))
            if norm == "batch":
                self.layers.append(nn.BatchNorm2d(after))
            elif norm == "instance":
                self.layers.append(nn.InstanceNorm2d(after))
            self.layers.append(nn.LeakyReLU(0.2))
        self.layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        normal_(self)

    @property
    def patch_side(self) -> int:
        """Pixels on a side of the patch that a height depends on (without instance norm)."""
        side = 7  # of the two convolutions of stride 1
        for _ in range(self.num_levels):
            side = 2 * side + 2
        return side

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> heights (B, h, w).

        Raises:
            ValueError: images too small for a single patch.
        """
        patch_grid((x.shape[-2], x.shape[-1]), self.num_levels)
        return self.layers(x).squeeze(1)


def patch_grid(sides: tuple[int, int], num_levels: int) -> tuple[int, int]:
    """Rows and columns of heights that a `PatchCritic` gives images of these sides (H, W).

    Raises:
        ValueError: there would be none.
    """
    rows, columns = (int(side) // 2**num_levels - 2 for side in sides)
    if min(rows, columns) < 1:
        raise ValueError(
            f"images of {sides[0]}x{sides[1]} leave no patch behind {num_levels} convolutions of "
            f"stride 2; give sides of at least {3 * 2**num_levels}, or fewer levels"
        )
    return rows, columns
