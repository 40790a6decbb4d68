"""ControlNet: a trained model stays as it is and is told a further image, such as edges.

    model = ControlNet.around(TextToImage.from_pretrained(folder), hint_channels=1)
    images = model.sample(texts, hint=edges)                # (B, 1, H, W)
    images = model.sample(texts, hint=edges, strength=0.5)  # 0: the model that stayed

A copy of the U-Net's way down and middle reads the further image and adds what it finds to the
skips and the middle of the locked one. What joins the two are 1x1 convolutions of zeros, so that
before training there is no effect at all (Zhang et al. 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.diffusion.model import Diffusion
from generative.nets.conditional_unet import Condition, ConditionalUNet, Encoded
from generative.nets.init import zero_
from generative.text_to_image.config import (
    ControlNetConfig,
    GLIDEConfig,
    LatentDiffusionConfig,
)
from generative.text_to_image.model import TextToImage
from generative.training.checks import check_batch

__all__ = ["ControlNet", "Controlled", "ControlledUNet", "edges"]

PUBLISHED = (16, 32, 96, 256)
"""Feature maps of the published reader of hints, before each halving but the last."""


class Controlled(NamedTuple):
    """Condition of a controlled U-Net."""

    told: Condition
    hint: Tensor
    """Further image, (B, C, H, W)."""
    strength: float = 1.0
    """Factor of what the copy adds."""


class HintEncoder(nn.Module):
    """3x3 convolutions with SiLU, halving the sides down to those of the U-Net's first places, then
    a convolution of zeros.

    Args:
        channels: of the hint.
        width: of the result.
        halvings: log2 of the hint's sides over those of the first places.
        widths: feature maps of the convolutions, the first before any halving.
    """

    def __init__(self, channels: int, width: int, halvings: int, widths: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.SiLU()]
        before = widths[0]
        for i in range(halvings):
            after = widths[min(i + 1, len(widths) - 1)]
            layers += [nn.Conv2d(before, before, 3, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.SiLU()]
            before = after
        self.layers = nn.Sequential(*layers, zero_(nn.Conv2d(before, width, 3, padding=1)))

    def forward(self, hint: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, h, w)."""
        return self.layers(hint)


class ControlledUNet(nn.Module):
    """A locked U-Net and a trained copy of its way down and middle.

    Args:
        base: the U-Net, whose weights stay.
        hint: reader of the further image, which gives feature maps of the width of `base.stem`.
    """

    def __init__(self, base: ConditionalUNet, hint: nn.Module):
        super().__init__()
        self.base, self.hint = base.requires_grad_(False), hint
        self.copied = copy.deepcopy(base).requires_grad_(True)
        # The way up is the locked one's alone.
        del self.copied.up, self.copied.last_norm, self.copied.last
        self.outs = nn.ModuleList(zero_(nn.Conv2d(n, n, 1)) for n in base.skip_channels)
        self.middle_out = zero_(nn.Conv2d(base.middle_channels, base.middle_channels, 1))

    def forward(self, x: Tensor, log_snr: Tensor, controlled: Controlled) -> Tensor:
        """x_t (B, C, H, W) and log_snr (B,) -> what the U-Net gives."""
        told, hint, strength = controlled
        base, copied = self.base, self.copied
        embedding = base.embed(log_snr, told)
        locked = base.encode(base.start(x, told), embedding, told)
        own = copied.embed(log_snr, told)
        found = copied.encode(copied.start(x, told) + self.hint(hint), own, told)
        skips = [
            skip + strength * out(added)
            for skip, out, added in zip(locked.skips, self.outs, found.skips, strict=True)
        ]
        middle = locked.middle + strength * self.middle_out(found.middle)
        return base.decode(Encoded(middle, skips), embedding, told)


class ControlNet(TextToImage):
    """A trained text-to-image model that is told a further image, (B, hint_channels, H, W).

    Args:
        base: the model that stays; its U-Net becomes the locked one.
        hint_channels: of the further image.
        widths: feature maps of its reader.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ControlNet": ControlNetConfig}

    def __init__(
        self,
        base: TextToImage,
        hint_channels: int = 1,
        widths: tuple[int, ...] = PUBLISHED,
        config: ControlNetConfig | None = None,
    ):
        of, network = base.diffusion, base.diffusion.network
        assert isinstance(network, ConditionalUNet)
        autoencoder = base.autoencoder
        image_shape = of.shape if autoencoder is None else autoencoder.image_shape
        places = of.shape[1] // network.config.patch
        reader = HintEncoder(
            hint_channels, network.config.width, round(math.log2(image_shape[1] / places)), widths
        )
        diffusion = Diffusion(
            ControlledUNet(network, reader), of.shape, of.schedule.config, of.prediction, of.steps,
            levels=of.levels,
        )  # fmt: skip
        if of.levels is not None:
            diffusion.mean.copy_(of.mean)
            diffusion.std.copy_(of.std)
        frozen = ("text",) if autoencoder is None else ("text", "autoencoder")
        super().__init__(
            diffusion, base.text, base.words, autoencoder=autoencoder, frozen=frozen,
            scale=base.scale, interval=base.interval, spelled=base.spelled, config=config,
        )  # fmt: skip
        if autoencoder is not None:
            self.latent_std.copy_(base.latent_std)
        self.hint_shape = (hint_channels, *image_shape[1:])

    @classmethod
    def around(
        cls, base: TextToImage, hint_channels: int = 1, widths: tuple[int, ...] = PUBLISHED
    ) -> ControlNet:
        """A ControlNet around a trained model, which has no effect yet.

        Raises:
            ValueError: it is another model, or was put together by hand.
        """
        known = GLIDEConfig, LatentDiffusionConfig
        if type(base) is not TextToImage or not isinstance(base.config, known):
            raise ValueError(
                f"got {type(base).__name__} with a {type(base.config).__name__}; pass a GLIDE or a "
                "latent diffusion model that was built by its config"
            )
        config = ControlNetConfig(base.config, hint_channels, widths)
        return cls(base, hint_channels, widths, config)

    def seen(self, images: Tensor) -> dict[str, Any]:
        """Their edges, where hints have one channel."""
        return {"hint": edges(images)} if self.hint_shape[0] == 1 else {}

    def told(self, tokens: Tensor, hint: Tensor, strength: float = 1.0) -> Any:
        """Condition of the network.

        Args:
            tokens: of captions, (B, L).
            hint: further images (B, hint_channels, H, W).
            strength: factor of what they add; 0 for the model that stayed.
        Raises:
            ValueError: hints of another shape, or not one for each caption.
        """
        check_batch(hint, self.hint_shape, "hints", self)
        if len(hint) != len(tokens):
            raise ValueError(f"got {len(hint)} hints and {len(tokens)} captions; give as many")
        return Controlled(super().told(tokens), hint, strength)


def edges(images: Tensor, threshold: float = 0.1) -> Tensor:
    """Edges of images (B, C, H, W) in [0, 1], 1 where a neighbour differs, (B, 1, H, W).

    Args:
        threshold: least difference of any channel to the pixel on the right or below.
    """
    padded = F.pad(images, (0, 1, 0, 1), mode="replicate")
    right = (padded[..., :-1, 1:] - images).abs()
    below = (padded[..., 1:, :-1] - images).abs()
    return (torch.maximum(right, below).amax(1, keepdim=True) > threshold).to(images)
