"""Settings of ProGAN, StyleGAN and StyleGAN2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from generative.gan.config import ProjectedCriticConfig
from generative.training.ranges import (
    Checked,
    CountOrZero,
    Depth,
    NonNegative,
    Positive,
    Probability,
    Quantile,
    Share,
    Size,
    SizeOrZero,
    Widths,
)

if TYPE_CHECKING:
    from generative.stylegan.model import ProGAN, StyleGAN

__all__ = [
    "BOOK",
    "STYLEGAN2",
    "ProGANConfig",
    "ProGANLossConfig",
    "StyleGAN2Config",
    "StyleGANConfig",
    "StyleGANLossConfig",
]

SMALLEST = 4
"""Side of the images that growth begins with."""


@dataclass(frozen=True)
class ProGANConfig(Checked):
    """A generator and a critic that grow; the defaults are the paper's (Karras et al. 2018)."""

    shape: Widths = (3, 1024, 1024)
    """Shape of an image, (C, S, S); S is 4, 8, 16, ..."""
    latent_dim: Size = 512
    """Numbers that the generator makes an image of."""
    channel_base: Size = 16_384
    """Layers at side s have channel_base / s channels,"""
    channel_max: Size = 512
    """and at most this many."""
    std_group: SizeOrZero = 4
    """Examples that the critic compares with each other, see `minibatch_std`, in batches that it
    divides; 0 for none. A projected critic has a setting of its own."""
    projected: ProjectedCriticConfig | None = None
    """A critic that sees images, brought to the full side, by the features of a classifier, in
    place of one that grows."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones had critics of their own."""
        return {"projected": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 3 or self.shape[1] != self.shape[2]:
            raise ValueError(f"shape is {self.shape}; give (C, S, S), the shape of square images")
        if self.shape[1] != self.sides[-1]:
            raise ValueError(
                f"shape is {self.shape}; a network that grows by doubling from {SMALLEST} needs a "
                f"side of {SMALLEST}, 8, 16, ...: give {self.sides[-1]} or {2 * self.sides[-1]}"
            )
        if self.channel_base < self.shape[1]:
            raise ValueError(
                f"channel_base is {self.channel_base}, which leaves no channel at side "
                f"{self.shape[1]}; give at least {self.shape[1]}"
            )
        if self.projected is not None:
            self.projected.check_shape(self.shape)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides that the networks grow through: 4, 8, ..., S."""
        sides = [SMALLEST]
        while 2 * sides[-1] <= self.shape[1]:
            sides.append(2 * sides[-1])
        return tuple(sides)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the layers at each side."""
        return tuple(min(self.channel_max, self.channel_base // side) for side in self.sides)

    def build(self) -> ProGAN:
        """Generator and critic that grow."""
        from generative.stylegan.model import ProGAN
        from generative.stylegan.progan import GrownGenerator, grown_critic

        pair = GrownGenerator(self), grown_critic(self)
        return ProGAN(*pair, self.shape, self.latent_dim, config=self)


@dataclass(frozen=True)
class StyleGANConfig(ProGANConfig):
    """A generator with styles and ProGAN's critic (Karras et al. 2019)."""

    style_dim: Size = 512
    """Width of w and of the layers that map z to it."""
    mapping_layers: Depth = 8
    """Layers that map z to w."""
    mapping_lr: Quantile = 0.01
    """Their learning rate, as a share of that of the others."""

    def build(self) -> StyleGAN:
        """Generator with styles and noise, and a critic that grows with it."""
        from generative.stylegan.model import StyleGAN
        from generative.stylegan.progan import grown_critic
        from generative.stylegan.styles import StyleGenerator

        pair = StyleGenerator(self), grown_critic(self)
        return StyleGAN(*pair, self.shape, self.latent_dim, config=self)


@dataclass(frozen=True)
class StyleGAN2Config(StyleGANConfig):
    """Modulated weights and no growth; the defaults are the paper's configuration F (Karras et al.
    2020)."""

    channel_base: Size = 32_768
    """Layers at side s have channel_base / s channels,"""

    def build(self) -> StyleGAN:
        """Generator that adds up images of all sides, and a residual or projected critic."""
        from generative.stylegan.model import StyleGAN
        from generative.stylegan.stylegan2 import ResidualCritic, SkipGenerator

        if self.projected is not None:
            critic = self.projected.build(self.shape)
        else:
            critic = ResidualCritic(self)
        return StyleGAN(SkipGenerator(self), critic, self.shape, self.latent_dim, config=self)


@dataclass(frozen=True)
class ProGANLossConfig(Checked):
    """Training settings of a GAN that grows; the defaults are ProGAN's, in batches of one size."""

    phase_images: CountOrZero = 800_000
    """Images of a phase: at side 4, then for each doubling one to fade the new layers in and one to
    train them. What is left of a training has the full side. 0 trains all layers from the start."""
    objective: Literal["wasserstein", "logistic", "relativistic", "hinge"] = "wasserstein"
    """wasserstein: heights as they are (Gulrajani et al. 2017). logistic: is it real (the
    non-saturating loss). relativistic: of pairs, which is real (Huang et al. 2024). hinge: Lim & Ye
    2017."""
    gradient_penalty: NonNegative = 10.0
    """Weight of (slope - 1)^2 between real and generated examples."""
    drift: NonNegative = 1e-3
    """Weight of the squared heights of real examples, which keeps them near 0."""
    r1: NonNegative = 0.0
    """Adds r1 / 2 times the squared slope of heights at real examples (Mescheder et al. 2018)."""
    r2: NonNegative = 0.0
    """The same at generated ones (Roth et al. 2017)."""
    penalty_end: Quantile = 1.0
    """Share of r1 and r2 that is left at the last step (geometric)."""
    penalty_every: Size = 1
    """Updates from one penalty of the critic to the next; of more than one it is a step of its own
    with so many times the weight (Karras et al. 2020, section 3.1)."""
    lr: NonNegative = 1e-3
    """Adam's learning rate for the generator."""
    critic_lr: NonNegative = 1e-3
    """The same for the critic."""
    lr_end: Probability = 1.0
    """Share of both that is left at the last step (cosine; 1: constant)."""
    beta1: Share = 0.0
    """Adam's decay of the average gradient."""
    beta2: Share = 0.99
    """Adam's decay of the average square."""
    adam_eps: Positive = 1e-8
    ema: Share = 0.999
    """Decay of the average of the generator's weights that is kept in their place; 0 keeps the last
    weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "wasserstein" and not (self.gradient_penalty or self.r1 or self.r2):
            raise ValueError(
                "objective is 'wasserstein' without a penalty of slopes, a loss without a lower "
                "bound; give gradient_penalty 10, or r1"
            )


@dataclass(frozen=True)
class StyleGANLossConfig(ProGANLossConfig):
    """The same of a GAN with styles; the defaults are StyleGAN's for faces."""

    objective: Literal["wasserstein", "logistic", "relativistic", "hinge"] = "logistic"
    """As of ProGAN; the book has wasserstein with its penalty."""
    gradient_penalty: NonNegative = 0.0
    drift: NonNegative = 0.0
    r1: NonNegative = 10.0
    mixing: Probability = 0.9
    """Share of images that are made of two styles."""
    mixing_kind: Literal["crossover", "layers"] = "crossover"
    """One style up to a layer at random and another from there on, as published, or one of the two
    at random in each layer, as the book tells it."""
    path_weight: NonNegative = 0.0
    """Weight of the penalty of path lengths (StyleGAN2: 2)."""
    path_every: Size = 8
    """Updates from one step of that penalty to the next, with so many times the weight (the book:
    16)."""
    path_decay: Quantile = 0.01
    """Rate at which the mean path length follows the last ones."""
    path_shrink: Size = 2
    """The batch of that step is smaller by this factor."""


BOOK = StyleGANLossConfig(
    objective="wasserstein", gradient_penalty=10.0, drift=1e-3, r1=0.0, mixing_kind="layers"
)
"""StyleGAN as the book describes it: Wasserstein loss with a gradient penalty, styles mixed layer
by layer."""
STYLEGAN2 = StyleGANLossConfig(
    phase_images=0, penalty_every=16, path_weight=2.0, lr=2e-3, critic_lr=2e-3
)
"""StyleGAN2 as published: no growth, lazy R1, path lengths."""
