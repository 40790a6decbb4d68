"""Distance of images by what a fixed network sees in them.

    distance = PerceptualDistance(classifier)       # a trained classifier
    distance(recon, x).mean()                       # beside, or in place of, an error of pixels

An error of pixels is least for a blur; features of edges and textures tell it from the image
(Johnson et al. 2016; Zhang et al. 2018). The network is a classifier of the same data.
"""

from __future__ import annotations

import copy
from typing import Protocol, Self

import torch
from torch import Tensor, nn

__all__ = ["PerceptualDistance", "SeesMaps"]


class SeesMaps(Protocol):
    """A network that gives its feature maps."""

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> maps (B, C_i, H_i, W_i), from the image on."""
        ...


class PerceptualDistance(nn.Module):
    """Mean squared difference of feature maps whose vectors have length 1.

    mean over depths and places of |u - v|^2 with u = f / |f| over the channels: twice one minus the
    cosine, from 0 to 4 (Zhang et al. 2018, equation 1, with equal weights).

    It holds a copy of the network, which stays in evaluation mode and is not trained; gradients
    reach the images.

    Args:
        network: has `feature_maps`, as a convolutional `generative.classifier.Classifier`
            does.
        eps: added to squared lengths. A place where a map is 0 counts as the vector 0.
    """

    def __init__(self, network: nn.Module, eps: float = 1e-10):
        super().__init__()
        self.network, self.eps = copy.deepcopy(network).eval().requires_grad_(False), eps

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images in [0, 1], two of (B, C, H, W) -> their distances (B,)."""
        maps = zip(self._unit_maps(x), self._unit_maps(y), strict=True)
        return torch.stack([(u - v).square().sum(1).mean((1, 2)) for u, v in maps]).mean(0)

    def _unit_maps(self, x: Tensor) -> list[Tensor]:
        network: SeesMaps = self.network  # type: ignore[assignment]
        return [
            f / (f.square().sum(1, keepdim=True) + self.eps).sqrt() for f in network.feature_maps(x)
        ]
