"""Upsamplers: diffusion of large images that sees a small one.

    model = Upsampler.from_pretrained("runs/upsampler/model")
    large = model.sample(texts, low=small)                  # (B, 3, 12, 12) -> (B, 3, 24, 24)
    large = model.sample(texts, low=noisy, noise=0.1)       # what noise the small one has is told

The small image is raised bilinearly and joined to the noisy one as further channels. In training it
gets noise of random strength, which the network is told: a small image that another model drew has
faults of its own, and a network that was not told would copy them, or look away (Ho et al. 2022,
Saharia et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.diffusion.config import DiffusionLossConfig
from generative.diffusion.model import DiffusionLosses
from generative.nets.conditional_unet import REACH, Condition
from generative.text_to_image.config import UpsamplerConfig
from generative.text_to_image.model import LOSS, Texts, TextToImage
from generative.training.checks import check_batch, check_images, check_some

__all__ = ["Upsampler", "shrink"]


class Upsampler(TextToImage):
    """Diffusion of images (B, C, H, W) that is told small ones (B, C, H / factor, W / factor).

    Args:
        factor: of the sides.
        most_noise: largest standard deviation of the noise that small images get in training.
        arguments: see `TextToImage`.
    """

    builds: ClassVar[Mapping[str, type]] = {"Upsampler": UpsamplerConfig}

    def __init__(self, *arguments: Any, factor: int, most_noise: float, **settings: Any):
        super().__init__(*arguments, **settings)
        self.factor, self.most_noise = factor, most_noise

    @property
    def low_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a small image."""
        c, h, w = self.diffusion.shape
        return c, h // self.factor, w // self.factor

    def seen(self, images: Tensor) -> dict[str, Any]:
        """Their small form."""
        return {"low": shrink(images, self.factor)}

    def told(self, tokens: Tensor, low: Tensor, noise: Tensor | float = 0.0) -> Condition:
        """Condition of the network.

        Args:
            tokens: of captions, (B, L).
            low: small images (B, C, h, w), pixels about 0 to 1.
            noise: standard deviation of the noise that they have, one number or (B,).
        Raises:
            ValueError: small images of another shape, or not one for each caption.
        """
        check_batch(low, self.low_shape, "small images", self)
        if len(low) != len(tokens):
            raise ValueError(
                f"got {len(low)} small images and {len(tokens)} captions; give as many"
            )
        raised = F.interpolate(
            self.diffusion.normalise(low), scale_factor=float(self.factor), mode="bilinear"
        )
        noise = torch.as_tensor(noise, dtype=low.dtype, device=low.device).expand(len(low))
        level = (-2 * noise.log()).clamp(-REACH, REACH)
        return super().told(tokens)._replace(image=raised, level=level)

    def loss(
        self,
        images: Tensor,
        texts: Texts,
        config: DiffusionLossConfig = LOSS,
        generator: torch.Generator | None = None,
        low: Tensor | None = None,
    ) -> DiffusionLosses:
        """Error of the noise in images that are told their small form with noise.

        Args:
            low: the small images; averages over squares of pixels if not given.
        """
        check_images(check_some(images, self), self.diffusion.shape, self)
        low = shrink(images, self.factor) if low is None else low
        u = torch.rand(len(low), generator=generator, device=low.device, dtype=low.dtype)
        noise = self.most_noise * u
        eps = torch.randn(low.shape, generator=generator, device=low.device, dtype=low.dtype)
        noisy = low + noise[:, None, None, None] * eps
        return super().loss(images, texts, config, generator, low=noisy, noise=noise)


def shrink(images: Tensor, factor: int) -> Tensor:
    """Averages over squares of pixels, (B, C, H, W) -> (B, C, H / factor, W / factor)."""
    return F.avg_pool2d(images, factor)
