"""Settings of GANs with self-attention: SAGAN and BigGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from generative.gan.config import GANLossConfig, ProjectedCriticConfig
from generative.training.ranges import Checked, Size, SizeOrZero, Widths

if TYPE_CHECKING:
    from generative.attention_gan.model import AttentionGAN


@dataclass(frozen=True)
class AttentionGANConfig(Checked):
    """A generator and a critic of residual blocks with self-attention.

    The defaults are those of SAGAN; BigGAN also has a shared_dim and split_z.
    """

    shape: Widths = (3, 128, 128)
    """Shape of an image, (C, H, W)."""
    num_classes: SizeOrZero = 1000
    """Labels count from 0 to num_classes - 1; 0 for no labels."""
    latent_dim: Size = 128
    """Numbers that the generator makes an image of."""
    widths: Widths = (64, 128, 256, 512, 1024)
    """Feature maps of the critic's blocks, each of which halves the sides, from the image on; one
    more keeps them. The generator has them in reverse, and its first maps are as wide as the last.
    """
    attention: Literal["pooled", "residual", "none"] = "pooled"
    """Layer at the resolution of attention_side: attention, a residual block of as many weights
    that sees each place alone (what the publication compares it with), or nothing."""
    attention_side: Size = 32
    """Height of the feature maps at which both networks have it."""
    shared_dim: SizeOrZero = 0
    """Width of an embedding of the class that all norms of the generator share; 0 gives each norm
    a table of its own."""
    split_z: bool = False
    """Give the first layer and each block a part of z of its own, in place of all to the first."""
    spectral_norm: Literal["both", "critic", "none"] = "both"
    """Networks whose weights are divided by their largest singular values."""
    projected: ProjectedCriticConfig | None = None
    """A critic that sees images by the features of a classifier, in place of one with attention;
    the weights of its heads are divided by their largest singular values in any case."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones had critics with attention."""
        return {"projected": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = len(self.widths)
        fold = 2**blocks
        if len(self.shape) != 3 or any(side % fold for side in self.shape[1:]):
            raise ValueError(
                f"shape is {self.shape}; {blocks} blocks that halve need (C, H, W) with a height "
                f"and width that {fold} divides: change the shape or the number of widths"
            )
        sides = [self.shape[1] >> level for level in range(1, blocks)]
        if self.attention != "none" and self.attention_side not in sides:
            raise ValueError(
                f"attention_side is {self.attention_side}; the feature maps between the blocks "
                f"have heights {', '.join(map(str, sides)) or 'of none'}: give one of them, or "
                "attention 'none'"
            )
        if self.projected is not None:
            self.projected.check_shape(self.shape)
        if self.num_classes == 1:
            raise ValueError("num_classes is 1; give 2 or more, or 0 for no labels")
        if self.split_z and self.latent_dim % (blocks + 1):
            raise ValueError(
                f"latent_dim is {self.latent_dim}; {blocks} blocks and the first layer take equal "
                f"parts of it: give a multiple of {blocks + 1}"
            )

    @property
    def attention_level(self) -> int:
        """Halvings of an image to the feature maps with attention."""
        if self.attention == "none":
            return 1
        return (self.shape[1] // self.attention_side).bit_length() - 1

    def build(self) -> AttentionGAN:
        """Generator and critic of images."""
        from generative.attention_gan.model import AttentionGAN
        from generative.attention_gan.networks import AttentionCritic, AttentionGenerator
        from generative.nets.norms import spectral_norm_

        generator = AttentionGenerator(self)
        if self.spectral_norm == "both":
            spectral_norm_(generator)
        if self.projected is not None:
            critic = self.projected.build(self.shape, self.num_classes)
        else:
            critic = AttentionCritic(self)
            if self.spectral_norm != "none":
                spectral_norm_(critic)
        return AttentionGAN(generator, critic, self)


SAGAN = AttentionGANConfig()
"""Zhang et al. 2019, for ImageNet at 128x128."""
BIGGAN = AttentionGANConfig(
    latent_dim=120,
    widths=(96, 192, 384, 768, 1536),
    attention_side=64,
    shared_dim=128,
    split_z=True,
)
"""Half as many feature maps again, one embedding of the class, and z in all blocks (Brock et al.
2019, table 4, for the same data): 70,433,988 and 87,982,370 parameters."""
SAGAN_LOSS = GANLossConfig(
    objective="hinge", lr=1e-4, critic_lr=4e-4, beta1=0.0, beta2=0.9, adam_eps=1e-8
)
"""The publication's training, with batches of 256."""
BIGGAN_LOSS = GANLossConfig(
    objective="hinge",
    critic_steps=2,
    lr=5e-5,
    critic_lr=2e-4,
    beta1=0.0,
    beta2=0.999,
    adam_eps=1e-8,
    ema=0.9999,
    orthogonal=1e-4,
)
"""The publication's training, with batches of 2,048."""
