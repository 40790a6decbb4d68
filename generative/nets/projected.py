"""A critic that judges images by feature maps of a network that is not trained.

A critic that begins with pixels first has to find what images differ in, and until then its slope
leads nowhere: it adds fine patterns to an image. Features of a classifier know it, and if they were
learned from noisy images, their slope leads from one image to another (Sauer et al. 2021,
"Projected GANs converge faster").
"""

from __future__ import annotations

import copy
import math
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.equalised import minibatch_std
from generative.nets.norms import spectral_norm_
from generative.nets.perceptual import SeesMaps

__all__ = ["ProjectedCritic"]

SMALL = 4
"""Side of a map below which it is not halved further."""
GROUPS = 4
"""Groups of features that are normalised together."""


class ProjectedCritic(nn.Module):
    """A head with spectral norms for each feature map of a fixed network, and one for the pixels.

    The network is copied; it stays in evaluation mode, is not trained, and gradients reach the
    images through it. Its maps are normalised over places and groups of features: heads that can
    be no steeper than 1 would see little of faint ones. The publication mixes the maps of all
    depths by random weights; here each head sees the whole of one of them, which learns faster
    (docs/families/gan.md).

    Args:
        network: has `feature_maps`, as a convolutional `generative.classifier.Classifier` does.
        shape: (C, H, W).
        width: feature maps of a head behind its first halving; twice as many at its end.
        pixel_width: the same of the head of the pixels.
        num_classes: labels count from 0 to num_classes - 1; 0 for no labels.
        pixel_gain: factor of the pixels before their head. Heads have slopes of at most about 1,
            so this is the slope of the last; where a critic is left guessing, a larger one shows it
            fainter differences.
        source_channels: channels behind those of the image, of what the image was made from; the
            head of the pixels alone sees them.
        std_group: examples that each head compares with each other in front of its last
            convolution, see `minibatch_std`; 0 for none.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        width: int = 32,
        pixel_width: int = 16,
        num_classes: int = 0,
        pixel_gain: float = 1.0,
        source_channels: int = 0,
        std_group: int = 0,
    ):
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.num_classes, self.channels, self.pixel_gain = num_classes, shape[0], pixel_gain
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, shape[0] + source_channels, *shape[1:]))
        widths = [width] * (len(maps) - 1) + [pixel_width]
        self.heads = nn.ModuleList(
            spectral_norm_(_Head(tuple(m.shape[1:]), first, 2 * width, num_classes, std_group))
            for m, first in zip(maps, widths, strict=True)
        )

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], joined with their sources if there are any, and labels
        (B,) if there are any -> (B, heads); the last head sees the pixels."""
        return self.head(self.features(x), labels)

    def features(self, x: Tensor) -> Tensor:
        """Last feature maps of all heads, one behind the other: images as above -> (B, F)."""
        maps = self._maps(x)
        return torch.cat(
            [h.layers(m).flatten(1) for h, m in zip(self._heads, maps, strict=True)], 1
        )

    def head(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Heights (B, heads) by `features`."""
        given = None
        if labels is not None:
            given = F.one_hot(labels, self.num_classes).to(features)
        parts = features.split([h.out.in_features for h in self._heads], 1)
        return torch.stack([h(part, given) for h, part in zip(self._heads, parts, strict=True)], 1)

    @property
    def _heads(self) -> list[_Head]:
        return cast("list[_Head]", list(self.heads))

    def _maps(self, x: Tensor) -> list[Tensor]:
        network: SeesMaps = self.network  # type: ignore[assignment]
        maps = network.feature_maps((x[:, : self.channels] + 1) / 2)
        seen = [F.group_norm(m, math.gcd(GROUPS, m.shape[1])) for m in maps]
        return [*seen, self.pixel_gain * x]


class _Head(nn.Module):
    """Layers from a map (B, C, H, W) to features, and from these and labels, one-hot or none, to
    (B,)."""

    def __init__(
        self, shape: tuple[int, ...], width: int, last: int, num_classes: int, std_group: int
    ):
        super().__init__()
        channels, h, w = shape
        self.layers = nn.Sequential()
        while min(h, w) > SMALL:
            self.layers.extend([nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)])
            channels, width, h, w = width, min(2 * width, last), h // 2, w // 2
        if std_group:
            self.layers.append(_Compared(std_group))
            channels += 1
        self.layers.extend([nn.Conv2d(channels, last, 3, padding=1), nn.LeakyReLU(0.2)])
        self.out = nn.Linear(last * h * w, 1)
        # A vector of each label, whose product with the features is added (Miyato & Koyama 2018).
        self.of_label = nn.Linear(last * h * w, num_classes, bias=False) if num_classes else None

    def forward(self, features: Tensor, given: Tensor | None) -> Tensor:
        height = self.out(features)[:, 0]
        if self.of_label is None or given is None:
            return height
        return height + (self.of_label(features) * given).sum(1)


class _Compared(nn.Module):
    def __init__(self, group_size: int):
        super().__init__()
        self.group_size = group_size

    def forward(self, h: Tensor) -> Tensor:
        return minibatch_std(h, self.group_size)
