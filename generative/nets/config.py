"""Settings of networks that several families build: Transformer block, U-Net, quantiser, ViT, text
encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    Length,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
    SizeOrZero,
    Waves,
    Widths,
)

__all__ = [
    "UNET_BOOK",
    "BlockConfig",
    "ConditionalDiTConfig",
    "ConditionalUNetConfig",
    "ConditionedMLPConfig",
    "DiTConfig",
    "FSQConfig",
    "QuantiserConfig",
    "TextEncoderConfig",
    "UNetConfig",
    "ViTConfig",
    "bert_block",
    "clip_block",
    "dit",
    "gpt2_block",
    "t5_block",
    "vit_block",
]


@dataclass(frozen=True)
class BlockConfig(Checked):
    """A Transformer block; the defaults are the book's (chapter 9)."""

    dim: Size = 256
    """Width of what goes in and comes out."""
    num_heads: Size = 2
    """Attention heads."""
    key_dim: SizeOrZero = 256
    """Width of the queries, keys and values of each head; 0 for dim / num_heads, as most papers
    have it."""
    ff_dim: Size = 256
    """Width of the hidden layer behind the attention."""
    norm: Literal["post", "pre"] = "post"
    """Normalise sums (Vaswani et al. 2017), or what goes into each half (GPT-2), which deep stacks
    need."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """Layer norm, or only a division by the root mean square (T5)."""
    norm_eps: Positive = 1e-6
    """Added to the variance."""
    activation: Literal["relu", "gelu", "gelu-tanh", "quick-gelu"] = "relu"
    """Activation of the hidden layer; gelu-tanh is GPT-2's approximation of gelu, quick-gelu is
    CLIP's, x sigmoid(1.702 x)."""
    dropout: Share = 0.1
    """Share of what each half adds that is left out in training."""
    attention_dropout: Share = 0.0
    """Share of attention weights left out in training."""
    bias: bool = True
    """Add a bias in linear maps."""
    scale: bool = True
    """Divide scores by the root of the key's width (T5 does not)."""
    rotary: bool = False
    """Turn queries and keys of the self-attention by their places, so that scores depend on
    distances (Su et al. 2021). A GPT then has no vectors of places."""
    shift: SizeOrZero = 0
    """Places right before each whose features are added to it, each by a learned factor. What
    stands side by side is then found without attention, which can take long to learn it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.key_dim and self.dim % self.num_heads:
            raise ValueError(
                f"key_dim is {self.key_dim} with dim {self.dim} and {self.num_heads} heads; give a "
                "positive one, or 0 where the heads divide dim"
            )
        if self.rotary and self.head_dim % 2:
            raise ValueError(
                f"rotary turns pairs of numbers, and a key has {self.head_dim}; give an even "
                "key_dim"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older blocks turned and shifted nothing."""
        return {"rotary": False, "shift": 0, **settings}

    @property
    def head_dim(self) -> int:
        """Width of the queries, keys and values of each head."""
        return self.key_dim or self.dim // self.num_heads


def gpt2_block(dim: int, num_heads: int, dropout: float = 0.1) -> BlockConfig:
    """GPT-2's block (Radford et al. 2019): norm first, four times as wide inside, GELU."""
    return BlockConfig(
        dim, num_heads, 0, 4 * dim, "pre", norm_eps=1e-5, activation="gelu-tanh",
        dropout=dropout, attention_dropout=dropout,
    )  # fmt: skip


def bert_block(dim: int, num_heads: int, dropout: float = 0.1) -> BlockConfig:
    """BERT's block (Devlin et al. 2019): norm of sums, four times as wide inside, GELU."""
    return BlockConfig(
        dim, num_heads, 0, 4 * dim, norm_eps=1e-12, activation="gelu",
        dropout=dropout, attention_dropout=dropout,
    )  # fmt: skip


def t5_block(dim: int, num_heads: int, dropout: float = 0.1) -> BlockConfig:
    """T5's block (Raffel et al. 2020): root-mean-square norm first, no biases, no scaling."""
    return BlockConfig(
        dim, num_heads, 0, 4 * dim, "pre", "rms", dropout=dropout, attention_dropout=dropout,
        bias=False, scale=False,
    )  # fmt: skip


def vit_block(dim: int, num_heads: int, dropout: float = 0.0) -> BlockConfig:
    """The block of a Vision Transformer (Dosovitskiy et al. 2021): norm first, GELU."""
    return BlockConfig(
        dim, num_heads, 0, 4 * dim, "pre", norm_eps=1e-6, activation="gelu", dropout=dropout
    )


def clip_block(dim: int, num_heads: int, dropout: float = 0.0) -> BlockConfig:
    """The block of both encoders of CLIP (Radford et al. 2021): norm first, quick GELU."""
    return BlockConfig(
        dim, num_heads, 0, 4 * dim, "pre", norm_eps=1e-5, activation="quick-gelu", dropout=dropout
    )


@dataclass(frozen=True)
class ConditionedMLPConfig(Checked):
    """A perceptron whose every layer gets the noise level, or the times."""

    hidden_dim: Size = 128
    """Width of its hidden layers."""
    num_hidden: Depth = 3
    """Hidden layers."""
    num_waves: Waves = 0
    """The network also sees sines and cosines of x_t, of this many wavelengths, 8, 4, 2 ...; it is
    slow to learn sharp edges without."""
    embedding_dim: Size = 16
    """Sines and cosines of the level, or of each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dim < 4 or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim is {self.embedding_dim}; give an even number from 4")


@dataclass(frozen=True)
class UNetConfig(Checked):
    """U-Net from noisy images to an estimate of their shape; the sizes are the book's, and
    `UNET_BOOK` is all of its network."""

    channels: Widths = (32, 64, 96, 128)
    """Feature maps at each resolution; the last are at the bottom, every other is halved after."""
    depth: Depth = 2
    """Residual blocks at each resolution, on the way down and on the way up."""
    embedding_dim: Size = 32
    """Sines and cosines that tell the network the noise variance."""
    max_frequency: Positive = 1000.0
    """The fastest of them, in turns between variance 0 and 1; the slowest makes one turn."""
    norm: Literal["batch", "group"] = "group"
    """Normalisation of every block. Statistics of groups of channels are an image's own (Wu & He
    2018); those of a batch, the book's way, mix all of its noise levels."""
    conditioning: Literal["input", "blocks"] = "blocks"
    """Input of the noise variance: beside the image only, as in the book, or to every block as
    well."""
    attention: tuple[SizeOrZero, ...] = ()
    """Resolutions with self-attention between all places (Ho et al. 2020): 0 is that of the image,
    each further one has half its sides, the last is the bottom."""
    dropout: Share = 0.0
    """Share of features left out in training, in every block."""

    def check_sides(self, image_shape: tuple[int, ...]) -> None:
        """Refuse images that the network can not halve as often as it has to.

        Raises:
            ValueError: says what divides their sides.
        """
        fold = 2 ** (len(self.channels) - 1)
        if any(side % fold for side in image_shape[1:]):
            raise ValueError(
                f"image_shape is {image_shape}; {len(self.channels)} resolutions need a height and "
                f"width that {fold} divides"
            )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.channels) < 2:
            raise ValueError(f"channels is {self.channels}; give two numbers or more")
        if self.embedding_dim < 4 or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim is {self.embedding_dim}; give an even number from 4")
        if any(level >= len(self.channels) for level in self.attention):
            raise ValueError(
                f"attention is at resolutions {self.attention}; there are "
                f"{len(self.channels)}: give numbers from 0 to {len(self.channels) - 1}"
            )
        if not self.max_frequency > 1:
            raise ValueError(f"max_frequency is {self.max_frequency}; it must be above 1")

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older networks attend at the bottom or nowhere."""
        attends, channels = settings.get("attention"), settings.get("channels")
        if not isinstance(attends, bool) or not isinstance(channels, list):
            return settings
        return {**settings, "attention": [len(channels) - 1] if attends else []}


@dataclass(frozen=True)
class DiTConfig(Checked):
    """A Transformer of patches from noisy images to an estimate of their shape; `dit` has the sizes
    of its publication (Peebles & Xie 2023)."""

    patch: Size = 4
    """Side of a patch."""
    dim: Size = 128
    """Width of the tokens, a multiple of 4."""
    num_layers: Depth = 4
    """Blocks."""
    num_heads: Size = 4
    """Attention heads of a block."""
    num_classes: SizeOrZero = 0
    """Classes that the network is told; 0 for none."""
    embedding_dim: Size = 256
    """Sines and cosines that tell the network the noise level."""
    max_frequency: Positive = 1000 / (2 * math.pi)
    """The fastest of them, in turns over all levels; the slowest takes 10,000 times as long. The
    default is the publication's for 1,000 steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % 4 or self.dim % self.num_heads:
            raise ValueError(
                f"dim is {self.dim} with {self.num_heads} heads; give a multiple of 4 and of the "
                "heads"
            )
        if self.embedding_dim < 4 or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim is {self.embedding_dim}; give an even number from 4")

    def check_sides(self, image_shape: tuple[int, ...]) -> None:
        """Refuse images that can not be cut into patches.

        Raises:
            ValueError: says what divides their sides.
        """
        if any(side % self.patch for side in image_shape[1:]):
            raise ValueError(
                f"image_shape is {image_shape} and patch {self.patch}; give a patch that divides "
                "height and width"
            )


def dit(size: Literal["S", "B", "L", "XL"], patch: int = 2, num_classes: int = 0) -> DiTConfig:
    """DiT-S, DiT-B, DiT-L or DiT-XL, which is named after its patch too: DiT-XL/2."""
    dim, num_layers, num_heads = {
        "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)
    }[size]  # fmt: skip
    return DiTConfig(patch, dim, num_layers, num_heads, num_classes)


UNET_BOOK = UNetConfig(norm="batch", conditioning="input")
"""The book's network: batch statistics, and a noise variance that stands beside the image only."""


@dataclass(frozen=True)
class ConditionalUNetConfig(Checked):
    """U-Net of diffusion models that are told a text: residual blocks with group norm, attention
    between places and to tokens (Dhariwal & Nichol 2021; Nichol et al. 2022)."""

    width: Size = 32
    """Feature maps of the first convolution; the embedding of the noise level has 4 times as
    many."""
    multipliers: Widths = (1, 2)
    """Multiples of the width at each resolution; every one has half the sides of the one before."""
    num_blocks: Widths = (1,)
    """Residual blocks of each resolution on the way down; one number is that of all."""
    attention: tuple[SizeOrZero, ...] = (1,)
    """Resolutions with attention behind each block: 0 is the first, the last is the lowest. The
    middle always has it."""
    head_dim: Size = 32
    """Width of an attention head, which has to divide the feature maps."""
    num_heads: SizeOrZero = 0
    """Heads of every attention in place of `head_dim`; 0 leaves them to it."""
    context_dim: SizeOrZero = 64
    """Width of the tokens that every attention also looks at; 0 for none."""
    vector_dim: SizeOrZero = 0
    """Width of a vector that is told beside the noise level; 0 for none."""
    told_level: bool = False
    """Take a second noise level, that of an image to look at (Ho et al. 2022)."""
    scale_shift: bool = True
    """Noise level as a scale and a shift behind the second norm; otherwise added in front of it."""
    transformer: bool = False
    """Attention in a Transformer block with a feed-forward network, as in Stable Diffusion
    (Rombach et al. 2022); otherwise self-attention and cross-attention, each added to its input."""
    efficient: bool = False
    """Order of the Efficient U-Net (Saharia et al. 2022): sides are halved in front of the blocks
    of a resolution and doubled behind them, so that no block works on the whole image."""
    scale_skips: bool = False
    """Multiply what joins the way up by 1 / sqrt(2), as in the Efficient U-Net."""
    patch: Size = 1
    """Side of the squares of pixels whose numbers are joined to one place before the first
    convolution, and taken apart behind the last (Hoogeboom et al. 2023)."""
    dropout: Share = 0.0
    """Share of features left out in training, in every residual block."""

    def __post_init__(self) -> None:
        super().__post_init__()
        num = len(self.multipliers)
        if len(self.num_blocks) not in (1, num):
            raise ValueError(
                f"num_blocks is {self.num_blocks} and there are {num} multipliers; give one number "
                "for all resolutions, or one for each"
            )
        if any(level >= num for level in self.attention):
            raise ValueError(
                f"attention is at resolutions {self.attention}; there are {num}: give numbers from "
                f"0 to {num - 1}"
            )
        if self.width % 2 or self.width < 4:
            raise ValueError(f"width is {self.width}; give an even number from 4")
        for level in {*self.attention, num - 1}:
            channels = self.width * self.multipliers[level]
            if channels % (self.num_heads or self.head_dim):
                what = "num_heads" if self.num_heads else "head_dim"
                raise ValueError(
                    f"{what} is {self.num_heads or self.head_dim}, which does not divide the "
                    f"{channels} feature maps of resolution {level}; change either"
                )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Residual blocks of each resolution."""
        same = len(self.num_blocks) == 1
        return self.num_blocks * len(self.multipliers) if same else self.num_blocks

    @property
    def fold(self) -> int:
        """Number that has to divide the sides of an image."""
        return self.patch * 2 ** (len(self.multipliers) - (not self.efficient))


@dataclass(frozen=True)
class ConditionalDiTConfig(Checked):
    """A Transformer of patches that is told a text: blocks of DiT (Peebles & Xie 2023), and in
    front of each attention to the tokens of the text."""

    patch: Size = 4
    """Side of a patch."""
    dim: Size = 128
    """Width of the patches' tokens, a multiple of 4."""
    num_layers: Depth = 4
    """Blocks."""
    num_heads: Size = 4
    """Attention heads of a block, of its own attention and of that to the text."""
    context_dim: Size = 64
    """Width of the tokens of the text."""
    vector_dim: Size = 64
    """Width of the vector that is told beside the noise level."""
    embedding_dim: Size = 64
    """Sines and cosines that tell the network the noise level."""
    max_frequency: Positive = 16.0
    """The fastest of them, in turns over all levels; see `DiTConfig`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Widths and sines that do not fit are told as they are of DiT.
        DiTConfig(
            self.patch, self.dim, self.num_layers, self.num_heads,
            embedding_dim=self.embedding_dim, max_frequency=self.max_frequency,
        )  # fmt: skip

    @property
    def fold(self) -> int:
        """Number that has to divide the sides of an image."""
        return self.patch


@dataclass(frozen=True)
class QuantiserConfig(Checked):
    """A list of learned vectors that stand for all others: each is replaced by the nearest."""

    num_codes: Choices = 512
    """Vectors in the list."""
    dim: Size = 64
    """Numbers of each."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """cosine: both sides are divided by their length first (Yu et al. 2022)."""
    learning: Literal["average", "loss"] = "average"
    """Update of the list: as moving averages of the vectors that each replaced (van den Oord et al.
    2017, appendix A.1), or by the gradient of a loss."""
    decay: Share = 0.99
    """average: weight of the past; 0 takes a step of k-means at every update."""
    beta: NonNegative = 0.25
    """Weight of the commitment loss, which holds what is replaced near the list."""
    revive: Annotated[int, Range(0, 10**6)] = 20
    """Steps without use after which a code takes the place of a vector that is badly replaced;
    0 for never, which leaves most codes unused on data that are mostly alike."""


@dataclass(frozen=True)
class FSQConfig(Checked):
    """Codes without a list: each number of a vector is rounded to one of a few levels."""

    levels: Annotated[tuple[Annotated[int, Range(2, 256)], ...], Length(1, 16)] = (8, 5, 5, 5)
    """Levels of each number; their product is the number of codes (Mentzer et al. 2024)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_codes > 2**16:
            raise ValueError(
                f"levels {self.levels} make {self.num_codes:,} codes; give some of at most "
                f"{2**16:,}"
            )

    @property
    def num_codes(self) -> int:
        """Codes that there are."""
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return len(self.levels)


@dataclass(frozen=True)
class ViTConfig(Checked):
    """A Vision Transformer: square patches of an image as tokens."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W)."""
    patch: Size = 8
    """Side of a patch."""
    num_layers: Depth = 2
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: vit_block(64, 2))
    class_token: bool = False
    """Put a learned token in front of those of the patches, which gathers what is in the image."""
    norm_first: bool = False
    """Normalise the tokens before the first block too, as CLIP does."""
    patch_bias: bool = True
    """Add a bias in the map from a patch to its token (CLIP does not)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(side % self.patch for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape} and patch {self.patch}; give a patch that "
                "divides height and width"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        _, h, w = self.image_shape
        return h // self.patch, w // self.patch


@dataclass(frozen=True)
class TextEncoderConfig(Checked):
    """A Transformer that reads captions; the default is a small one."""

    vocab_size: Annotated[int, Range(4, 2**20)] = 128
    """Tokens, with 0 (padding), 1 (unknown word), 2 (begin) and 3 (end)."""
    max_len: Size = 24
    """Positions with a vector, and so the longest caption with its begin and end."""
    num_layers: Depth = 2
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: clip_block(64, 2))
    causal: bool = True
    """A token sees itself and those before it, as in CLIP; without, all of the caption."""
