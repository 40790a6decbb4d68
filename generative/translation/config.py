"""Settings of image-to-image translation: pix2pix, CycleGAN."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from generative.gan.config import GANLossConfig, ProjectedCriticConfig
from generative.training.ranges import (
    Checked,
    CountOrZero,
    Depth,
    DepthOrZero,
    NonNegative,
    Probability,
    Share,
    Size,
)

if TYPE_CHECKING:
    from generative.translation.model import CycleGAN, Pix2Pix

Norm = Literal["batch", "instance", "none"]


@dataclass(frozen=True)
class Pix2PixConfig(Checked):
    """A U-Net and a critic of pairs; the defaults are the publication's (Isola et al. 2017)."""

    shape: tuple[Size, Size, Size] = (3, 256, 256)
    """(C, H, W) of the images that are made."""
    source_channels: Size = 3
    """Channels of the images that they are made from, which have the same sides."""
    width: Size = 64
    """Feature maps of the first convolution; each further one has twice as many, at most eight
    times."""
    num_levels: Depth = 8
    """Convolutions of stride 2 on the way down, and as many on the way up."""
    dropout: Share = 0.5
    """Share of features left out in the first blocks on the way up, also when images are made: it
    is the only noise, if noise_dim is 0."""
    num_dropout: DepthOrZero = 3
    """Number of these blocks."""
    critic_width: Size = 64
    """Feature maps of the critic's first convolution."""
    critic_levels: Depth = 3
    """Convolutions of stride 2 in the critic: 2 judge patches of 34x34 pixels, 3 of 70x70."""
    critic_norm: Norm = "batch"
    """Normalisation in the critic; with `none` slopes can be penalised image by image."""
    noise_dim: CountOrZero = 0
    """Numbers of -1 and 1 that are drawn for an image and told to all norms on the way up, behind
    which two convolutions see the source once more. With 0, as published, there is dropout alone.
    """
    projected: ProjectedCriticConfig | None = None
    """A critic that sees images by the features of a classifier, in place of one of patches; then
    critic_width, critic_levels and critic_norm are of no use."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones had dropout alone, and critics of patches."""
        return {"noise_dim": 0, "projected": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projected is not None:
            self.projected.check_shape(self.shape)
        if self.noise_dim and self.num_dropout:
            raise ValueError(
                f"noise_dim is {self.noise_dim} and num_dropout {self.num_dropout}; an image has "
                "one kind of noise: leave one of them 0"
            )
        _check_sides(self.shape, self.num_levels)
        if self.num_dropout >= self.num_levels:
            raise ValueError(
                f"num_dropout is {self.num_dropout} with {self.num_levels} levels; the last block "
                f"makes the image: give at most {self.num_levels - 1}"
            )

    def build(self) -> Pix2Pix:
        """U-Net and critic of the pair."""
        from generative.nets.patches import PatchCritic
        from generative.translation.model import Pix2Pix
        from generative.translation.networks import NoiseUNetGenerator, UNetGenerator

        if self.projected is not None:
            critic = self.projected.build(self.shape, source_channels=self.source_channels)
        else:
            pair = self.shape[0] + self.source_channels
            critic = PatchCritic(pair, self.critic_width, self.critic_levels, self.critic_norm)
        generator = (NoiseUNetGenerator if self.noise_dim else UNetGenerator)(self)
        return Pix2Pix(generator, critic, self.shape, self.source_channels, config=self)


@dataclass(frozen=True)
class CycleGANConfig(Checked):
    """Two residual networks, there and back, with a critic each; the defaults are the publication's
    (Zhu et al. 2017)."""

    shape: tuple[Size, Size, Size] = (3, 256, 256)
    """(C, H, W) of the images of both sets."""
    width: Size = 64
    """Feature maps of the first convolution, which two further ones double."""
    num_blocks: Depth = 9
    """Residual blocks (the publication: 6 for 128x128, 9 from 256x256 on)."""
    critic_width: Size = 64
    """Feature maps of the first convolution of each critic."""
    critic_levels: Depth = 3
    """Convolutions of stride 2 in each critic: 2 judge patches of 34x34 pixels, 3 of 70x70."""
    critic_norm: Norm = "instance"
    """Normalisation in the critics."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sides(self.shape, 2)

    def build(self) -> CycleGAN:
        """Generators and patch critics of both directions."""
        from generative.nets.patches import PatchCritic
        from generative.translation.model import CycleGAN
        from generative.translation.networks import ResNetGenerator

        channels = self.shape[0]
        there, back = (ResNetGenerator(channels, self.width, self.num_blocks) for _ in range(2))
        first, second = (
            PatchCritic(channels, self.critic_width, self.critic_levels, self.critic_norm)
            for _ in range(2)
        )
        return CycleGAN(there, back, first, second, self.shape, config=self)


def _check_sides(shape: tuple[int, int, int], num_levels: int) -> None:
    fold = 2**num_levels
    if any(side % fold for side in shape[1:]):
        raise ValueError(
            f"shape is {shape}; {num_levels} convolutions of stride 2 need a height and width that "
            f"{fold} divides"
        )


PIX2PIX_GAN = GANLossConfig(label_noise=0.0, adam_eps=1e-8, lr_end=0.0)
"""Cross-entropy of patches, Adam of 2e-4 with beta1 0.5, as published."""
CYCLEGAN_GAN = GANLossConfig(objective="squares", label_noise=0.0, adam_eps=1e-8, lr_end=0.0)
"""Squared distance of heights from 1 and 0, as published."""


@dataclass(frozen=True)
class Pix2PixLossConfig(Checked):
    """Training settings of pix2pix; the defaults are the publication's."""

    gan: GANLossConfig = field(default_factory=lambda: PIX2PIX_GAN)
    """Losses of generator and critic, and their optimisers."""
    gan_weight: NonNegative = 1.0
    """Weight of the critic's part in the generator's loss; 0 trains no critic."""
    l1: NonNegative = 100.0
    """Weight of the mean absolute difference from the right image, values from -1 to 1."""
    constant: Probability = 0.5
    """Share of the steps before the learning rates begin to fall, in a straight line to `lr_end`
    of them."""


@dataclass(frozen=True)
class CycleGANLossConfig(Checked):
    """Training settings of CycleGAN; the defaults are the publication's."""

    gan: GANLossConfig = field(default_factory=lambda: CYCLEGAN_GAN)
    """Losses of generators and critics, and their optimisers."""
    cycle: NonNegative = 10.0
    """Weight of the mean absolute difference between an image and what it is there and back."""
    identity: NonNegative = 5.0
    """Weight of the mean absolute difference that a generator makes to an image which is already in
    the set it leads to."""
    buffer_size: CountOrZero = 50
    """Generated images that are kept; every second that a critic sees is one of them (Shrivastava
    et al. 2017)."""
    constant: Probability = 0.5
    """Share of the steps before the learning rates begin to fall, in a straight line to `lr_end`
    of them."""
