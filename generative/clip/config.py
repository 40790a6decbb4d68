"""Settings of CLIP and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from generative.nets.config import BlockConfig, TextEncoderConfig, ViTConfig, clip_block
from generative.training.config import MuonConfig
from generative.training.ranges import Checked, NonNegative, Positive, Size, Widths

if TYPE_CHECKING:
    from generative.clip.model import CLIP

__all__ = [
    "BlockConfig",
    "CLIPConfig",
    "CLIPLossConfig",
    "ConvImageConfig",
    "TextEncoderConfig",
    "ViTConfig",
    "clip_block",
    "clip_vit",
]


def clip_vit(
    image_shape: tuple[int, int, int] = (3, 24, 24),
    patch: int = 8,
    num_layers: int = 2,
    dim: int = 64,
    num_heads: int = 2,
) -> ViTConfig:
    """CLIP's image encoder: class token, a norm before the blocks, no bias on patches."""
    block = clip_block(dim, num_heads)
    return ViTConfig(image_shape, patch, num_layers, block, True, True, patch_bias=False)


@dataclass(frozen=True)
class ConvImageConfig(Checked):
    """Convolutions of stride 2, and attention that gathers their places."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); H and W are halved by every one of the channels."""
    channels: Widths = (32, 64, 96)
    """Feature maps of the convolutions; all but the first are multiples of 8."""
    num_heads: Size = 4
    """Heads of the attention, which divide the last of the channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fold = 2 ** len(self.channels)
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {len(self.channels)} convolutions of stride 2 "
                f"need a height and width that {fold} divides"
            )
        if any(width % 8 for width in self.channels) or self.channels[-1] % self.num_heads:
            raise ValueError(
                f"channels are {self.channels} with {self.num_heads} heads; give multiples of 8, "
                "and heads that divide the last"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of what is gathered."""
        fold = 2 ** len(self.channels)
        return self.image_shape[1] // fold, self.image_shape[2] // fold


@dataclass(frozen=True)
class CLIPConfig(Checked):
    """An image encoder and a text encoder of one space; the default is a small one."""

    image: ViTConfig | ConvImageConfig = field(default_factory=clip_vit)
    """Encoder of images."""
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    """Encoder of captions."""
    embed_dim: Size = 64
    """Numbers of an embedding."""
    objective: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: which caption of the batch is this image's, and which image is this caption's
    (CLIP). sigmoid: does this caption fit this image, for each pair by itself (SigLIP)."""
    scale: Positive = 1 / 0.07
    """Initial factor of cosines, which is learnt (SigLIP begins at 10)."""
    most: Positive = 100.0
    """Largest such factor."""

    def build(self) -> CLIP:
        """Both encoders with their projections."""
        from generative.clip.model import CLIP
        from generative.clip.networks import ConvImageEncoder, TextTower, ViTImageEncoder

        image = (
            ViTImageEncoder(self.image, self.embed_dim)
            if isinstance(self.image, ViTConfig)
            else ConvImageEncoder(self.image, self.embed_dim)
        )
        text = TextTower(self.text, self.embed_dim)
        return CLIP(
            image, text, self.image.image_shape, self.objective, self.scale, self.most, config=self
        )


@dataclass(frozen=True)
class CLIPLossConfig(MuonConfig):
    """Training settings of CLIP: AdamW or Muon on both directions of the contrast."""

    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of matrices (the publication: 0.2)."""
