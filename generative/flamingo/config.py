"""Settings of Flamingo: its vision, its resampler, its gated layers, and of their training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from generative.text.config import GPTConfig, TextLossConfig, gpt2_block
from generative.training.ranges import (
    Checked,
    CountOrZero,
    Depth,
    Length,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
    SizeOrZero,
    Widths,
)

if TYPE_CHECKING:
    from generative.flamingo.model import Flamingo

__all__ = [
    "FlamingoConfig",
    "FlamingoLossConfig",
    "GPTConfig",
    "NFNetConfig",
    "ResamplerConfig",
    "flamingo_of",
    "nfnet_f",
]

Strides = Annotated[tuple[Annotated[int, Range(1, 2)], ...], Length(1, 16)]


@dataclass(frozen=True)
class NFNetConfig(Checked):
    """A residual network of convolutions without normalisation (Brock et al. 2021); a small one."""

    image_shape: tuple[Size, Size, Size] = (3, 24, 24)
    """(C, H, W)."""
    stem: Widths = (16,)
    """Feature maps of the first convolutions."""
    stem_strides: Strides = (1,)
    """Stride of each of them."""
    widths: Widths = (32, 64, 64)
    """Feature maps of each stage."""
    depths: Widths = (1, 1, 1)
    """Blocks of each stage."""
    strides: Strides = (2, 2, 2)
    """Stride of the first block of each stage."""
    expansion: Positive = 0.5
    """Width inside a block, as a share of the block's."""
    group_size: SizeOrZero = 0
    """Feature maps that a 3x3 convolution reads together; 0 for all."""
    squeeze: Share = 0.5
    """Width of the squeeze that weighs a block's feature maps, as a share of them; 0 for none."""
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    """Activation, divided by its deviation on normal numbers."""
    alpha: Positive = 0.2
    """Factor of what a block adds; the variance grows by its square in every block."""
    gain: NonNegative = 0.0
    """First value of the learned factor of what a block adds; 0 begins with the shortcuts alone
    (SkipInit), 1 is what the predicted variances are for."""
    last: SizeOrZero = 0
    """Feature maps of a last 1x1 convolution; 0 for none."""
    places: NonNegative = 0.0
    """Deviation of the first values of a learned vector that is added to each place of the result;
    0 for none, as published. Features tell of their place by the zeros around the image alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.widths) == len(self.depths) == len(self.strides):
            raise ValueError(
                f"widths, depths and strides are of {len(self.widths)}, {len(self.depths)} and "
                f"{len(self.strides)} stages; give as many of each"
            )
        if len(self.stem) != len(self.stem_strides):
            raise ValueError(
                f"stem has {len(self.stem)} convolutions and {len(self.stem_strides)} strides; "
                "give as many"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older networks have no vectors of places."""
        return {"places": 0.0, **settings}

    @property
    def dim(self) -> int:
        """Feature maps of the result."""
        return self.last or self.widths[-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        sides = self.image_shape[1:]
        for stride in (*self.stem_strides, *self.strides):
            sides = tuple(-(-side // stride) for side in sides)
        rows, columns = sides
        return rows, columns


def nfnet_f(k: int = 6, side: int = 480) -> NFNetConfig:
    """NFNet-F0 to F6 as published, without the classifier; F6 is Flamingo's.

    Args:
        k: 0 to 6; the depth grows with k + 1.
        side: side of the images.
    """
    if not 0 <= k <= 6:
        raise ValueError(f"k is {k}; the networks are F0 to F6")
    return NFNetConfig(
        (3, side, side), (16, 32, 64, 128), (2, 1, 1, 2), (256, 512, 1536, 1536),
        tuple(depth * (k + 1) for depth in (1, 2, 6, 3)), (1, 2, 2, 2), group_size=128, last=3072,
    )  # fmt: skip


@dataclass(frozen=True)
class ResamplerConfig(Checked):
    """A Perceiver resampler: learned vectors that gather what is in any number of frames."""

    num_latents: Size = 9
    """Vectors that stand for an image or a film (published: 64)."""
    num_layers: Depth = 1
    """Layers (published: 6)."""
    num_heads: Size = 4
    """Attention heads."""
    key_dim: SizeOrZero = 0
    """Width of each head's keys; 0 for the width of the latents by the number of heads."""
    max_frames: Size = 8
    """Frames that have a vector of time; those of a longer film are refused."""
    latent_dim: SizeOrZero = 0
    """Width of the vectors, to which a linear map brings the features first (published: 1,536); 0
    for that of the features, without a map."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older resamplers are as wide as their features."""
        return {"latent_dim": 0, **settings}


@dataclass(frozen=True)
class FlamingoConfig(Checked):
    """A frozen GPT and a frozen vision, joined by a resampler and gated layers; a small one."""

    language: GPTConfig = field(
        default_factory=lambda: GPTConfig(
            100, 96, 3, replace(gpt2_block(64, 4, dropout=0.0), rotary=True, shift=3), tied=True,
            init="normal",
        )
    )  # fmt: skip
    """The GPT. With rotary places it finds what followed the same words before, and by the shift
    of its blocks it knows which words stand together."""
    vision: NFNetConfig = field(default_factory=lambda: NFNetConfig(places=0.7))
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    every: Size = 1
    """A gated layer stands in front of every so many blocks (published: 1, 4 or 7)."""
    num_heads: Size = 4
    """Heads of the gated layers' attention."""
    key_dim: SizeOrZero = 0
    """Width of each of their heads; 0 for the GPT's width by the number of heads."""
    image_token: Annotated[int, Range(2, 2**20)] = 2
    """Token that stands for an image."""
    chunk_token: Annotated[int, Range(2, 2**20)] = 3
    """Token that ends a chunk: what follows sees no image until the next one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tokens = self.image_token, self.chunk_token
        if max(tokens) >= self.language.vocab_size or tokens[0] == tokens[1]:
            raise ValueError(
                f"image_token and chunk_token are {tokens}; give two different ones below the "
                f"GPT's {self.language.vocab_size} tokens"
            )

    def build(self) -> Flamingo:
        """GPT, vision, resampler and gated layers."""
        from generative.flamingo.model import Flamingo
        from generative.flamingo.vision import NFNet
        from generative.text.gpt import GPT

        return Flamingo(GPT(self.language), NFNet(self.vision), self)


def flamingo_of(size: Literal["3b", "9b", "80b"] = "80b") -> FlamingoConfig:
    """A published layout (Alayrac et al. 2022, appendix A.1): NFNet-F6, a resampler of 64 latents,
    24, 40 or 80 blocks of width 2,048, 4,096 or 8,192, a gated layer in front of each, of every
    fourth or of every seventh.

    The GPT has learned positions where Chinchilla has relative ones, and so fewer weights than is
    stated; trained layers have GELU where the publication squares a ReLU. Heads of the resampler
    have keys of 128 numbers: its 194 million weights ask for them, where the appendix names 96.
    """
    num_layers, dim, num_heads, every = {
        "3b": (24, 2048, 16, 1), "9b": (40, 4096, 32, 4), "80b": (80, 8192, 64, 7)
    }[size]  # fmt: skip
    return FlamingoConfig(
        GPTConfig(
            32_000, 2048, num_layers, gpt2_block(dim, num_heads, dropout=0.0), tied=True,
            init="normal",
        ),
        nfnet_f(6, 320),
        ResamplerConfig(64, 6, 16, 128, latent_dim=1536),
        every=every,
        num_heads=num_heads,
    )  # fmt: skip


@dataclass(frozen=True)
class FlamingoLossConfig(TextLossConfig):
    """Optimiser of the resampler and the gated layers."""

    lr: Positive = 3e-3
    final_lr: NonNegative = 3e-5
    warmup: CountOrZero = 50
    beta2: Share = 0.99
    clip: NonNegative = 1.0
