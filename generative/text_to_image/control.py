"""ControlNet: a trained model stays as it is and is told a further image: edges, or a palette.

    model = ControlNet.around(TextToImage.from_pretrained(folder))
    images = model.sample(texts, hint=edges)                # (B, 1, H, W)
    images = model.sample(texts, hint=edges, strength=0.5)  # 0: the model that stayed

    model = ControlNet.around(TextToImage.from_pretrained(folder), hint="palette", block=4)
    images = model.sample(texts, **model.seen(x))           # colours of squares of 4x4 pixels of x

A copy of the U-Net's way down and middle reads the further image and adds what it finds to the
skips and the middle of the locked one. What joins the two are 1x1 convolutions of zeros, so that
before training there is no effect at all (Zhang et al. 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

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
from generative.text_to_image.model import TextToImage, mixed
from generative.training.checks import check_batch

__all__ = ["ControlNet", "Controlled", "ControlledUNet", "Hint", "edges", "palette"]

Hint: TypeAlias = Literal["edges", "palette", "other"]
"""Kind of a further image; see `ControlNetConfig.hint`."""

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
        config: the recipe of the model, if it has one; it tells what `seen` makes of images. A
            model without is told edges if hints have one channel, else what is given.
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
            levels=of.levels, sigma_data=of.sigma_data,
        )  # fmt: skip
        if of.levels is not None:
            diffusion.mean.copy_(of.mean)
            diffusion.std.copy_(of.std)
        frozen = ("text",) if autoencoder is None else ("text", "autoencoder")
        super().__init__(
            diffusion, base.text, base.words, autoencoder=autoencoder, frozen=frozen,
            scale=base.scale, interval=base.interval, spelled=base.spelled, pooled=base.pooled,
            config=config,
        )  # fmt: skip
        if autoencoder is not None:
            self.latent_std.copy_(base.latent_std)
        self.hint_shape = (hint_channels, *image_shape[1:])

    @classmethod
    def around(
        cls,
        base: TextToImage,
        hint_channels: int | None = None,
        widths: tuple[int, ...] = PUBLISHED,
        hint: Hint | None = None,
        block: int = 8,
    ) -> ControlNet:
        """A ControlNet around a trained model, which has no effect yet.

        Args:
            hint_channels: of the further images; 1 if not given, of a palette those of images.
            hint: what the further images are; edges if not given and they have one channel, else
                other ones.
            block: of a palette, pixels on a side of a block.
        Raises:
            ValueError: it is another model, was put together by hand, or hints of this kind have
                another number of channels.
        """
        known = GLIDEConfig, LatentDiffusionConfig
        if type(base) is not TextToImage or not isinstance(base.config, known):
            raise ValueError(
                f"got {type(base).__name__} with a {type(base.config).__name__}; pass a GLIDE or a "
                "latent diffusion model that was built by its config"
            )
        if hint_channels is None:
            hint_channels = base.config.image_shape[0] if hint == "palette" else 1
        if hint is None:
            hint = "edges" if hint_channels == 1 else "other"
        config = ControlNetConfig(base.config, hint_channels, widths, hint, block)
        return cls(base, hint_channels, widths, config)

    @property
    def hint(self) -> Hint:
        """Kind of the further images."""
        if isinstance(self.config, ControlNetConfig):
            return self.config.hint
        return "edges" if self.hint_shape[0] == 1 else "other"

    def seen(self, images: Tensor) -> dict[str, Any]:
        """Their edges or palette; nothing where hints are of another kind."""
        if self.hint == "palette":
            return {"hint": palette(images, self.config.block)}
        return {"hint": edges(images)} if self.hint == "edges" else {}

    def told(self, tokens: Tensor, hint: Tensor | None = None, strength: float = 1.0) -> Any:
        """Condition of the network.

        Args:
            tokens: of captions, (B, L).
            hint: further images (B, hint_channels, H, W).
            strength: factor of what they add; 0 for the model that stayed.
        Raises:
            ValueError: there are no hints, they have another shape, or are not one for each
                caption.
        """
        hint = self._hints(hint, len(tokens))
        return Controlled(super().told(tokens), hint, strength)

    def between(
        self,
        first: str,
        last: str,
        weight: Tensor,
        hint: Tensor | None = None,
        strength: float = 1.0,
    ) -> Any:
        """Condition on the way from one caption to another, with a hint for each image."""
        hint, ends = self._hints(hint, len(weight)), super().told(self.tokens([first, last]))
        return Controlled(mixed(ends, weight), hint, strength)

    def _hints(self, hint: Tensor | None, num: int) -> Tensor:
        if hint is None:
            made = "" if self.hint == "other" else f"; **model.seen(images) gives the {self.hint}"
            raise ValueError(
                "a ControlNet draws by a further image, and got no hint; pass hint with one "
                f"{tuple(self.hint_shape)} for each picture{made}"
            )
        check_batch(hint, self.hint_shape, "hints", self)
        if len(hint) != num:
            raise ValueError(f"got {len(hint)} hints and {num} captions; give as many")
        return hint


def edges(images: Tensor, threshold: float = 0.1) -> Tensor:
    """Edges of images (B, C, H, W) in [0, 1], 1 where a neighbour differs, (B, 1, H, W).

    Args:
        threshold: least difference of any channel to the pixel on the right or below.
    """
    padded = F.pad(images, (0, 1, 0, 1), mode="replicate")
    right = (padded[..., :-1, 1:] - images).abs()
    below = (padded[..., 1:, :-1] - images).abs()
    return (torch.maximum(right, below).amax(1, keepdim=True) > threshold).to(images)


def palette(images: Tensor, block: int = 8) -> Tensor:
    """Colours of the blocks of images (B, C, H, W) in [0, 1], of the same shape.

    The colour of a block is the mean of its pixels, each weighted by its largest channel. So a
    black ground takes no part, and no mean is darker where less of the block is coloured: a plain
    mean would tell shapes by their areas. A black block is black.

    Args:
        block: pixels on a side of a block.
    Raises:
        ValueError: it does not divide the sides.
    """
    *_, h, w = images.shape
    if h % block or w % block:
        raise ValueError(
            f"block is {block}, and images have sides of {h} and {w} pixels; give a number that "
            "divides both"
        )
    weight = images.amax(1, keepdim=True)
    mean = F.avg_pool2d(images * weight, block) / F.avg_pool2d(weight, block).clamp(min=1e-12)
    return F.interpolate(mean, scale_factor=float(block), mode="nearest")
