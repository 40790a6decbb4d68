"""Flows on images whose pixels have few levels: noise on them, and bounds of the likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flow.chain import standard_normal_log_prob
from generative.flow.config import GlowConfig, ImageRealNVPConfig
from generative.training.checks import (
    check_images,
    check_some,
    check_vectors,
    checked,
    placed,
    to_levels,
)
from generative.training.gradients import graph_if_wanted
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, NonNegative

__all__ = ["Dequantiser", "ImageFlow", "ImageFlowLosses", "RealFlow", "bits_per_dim"]


class ImageFlowLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of the image with noise, nats."""
    bits_per_dim: Tensor
    """The same in bits per number, the unit of the papers."""


@dataclass(frozen=True)
class Dequantiser:
    """Images of few levels as points that have a density, and back.

    A pixel of level l gets uniform noise, y = (l + u) / levels, so that the images have a density
    and no flow can win by putting spikes on the levels (Theis et al. 2016, section 3.1). E log p of
    the noisy image is then a lower bound of the log probability of the image.

    Args:
        levels: values a pixel can have.
        margin: 0 for v = y - 1/2, else v = logit(margin + (1 - 2 margin) y), which takes pixels
            off the edges of their range (Dinh et al. 2017, section 4.1).
    """

    levels: int
    margin: float

    def noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> (level + uniform noise) / levels, in [0, 1).

        Raises:
            ValueError: pixels that are no levels.
        """
        level = to_levels(x, self.levels)
        u = torch.rand(level.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (level + u) / self.levels

    def centred(self, x: Tensor) -> Tensor:
        """The same without chance: every pixel in the middle of its level."""
        return (to_levels(x, self.levels) + 0.5) / self.levels

    def squash(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y in (0, 1) -> v, and log |det| (B,) of the way from level + noise to v."""
        per_level = -math.log(self.levels)
        if not self.margin:
            v = y - 0.5
            return v, y.new_full((len(y),), per_level * math.prod(y.shape[1:]))
        v = torch.logit(self.margin + (1 - 2 * self.margin) * y)
        # dv/dy = (1 - 2 margin) / (p (1 - p)) with p = sigmoid(v).
        log_slope = math.log1p(-2 * self.margin) - F.logsigmoid(v) - F.logsigmoid(-v)
        return v, (log_slope + per_level).flatten(1).sum(1)

    def images(self, v: Tensor) -> Tensor:
        """v (B, C, H, W) -> images in [0, 1] whose pixels are levels."""
        y = (v.sigmoid() - self.margin) / (1 - 2 * self.margin) if self.margin else v + 0.5
        level = (y * self.levels).floor().clamp(0, self.levels - 1)
        return level / (self.levels - 1)


class RealFlow(Protocol):
    """A flow on real-valued images (B, C, H, W), such as a `Chain` or a `MultiScale`."""

    def encode_log_det(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """Images -> z (B, C*H*W) and log |det dz/dx| (B,)."""
        ...

    def encode(self, x: Tensor, /) -> Tensor:
        """Images -> z (B, C*H*W)."""
        ...

    def decode(self, z: Tensor, /) -> Tensor:
        """The inverse."""
        ...

    def initialise(self, x: Tensor, /) -> None:
        """Set what depends on a first batch."""
        ...


class ImageFlow(Pretrained, nn.Module):
    """Flow on images (B, C, H, W) in [0, 1] whose pixels have few levels.

    `ImageRealNVPConfig().build()` and `GlowConfig().build()` are models whose config is saved with
    them. One that is put together by hand is saved by its weights: put it together again and call
    `load_weights(folder)`.

    Args:
        flow: of real-valued images; see `RealFlow`.
        dequantiser: from images to these and back.
        shape: (C, H, W).
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "ImageRealNVP": ImageRealNVPConfig,
        "Glow": GlowConfig,
    }
    renamed: ClassVar[Mapping[str, str]] = {"scales.": "flow.scales.", "splits.": "flow.splits."}

    def __init__(
        self,
        flow: RealFlow,
        dequantiser: Dequantiser,
        shape: tuple[int, ...],
        config: ImageRealNVPConfig | GlowConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape, self.dim = config, shape, math.prod(shape)
        self.flow, self.dequantiser = flow, dequantiser

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> ImageFlowLosses:
        """Mean negative log-likelihood of images (B, C, H, W), with fresh noise."""
        x = check_some(self._check(x), self)
        nats = -self._noisy_log_prob(self.dequantiser.noisy(x, generator)).mean()
        return ImageFlowLosses(nats, nats.detach() / (math.log(2) * self.dim))

    @graph_if_wanted
    @checked
    def bound(
        self, x: Tensor, num_draws: Count = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability of each image, (B, C, H, W) -> (B,), nats.

        The average of log p over `num_draws` draws of the noise. Divide by -log(2) * C * H * W for
        bits per dimension.
        """
        x = self._check(x)
        noisy = (self.dequantiser.noisy(x, generator) for _ in range(num_draws))
        return torch.stack([self._noisy_log_prob(y) for y in noisy]).mean(0)

    def encode(self, x: Tensor) -> Tensor:
        """Images -> z (B, C*H*W), every pixel taken in the middle of its level."""
        v, _ = self.dequantiser.squash(self.dequantiser.centred(self._check(x)))
        return self.flow.encode(v)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, C*H*W) -> images whose pixels are levels; of the z of an image, that image."""
        z = check_vectors(z, self.dim, "z", self)
        return self.dequantiser.images(self.flow.decode(z))

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
    ) -> Tensor:
        """n images (n, C, H, W): `decode` of z of standard deviation `temperature`.

        Below 1 samples are more usual and less varied (Kingma & Dhariwal 2018 show 0.7).
        """
        z = torch.randn(n, self.dim, generator=generator, **placed(self))
        return self.decode(temperature * z)

    def initialise(self, x: Tensor) -> None:
        """Set every `ActNorm` from a first batch of images, in which it then has mean 0 and
        deviation 1."""
        v, _ = self.dequantiser.squash(self.dequantiser.noisy(self._check(x)))
        self.flow.initialise(v)

    def _check(self, x: Tensor) -> Tensor:
        return check_images(x, self.shape, self)

    def _noisy_log_prob(self, y: Tensor) -> Tensor:
        """log density of level + noise, given y = (level + noise) / levels; (B,), nats."""
        v, log_det = self.dequantiser.squash(y)
        z, part = self.flow.encode_log_det(v)
        return standard_normal_log_prob(z) + log_det + part


@torch.no_grad()
def bits_per_dim(
    flow: ImageFlow,
    x: Tensor,
    num_draws: int = 16,
    generator: torch.Generator | None = None,
    batch_size: int = 250,
) -> float:
    """Mean bits per number of images (N, C, H, W), an upper bound by `ImageFlow.bound`.

    Args:
        flow: on any device.
        x: the images.
        num_draws: draws of the noise for each.
        generator: of the noise, on the flow's device.
        batch_size: images at a time.
    """
    device = next(flow.parameters()).device
    nats = [flow.bound(part.to(device), num_draws, generator) for part in x.split(batch_size)]
    return -float(torch.cat(nats).mean()) / math.log(2) / flow.dim
