"""Settings of diffusion models that draw what a text says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from generative.codes.config import VQGANConfig, VQVAEConfig
from generative.diffusion.config import (
    SIGMA_DATA,
    DiffusionLossConfig,
    ImagePrediction,
    Prediction,
    ScheduleConfig,
    check_prediction,
)
from generative.nets.config import (
    ConditionalDiTConfig,
    ConditionalUNetConfig,
    QuantiserConfig,
    TextEncoderConfig,
    clip_block,
)
from generative.text.config import T5Config, t5_block
from generative.training.config import AdamWConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    Finite,
    NonNegative,
    Positive,
    Quantile,
    Share,
    Size,
    SizeOrZero,
    Widths,
)

if TYPE_CHECKING:
    from generative.diffusion.model import Diffusion
    from generative.text_to_image.autoencoder import KLAutoencoder
    from generative.text_to_image.control import ControlNet
    from generative.text_to_image.decoder import ImageDecoder
    from generative.text_to_image.model import TextToImage
    from generative.text_to_image.upsampler import Upsampler

__all__ = [
    "ConditionalDiTConfig",
    "ConditionalUNetConfig",
    "ControlNetConfig",
    "GLIDEConfig",
    "ImageDecoderConfig",
    "ImagenConfig",
    "KLAutoencoderConfig",
    "KLAutoencoderLossConfig",
    "LatentDiffusionConfig",
    "ScheduleConfig",
    "TextEncoderConfig",
    "TextToImageLossConfig",
    "UpsamplerConfig",
]


TextPrediction = Literal["noise", "velocity", "data", "flow", "edm", "pixels"]
"""Output of a network of images that is told a text."""


def _small_text() -> TextEncoderConfig:
    return TextEncoderConfig(128, 24, 2, clip_block(64, 2), causal=False)


def _small_network() -> ConditionalUNetConfig:
    return ConditionalUNetConfig(vector_dim=64)


@dataclass(frozen=True, kw_only=True)
class GuidedConfig(Checked):
    """Settings of all models that are told a text: noise levels at which guidance counts, and how
    signs are read."""

    interval: tuple[Finite, Finite] | None = None
    """Lowest and highest log signal-to-noise ratio with guidance, such as -20 and 0; elsewhere
    sampling is plain (Kynkäänniemi et al. 2024). None: everywhere."""
    spelled: bool = False
    """Read the word after "says" letter by letter; `words` then hold the 26 letters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval is not None and not self.interval[0] < self.interval[1]:
            raise ValueError(
                f"interval is {self.interval}; give the lowest and the highest log SNR with "
                "guidance"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older models were guided everywhere, and read signs as words."""
        return {"interval": None, "spelled": False, **settings}


@dataclass(frozen=True)
class GLIDEConfig(GuidedConfig):
    """GLIDE: a U-Net, and a Transformer that reads the text and is trained with it (Nichol et al.
    2022); a small one. A Transformer of patches can take the place of the U-Net."""

    image_shape: tuple[Size, Size, Size] = (3, 16, 16)
    """(C, H, W)."""
    words: tuple[str, ...] = ()
    """Word of each token from 4 on; without, captions have to be given as tokens."""
    text: TextEncoderConfig = field(default_factory=_small_text)
    """Reader of the text. Its outputs are the tokens that the network looks at, its vector is told
    beside the noise level."""
    network: ConditionalUNetConfig | ConditionalDiTConfig = field(default_factory=_small_network)
    """A U-Net, or a Transformer of patches; its `context_dim` and `vector_dim` are the width of the
    text."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("cosine"))
    prediction: TextPrediction = "velocity"
    """Output of the network: one of ImageDiffusionConfig, or edm for what EDM's network gives
    (Karras et al. 2022)."""
    steps: Size = 50
    """Steps of sampling, unless another number is asked for."""
    scale: Finite = 3.0
    """Scale of guidance, unless another one is asked for; 1 for plain sampling."""
    levels: Choices = 256
    """Values a pixel can have."""
    sigma_data: Positive = SIGMA_DATA
    """EDM: standard deviation of pixels in [-1, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sides(self.network, self.image_shape[1:])
        check_told(self.network, self.text.block.dim, self.vector_dim)
        check_words(self.words, self.text.vocab_size)
        check_prediction(self.schedule, self.prediction)

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older models had no network of EDM."""
        return {"sigma_data": SIGMA_DATA, **super().upgrade(settings)}

    @property
    def vector_dim(self) -> int:
        """Width of the vector that the U-Net is told."""
        return self.text.block.dim

    def build(self) -> TextToImage:
        """Network and text Transformer."""
        from generative.nets.text_encoder import TextEncoder
        from generative.text_to_image.model import TextToImage

        text = TextEncoder(self.text)
        return TextToImage(
            _diffusion(self), text, self.words, scale=self.scale, interval=self.interval,
            spelled=self.spelled, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class KLAutoencoderConfig(Checked):
    """Autoencoder with a grid of Gaussian latents, the layout of VQ-GAN without codes (Rombach et
    al. 2022); a small one."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); H and W are halved by every multiplier but the first."""
    width: Size = 16
    """Feature maps at the first resolution, before they are multiplied."""
    multipliers: Widths = (1, 2, 2)
    """Multiples of the width, for each resolution."""
    num_blocks: Depth = 1
    """Residual blocks of a resolution in the encoder; the decoder has one more."""
    attention: tuple[SizeOrZero, ...] = ()
    """Resolutions with self-attention behind each block; the middle always has it."""
    channels: Size = 4
    """Latents of a place."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layout(self.channels)

    def layout(self, dim: int) -> VQGANConfig:
        """The same sizes as those of a VQ-GAN's networks, with vectors of this width.

        Raises:
            ValueError: the sides cannot be halved so often, or attention is at no resolution.
        """
        return VQGANConfig(
            self.image_shape, self.width, self.multipliers, self.num_blocks, self.attention,
            QuantiserConfig(2, dim),
        )  # fmt: skip

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(Z, h, w)."""
        fold = 2 ** (len(self.multipliers) - 1)
        return self.channels, self.image_shape[1] // fold, self.image_shape[2] // fold

    def build(self) -> KLAutoencoder:
        """Encoder and decoder."""
        from generative.codes.networks import ResNetDecoder, ResNetEncoder
        from generative.text_to_image.autoencoder import KLAutoencoder

        encoder = ResNetEncoder(self.layout(2 * self.channels))
        decoder = ResNetDecoder(self.layout(self.channels))
        return KLAutoencoder(encoder, decoder, self.image_shape, self.latent_shape, self)


@dataclass(frozen=True)
class KLAutoencoderLossConfig(AdamWConfig):
    """Training settings of an autoencoder with Gaussian latents."""

    recon: Literal["l1", "l2"] = "l1"
    """Error of pixels: absolute, as in the publication, or squared. The best picture by absolute
    errors is the median, which is black where few things stand on black."""
    kl_weight: NonNegative = 1e-6
    """Weight of the KL of an image in nats, beside the sum of its errors."""
    final_lr: NonNegative = 1e-5

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older settings have absolute errors alone."""
        return {"recon": "l1", **settings}


def _small_latent_network() -> ConditionalUNetConfig:
    return ConditionalUNetConfig(attention=(0, 1), vector_dim=64)


@dataclass(frozen=True)
class LatentDiffusionConfig(GuidedConfig):
    """Latent diffusion: the U-Net takes noise away from the latents of an autoencoder, and is told
    the text by an encoder that was trained before it (Rombach et al. 2022); a small one.

    The defaults of schedule and prediction are those of Stable Diffusion, whose scaled linear betas
    go from 0.00085 to 0.012.
    """

    autoencoder: KLAutoencoderConfig | VQVAEConfig | VQGANConfig = field(
        default_factory=KLAutoencoderConfig
    )
    """Autoencoder, which is not trained."""
    words: tuple[str, ...] = ()
    """Word of each token from 4 on; without, captions have to be given as tokens."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(128, 24))
    """Text encoder, which is not trained: that of a CLIP."""
    network: ConditionalUNetConfig = field(default_factory=_small_latent_network)
    """The U-Net; its `context_dim` is the width of the text, and so is its `vector_dim`, or 0: then
    it is told the tokens alone, as in Stable Diffusion."""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig("scaled-linear", beta_start=0.00085, beta_end=0.012)
    )
    prediction: Prediction = "noise"
    """Output of the network; see ImageDiffusionConfig."""
    steps: Size = 50
    """Steps of sampling, unless another number is asked for."""
    scale: Finite = 5.0
    """Scale of guidance, unless another one is asked for; 1 for plain sampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        dim = self.text.block.dim
        check_told(self.network, dim, dim if self.network.vector_dim else 0)
        check_sides(self.network, self.latent_shape[1:])
        check_words(self.words, self.text.vocab_size)
        check_prediction(self.schedule, self.prediction)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.autoencoder.image_shape

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(Z, h, w)."""
        config = self.autoencoder
        if isinstance(config, KLAutoencoderConfig):
            return config.latent_shape
        levels = (
            len(config.channels) if isinstance(config, VQVAEConfig) else len(config.multipliers) - 1
        )
        _, h, w = config.image_shape
        return config.quantiser.dim, h // 2**levels, w // 2**levels

    def build(self) -> TextToImage:
        """U-Net, and the two parts that are not trained."""
        from generative.diffusion.model import Diffusion
        from generative.nets.conditional_unet import ConditionalUNet
        from generative.nets.text_encoder import TextEncoder
        from generative.text_to_image.model import TextToImage

        network = ConditionalUNet(self.latent_shape[0], self.network)
        diffusion = Diffusion(
            network, self.latent_shape, self.schedule, self.prediction, self.steps
        )
        return TextToImage(
            diffusion, TextEncoder(self.text), self.words, autoencoder=self.autoencoder.build(),
            frozen=("text", "autoencoder"), scale=self.scale, interval=self.interval,
            spelled=self.spelled, pooled=self.network.vector_dim > 0, config=self,
        )  # fmt: skip


def _imagen_text() -> T5Config:
    return T5Config(128, num_layers=2, block=t5_block(64, 2, 0.0), max_len=24)


def _imagen_network() -> ConditionalUNetConfig:
    return ConditionalUNetConfig(vector_dim=64, efficient=True, scale_skips=True)


@dataclass(frozen=True)
class ImagenConfig(GuidedConfig):
    """Imagen's first model: an Efficient U-Net that is told what the encoder of a T5 reads, which
    has seen texts alone and is not trained (Saharia et al. 2022); a small one."""

    image_shape: tuple[Size, Size, Size] = (3, 16, 16)
    """(C, H, W)."""
    words: tuple[str, ...] = ()
    """Word of each token from 4 on; without, captions have to be given as tokens."""
    text: T5Config = field(default_factory=_imagen_text)
    """The T5, of which the encoder reads the text."""
    network: ConditionalUNetConfig = field(default_factory=_imagen_network)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("cosine"))
    prediction: ImagePrediction = "velocity"
    """Output of the network; see ImageDiffusionConfig."""
    steps: Size = 50
    """Steps of sampling, unless another number is asked for."""
    scale: Finite = 5.0
    """Scale of guidance, unless another one is asked for; 1 for plain sampling."""
    quantile: Quantile = 0.995
    """Share of the numbers of an image inside the range, to which dynamic thresholds draw it
    together; 1 clips nothing but scales by the largest."""
    levels: Choices = 256
    """Values a pixel can have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sides(self.network, self.image_shape[1:])
        check_told(self.network, self.text.block.dim, self.text.block.dim)
        check_words(self.words, self.text.vocab_size)
        check_prediction(self.schedule, self.prediction)

    def build(self) -> TextToImage:
        """U-Net and encoder of the T5."""
        from generative.text_to_image.imagen import T5Text
        from generative.text_to_image.model import TextToImage

        return TextToImage(
            _diffusion(self), T5Text(self.text), self.words, frozen=("text",), scale=self.scale,
            interval=self.interval, spelled=self.spelled, quantile=self.quantile, config=self,
        )  # fmt: skip


def _decoder_network() -> ConditionalUNetConfig:
    return ConditionalUNetConfig(vector_dim=128)


@dataclass(frozen=True)
class ImageDecoderConfig(GLIDEConfig):
    """DALL.E 2's decoder: GLIDE, which is told an image embedding too (Ramesh et al. 2022); a small
    one. The U-Net's vector_dim is the width of the text plus that of the embedding."""

    network: ConditionalUNetConfig = field(default_factory=_decoder_network)
    embedding_dim: Size = 64
    """Width of an image embedding."""
    num_tokens: Size = 4
    """Tokens that are made of it."""
    drop_embedding: Share = 0.1
    """Share of the embeddings that are left out in training."""

    @property
    def vector_dim(self) -> int:
        """Width of the vector that the U-Net is told."""
        return self.text.block.dim + self.embedding_dim

    def build(self) -> ImageDecoder:
        """U-Net, text Transformer, and what makes tokens of an embedding."""
        from generative.nets.text_encoder import TextEncoder
        from generative.text_to_image.decoder import ImageDecoder

        return ImageDecoder(
            _diffusion(self), TextEncoder(self.text), self.words, self.embedding_dim,
            self.num_tokens, self.drop_embedding, scale=self.scale, interval=self.interval,
            spelled=self.spelled, config=self,
        )  # fmt: skip


def _upsampler_network() -> ConditionalUNetConfig:
    return ConditionalUNetConfig(16, (1, 2, 2), attention=(2,), vector_dim=64, told_level=True)


@dataclass(frozen=True)
class UpsamplerConfig(GLIDEConfig):
    """An upsampler: GLIDE, whose U-Net sees a small image too (Nichol et al. 2022; Saharia et al.
    2022); a small one."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W) of the large images."""
    network: ConditionalUNetConfig = field(default_factory=_upsampler_network)
    scale: Finite = 1.0
    """Scale of guidance, unless another one is asked for; the small image tells nearly all."""
    factor: Size = 2
    """Sides of the large images over those of the small ones."""
    most_noise: NonNegative = 0.3
    """Largest standard deviation of the noise that small images get in training; pixels are from 0
    to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(side % self.factor for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; its sides have to be multiples of the factor, "
                f"{self.factor}"
            )
        if not self.network.told_level:
            raise ValueError(
                "network.told_level is off, and the U-Net has to know how much noise the small "
                "image has; set it"
            )

    def build(self) -> Upsampler:
        """U-Net of twice the channels, and text Transformer."""
        from generative.nets.text_encoder import TextEncoder
        from generative.text_to_image.upsampler import Upsampler

        return Upsampler(
            _diffusion(self, seen=self.image_shape[0]), TextEncoder(self.text), self.words,
            factor=self.factor, most_noise=self.most_noise, scale=self.scale,
            interval=self.interval,
            spelled=self.spelled, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class ControlNetConfig(Checked):
    """A trained model that is told a further image (Zhang et al. 2023)."""

    base: GLIDEConfig | LatentDiffusionConfig = field(default_factory=GLIDEConfig)
    """The model that stays."""
    hint_channels: Size = 1
    """Channels of the further image."""
    widths: Widths = (16, 32, 96, 256)
    """Feature maps of its reader: the first before any halving, then one for each."""
    hint: Literal["edges", "palette", "other"] = "edges"
    """Kind of the further image: the edges of an image, one channel; a palette, the colours of its
    blocks; or anything else, which is not made of images here."""
    block: Size = 8
    """Pixels on a side of a block of a palette."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.base.network, ConditionalUNetConfig):
            raise ValueError(
                f"base has a {type(self.base.network).__name__}; a ControlNet copies the way down "
                "of a U-Net: give a model with network ConditionalUNetConfig"
            )
        c, h, w = self.base.image_shape
        wanted = {"edges": 1, "palette": c}.get(self.hint, self.hint_channels)
        if self.hint_channels != wanted:
            raise ValueError(
                f"hint_channels is {self.hint_channels}, and the {self.hint} of images "
                f"{self.base.image_shape} have {wanted}; give {wanted}, or another hint"
            )
        if self.hint == "palette" and (h % self.block or w % self.block):
            raise ValueError(
                f"block is {self.block}, and images have sides of {h} and {w} pixels; give a "
                "number that divides both"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older models were told edges, which have one channel, or what nothing here made."""
        hint = "edges" if settings.get("hint_channels") == 1 else "other"
        return {"hint": hint, "block": 8, **settings}

    def build(self) -> ControlNet:
        """The model that stays, with a copy of its way down."""
        from generative.text_to_image.control import ControlNet

        return ControlNet(self.base.build(), self.hint_channels, self.widths, self)


def _diffusion(config: GLIDEConfig | ImagenConfig, seen: int = 0) -> Diffusion:
    """Diffusion of pixels around a network; a U-Net sees so many channels besides."""
    from generative.diffusion.model import Diffusion
    from generative.nets.conditional_dit import ConditionalDiT
    from generative.nets.conditional_unet import ConditionalUNet

    channels = config.image_shape[0]
    if isinstance(config.network, ConditionalDiTConfig):
        network = ConditionalDiT(config.image_shape, config.network)
    else:
        network = ConditionalUNet(channels + seen, config.network, channels)
    return Diffusion(
        network, config.image_shape, config.schedule, config.prediction, config.steps,
        levels=config.levels,
        sigma_data=config.sigma_data if isinstance(config, GLIDEConfig) else SIGMA_DATA,
    )  # fmt: skip


def check_told(
    network: ConditionalUNetConfig | ConditionalDiTConfig, dim: int, vector_dim: int
) -> None:
    """Refuse a network that takes another condition than it is told.

    Raises:
        ValueError: the widths of tokens or vector differ.
    """
    if (network.context_dim, network.vector_dim) != (dim, vector_dim):
        raise ValueError(
            f"the network takes tokens of width {network.context_dim} and a vector of width "
            f"{network.vector_dim}, and is told {dim} and {vector_dim}; give these as "
            "network.context_dim and network.vector_dim"
        )


def check_sides(
    network: ConditionalUNetConfig | ConditionalDiTConfig, sides: tuple[int, ...]
) -> None:
    """Refuse sides that the U-Net cannot halve, or that cannot be cut into patches.

    Raises:
        ValueError: they are not multiples of `network.fold`.
    """
    if any(side % network.fold for side in sides):
        if isinstance(network, ConditionalDiTConfig):
            raise ValueError(
                f"got sides of {sides[0]} and {sides[1]} pixels and network.patch {network.patch}; "
                "give a patch that divides both"
            )
        raise ValueError(
            f"the U-Net works on {sides[0]}x{sides[1]} places; its {len(network.multipliers)} "
            f"resolutions and patches of {network.patch} need sides that {network.fold} divides"
        )


def check_words(words: tuple[str, ...], vocab_size: int) -> None:
    """Refuse more words than the text encoder has vectors for.

    Raises:
        ValueError: words and the four reserved tokens are more than the vocabulary.
    """
    if 4 + len(words) > vocab_size:
        raise ValueError(
            f"{len(words)} words and four reserved tokens are given, and the text encoder has "
            f"vectors for {vocab_size}; give text.vocab_size {4 + len(words)}"
        )


@dataclass(frozen=True)
class TextToImageLossConfig(DiffusionLossConfig):
    """Loss and optimiser of a diffusion model that is told a text."""

    weighting: Literal["noise", "velocity", "data", "flow", "edm", "min-snr"] = "velocity"
    levels: Literal["time", "log-snr", "normal"] = "normal"
    drop: Share = 0.1
    """Share of examples whose text is left out, which guidance needs."""
    final_lr: NonNegative = 1e-5
    ema: Share = 0.995
