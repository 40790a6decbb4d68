"""Settings of the VAE-GAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from generative.gan.config import GANConfig, ProjectedCriticConfig
from generative.training.ranges import (
    Checked,
    NonNegative,
    Positive,
    Probability,
    Share,
    Size,
    Widths,
)
from generative.vae.config import ImageVAEConfig

if TYPE_CHECKING:
    from generative.vae_gan.model import VAEGAN


@dataclass(frozen=True)
class VAEGANConfig(ImageVAEConfig):
    """A VAE of images and a critic; small by default."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); H and W are divided by 2 in every convolution."""
    latent_dim: Size = 16
    """Size of z."""
    critic_widths: Widths = (16, 32, 64)
    """Feature maps of the critic's convolutions of stride 2; what comes out of the last compares
    images."""
    projected: ProjectedCriticConfig | None = None
    """A critic that sees images by the features of a classifier, in place of one of convolutions;
    then the last feature maps of all of its heads compare images, and critic_widths is of no use.
    """

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones had critics of convolutions."""
        return {"projected": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_components > 1:
            raise ValueError(
                f"prior_components is {self.prior_components}; a VAE-GAN takes its KL in closed "
                "form, which a mixture has not: give 1"
            )
        if self.projected is None:
            self.critic()
        else:
            self.projected.check_shape(self.image_shape)

    def critic(self) -> GANConfig:
        """Sizes of a critic of convolutions, which is that of a GAN.

        Raises:
            ValueError: the sides cannot be halved so often.
        """
        return GANConfig(
            self.image_shape, widths=self.critic_widths, batch_norm="none", bias=True, dropout=0.0
        )

    def build(self) -> VAEGAN:
        """A VAE of images, convolutional or of plain layers, and a critic."""
        from generative.gan.networks import Critic
        from generative.vae_gan.model import VAEGAN

        vae = super().build()
        if self.projected is not None:
            return VAEGAN(vae, self.projected.build(self.image_shape), config=self)
        return VAEGAN(vae, Critic(self.critic()), config=self)


@dataclass(frozen=True)
class VAEGANLossConfig(Checked):
    """Training settings of a VAE-GAN: three losses for three networks."""

    features: NonNegative = 1.0
    """Weight of half the squared difference of the critic's features, which takes the place of the
    likelihood of pixels; in nats, like the KL."""
    pixels: NonNegative = 0.0
    """Weight of minus the log-likelihood of pixels, as a VAE has it."""
    beta: NonNegative = 1.0
    """Weight of the KL term."""
    adversarial: NonNegative = 1.0
    """Weight of the critic's term in the decoder's loss."""
    gamma: NonNegative = 1.0
    """Weight of both reconstruction terms in the decoder's loss, against the critic's term; the
    encoder has them with weight 1."""
    objective: Literal["bce", "hinge", "relativistic"] = "relativistic"
    """Loss of the critic; see `GANLossConfig`. bce is the publication's."""
    r1: NonNegative = 1.0
    """Adds r1 / 2 times the squared slope of heights at images to the critic's loss."""
    r2: NonNegative = 1.0
    """The same at what the decoder made."""
    lr: Positive = 1e-3
    """Adam's learning rate for encoder and decoder, each of which has an optimiser of its own."""
    critic_lr: Positive = 1e-3
    """The same for the critic."""
    lr_end: Probability = 0.01
    """Share of all three that is left at the last step (cosine; 1: constant)."""
    beta1: Share = 0.5
    """Adam's decay of the average gradient."""
    beta2: Share = 0.99
    """Adam's decay of the average square."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon."""
