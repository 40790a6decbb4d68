"""Settings of VQ-VAE, VQ-GAN and ViT VQ-GAN, and of the priors of their codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from generative.nets.config import (
    BlockConfig,
    FSQConfig,
    QuantiserConfig,
    ViTConfig,
    gpt2_block,
    vit_block,
)
from generative.pixelcnn.config import GatedConfig, PixelCNNConfig, PlainConfig
from generative.training.config import AdamWConfig, MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    NonNegative,
    Positive,
    Probability,
    Share,
    Size,
    SizeOrZero,
    Widths,
)

if TYPE_CHECKING:
    from generative.codes.model import VQVAE
    from generative.codes.prior import GPTPrior, PixelCNNPrior

__all__ = [
    "FSQConfig",
    "CodeTransformerConfig",
    "PatchCriticConfig",
    "PriorConfig",
    "PriorLossConfig",
    "QuantiserConfig",
    "VQGANConfig",
    "VQGANLossConfig",
    "VQVAEConfig",
    "VQVAELossConfig",
    "ViTVQGANConfig",
]


@dataclass(frozen=True)
class PatchCriticConfig(Checked):
    """A critic of patches; see `generative.nets.patches.PatchCritic`."""

    width: Size = 16
    """Feature maps of its first convolution."""
    num_levels: Depth = 2
    """Convolutions of stride 2."""
    norm: Literal["batch", "instance", "none"] = "none"
    """Normalisation between convolutions; batch norm is the publication's, and a penalty on slopes
    needs none."""


@dataclass(frozen=True)
class VQVAEConfig(Checked):
    """Convolutions of stride 2 around a quantiser (van den Oord et al. 2017); a small one."""

    image_shape: tuple[Size, Size, Size] = (1, 32, 32)
    """(C, H, W); H and W are halved by every one of the channels."""
    channels: Widths = (16, 32)
    """Feature maps of the encoder's convolutions of stride 2; the decoder has them in reverse."""
    residual_dim: Size = 16
    """Feature maps inside a residual block."""
    num_blocks: Depth = 2
    """Residual blocks of the encoder, and as many of the decoder."""
    quantiser: QuantiserConfig | FSQConfig = field(default_factory=lambda: QuantiserConfig(64, 16))
    overlap: bool = True
    """Kernels wider than their strides, so that a code also depends on pixels beside its own patch.
    Without, a code is of its patch alone, and equal patches have equal codes wherever they are."""
    critic: PatchCriticConfig | None = None
    """With a critic it is a VQ-GAN of plain convolutions, the quickest to train; None: a VQ-VAE."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fold = 2 ** len(self.channels)
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {len(self.channels)} convolutions of stride 2 "
                f"need a height and width that {fold} divides"
            )

    def build(self) -> VQVAE:
        """Encoder, quantiser and decoder, and a critic if there is to be one."""
        from generative.codes.model import VQVAE
        from generative.codes.networks import ConvDecoder, ConvEncoder, make_critic
        from generative.nets.quantiser import make_quantiser

        _, h, w = self.image_shape
        fold = 2 ** len(self.channels)
        parts = ConvEncoder(self), make_quantiser(self.quantiser), ConvDecoder(self)
        critic = make_critic(self.critic, self.image_shape) if self.critic is not None else None
        return VQVAE(*parts, self.image_shape, (h // fold, w // fold), critic, config=self)


@dataclass(frozen=True)
class VQGANConfig(Checked):
    """Residual convolutions with attention around a quantiser, and a critic of patches (Esser et
    al. 2021); a small one."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); H and W are halved by every multiplier but the first."""
    width: Size = 16
    """Feature maps at the first resolution, before they are multiplied."""
    multipliers: Widths = (1, 2, 2)
    """Multiples of the width, for each resolution."""
    num_blocks: Depth = 1
    """Residual blocks of a resolution in the encoder; the decoder has one more."""
    attention: tuple[SizeOrZero, ...] = (2,)
    """Resolutions with self-attention behind each block: 0 is that of the image, each further one
    has half its sides."""
    quantiser: QuantiserConfig | FSQConfig = field(default_factory=lambda: QuantiserConfig(64, 32))
    critic: PatchCriticConfig = field(default_factory=PatchCriticConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        num = len(self.multipliers)
        fold = 2 ** (num - 1)
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {num} resolutions need a height and width "
                f"that {fold} divides"
            )
        if any(level >= num for level in self.attention):
            raise ValueError(
                f"attention is at resolutions {self.attention}; there are {num}: give numbers from "
                f"0 to {num - 1}"
            )

    def build(self) -> VQVAE:
        """Encoder, quantiser, decoder and critic."""
        from generative.codes.model import VQVAE
        from generative.codes.networks import ResNetDecoder, ResNetEncoder, make_critic
        from generative.nets.quantiser import make_quantiser

        _, h, w = self.image_shape
        fold = 2 ** (len(self.multipliers) - 1)
        parts = ResNetEncoder(self), make_quantiser(self.quantiser), ResNetDecoder(self)
        critic = make_critic(self.critic, self.image_shape)
        return VQVAE(*parts, self.image_shape, (h // fold, w // fold), critic, config=self)


@dataclass(frozen=True)
class ViTVQGANConfig(Checked):
    """Transformers on patches around a quantiser, and a critic of patches (Yu et al. 2022); a small
    one."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W)."""
    patch: Size = 8
    """Side of a patch, which becomes a code."""
    num_layers: Depth = 2
    """Transformer blocks of the encoder, and as many of the decoder."""
    block: BlockConfig = field(default_factory=lambda: vit_block(64, 2))
    quantiser: QuantiserConfig | FSQConfig = field(
        default_factory=lambda: QuantiserConfig(64, 8, "cosine")
    )
    critic: PatchCriticConfig = field(default_factory=PatchCriticConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.vit()

    def vit(self) -> ViTConfig:
        """Sizes of the two Transformers.

        Raises:
            ValueError: the patch does not divide the sides.
        """
        return ViTConfig(self.image_shape, self.patch, self.num_layers, self.block)

    def build(self) -> VQVAE:
        """Encoder, quantiser, decoder and critic."""
        from generative.codes.model import VQVAE
        from generative.codes.networks import ViTDecoder, ViTEncoder, make_critic
        from generative.nets.quantiser import make_quantiser

        vit, dim = self.vit(), self.quantiser.dim
        parts = ViTEncoder(vit, dim), make_quantiser(self.quantiser), ViTDecoder(vit, dim)
        critic = make_critic(self.critic, self.image_shape)
        return VQVAE(*parts, self.image_shape, vit.grid, critic, any_size=False, config=self)


@dataclass(frozen=True)
class VQVAELossConfig(AdamWConfig):
    """Training settings of a VQ-VAE: Adam on squared error plus the quantiser's loss."""

    final_lr: NonNegative = 1e-5
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    revive_until: Probability = 0.7
    """Share of the steps after which unused codes are left as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema:
            raise ValueError(
                f"ema is {self.ema}; an average over codes that were put elsewhere is of no place: "
                "give 0"
            )


@dataclass(frozen=True)
class VQGANLossConfig(Checked):
    """Training settings of a VQ-GAN: pixels, features, quantiser, and a critic that comes later."""

    recon: Literal["l1", "l2"] = "l1"
    """Error of pixels: absolute (VQ-GAN) or squared (ViT VQ-GAN)."""
    perceptual: NonNegative = 1.0
    """Weight of the perceptual distance."""
    adversarial: NonNegative = 0.8
    """Weight of the critic's term."""
    adaptive: bool = True
    """Multiply it by the ratio of the gradients of the other terms and of this one at the decoder's
    last layer (Esser et al. 2021, equation 7)."""
    most: Positive = 10.0
    """Largest such ratio; the publication's is 10,000, which ruins images where the critic's
    gradient is next to nothing."""
    begin: Probability = 0.25
    """Share of the steps after which the critic's term counts. The critic is trained from the first
    step, so that by then it knows what to ask for."""
    objective: Literal["hinge", "relativistic", "bce"] = "relativistic"
    """Loss of the critic; see `GANLossConfig`. relativistic compares a patch with what was made of
    it; hinge is the publication's."""
    r1: NonNegative = 1.0
    """Adds r1 / 2 times the squared slope of heights at images to the critic's loss."""
    r2: NonNegative = 1.0
    """The same at reconstructions."""
    lr: Positive = 1e-3
    """Adam's learning rate for encoder, quantiser and decoder."""
    critic_lr: Positive = 1e-3
    """The same for the critic."""
    lr_end: Probability = 0.01
    """Share of both that is left at the last step (cosine; 1: constant)."""
    beta1: Share = 0.5
    """Adam's decay of the average gradient."""
    beta2: Share = 0.9
    """Adam's decay of the average square."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay (AdamW) of matrices of encoder and decoder."""
    revive_until: Probability = 0.7
    """Share of the steps after which unused codes are left as they are."""


@dataclass(frozen=True)
class CodeTransformerConfig(Checked):
    """A causal Transformer over codes in reading order."""

    num_layers: Depth = 2
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: gpt2_block(64, 2))
    num_classes: SizeOrZero = 0
    """Classes, each of which has a start of its own; 0 for none."""


@dataclass(frozen=True)
class PriorConfig(Checked):
    """A distribution of grids of codes: by a PixelCNN, as VQ-VAE has it, or by a Transformer, as
    VQ-GAN does."""

    grid: tuple[Size, Size] = (8, 8)
    """Rows and columns of codes; for a Transformer in a larger grid, the window that it sees."""
    num_codes: Choices = 64
    """Codes there are."""
    network: GatedConfig | PlainConfig | CodeTransformerConfig = field(
        default_factory=lambda: GatedConfig(hidden_dim=64, num_layers=5, embed_dim=32)
    )
    """Network that reads the earlier codes; all but a plain one may know classes."""

    def build(self) -> PixelCNNPrior | GPTPrior:
        """The prior around one of the three networks."""
        from generative.codes.networks import CodeTransformer
        from generative.codes.prior import GPTPrior, PixelCNNPrior

        network = self.network
        if isinstance(network, CodeTransformerConfig):
            transformer = CodeTransformer(network, self.grid, self.num_codes)
            return GPTPrior(
                transformer, self.grid, self.num_codes, network.num_classes, config=self
            )
        levels = PixelCNNConfig((1, *self.grid), self.num_codes, 0, network)
        return PixelCNNPrior(levels.build(), config=self)


@dataclass(frozen=True)
class PriorLossConfig(MuonConfig):
    """Training settings of a prior: AdamW, or Muon of a Transformer, on the nats of a code."""

    lr: Positive = 2e-3
    """Learning rate."""
    final_lr: NonNegative = 1e-5
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no limit."""
