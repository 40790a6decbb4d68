"""Settings of the GANs: DCGAN, Wasserstein GAN, conditional GAN."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from generative.classifier.config import CNNClassifierConfig
from generative.training.ranges import (
    Checked,
    Choices,
    NonNegative,
    Positive,
    Probability,
    Quantile,
    Share,
    Size,
    SizeOrZero,
    Waves,
    Widths,
)

if TYPE_CHECKING:
    from torch import nn

    from generative.gan.model import GAN
    from generative.nets.projected import ProjectedCritic


@dataclass(frozen=True)
class GANConfig(Checked):
    """A generator and its critic; the defaults are the book's DCGAN (chapter 4).

    Images are made by convolutions, points by layers that are fully connected.
    """

    shape: Widths = (1, 64, 64)
    """Shape of an example: (C, H, W) for images in [0, 1], (D,) for points."""
    latent_dim: Size = 100
    """Numbers that the generator makes an example of."""
    widths: Widths = (64, 128, 256, 512)
    """Feature maps of the critic's convolutions of stride 2, from the image on; the generator has
    them in reverse. For points: units of the hidden layers of both."""
    batch_norm: Literal["both", "generator", "none"] = "both"
    """Networks that normalise over the batch, in all layers but those next to the data."""
    bias: bool = False
    """In the layers that no batch normalisation follows."""
    dropout: Share = 0.3
    """Share of features that the critic leaves out in training."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """Doubling of a side in the generator: a transposed convolution, or repeated pixels and then a
    convolution, which leaves no chequered patterns."""
    spectral_norm: bool = False
    """Divide the critic's weights by their largest singular values (Miyato et al. 2018)."""
    num_waves: Waves = 0
    """Points: the critic also sees sines and cosines of this many wavelengths, 4, 2, 1 ..., and
    so resolves fine detail."""
    init: Literal["glorot", "normal"] = "glorot"
    """First weights: uniform as in the book's framework, or normal with deviation 0.02 as in the
    DCGAN paper. Of points always uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) not in (1, 3):
            raise ValueError(f"shape is {self.shape}; give (C, H, W) for images or (D,) for points")
        fold = 2 ** len(self.widths)
        if len(self.shape) == 3 and any(side % fold for side in self.shape[1:]):
            raise ValueError(
                f"shape is {self.shape}; {len(self.widths)} convolutions of stride 2 need a height "
                f"and width that {fold} divides"
            )
        if len(self.shape) == 1 and self.batch_norm != "none":
            raise ValueError(f"batch_norm is {self.batch_norm!r}; networks of points have 'none'")
        if len(self.shape) == 3 and self.num_waves:
            raise ValueError(f"num_waves is {self.num_waves}; only points of shape (D,) have waves")

    def build(self) -> GAN:
        """Generator and critic of images or of points."""
        from generative.gan.model import GAN
        from generative.gan.networks import Critic, Generator

        return GAN(Generator(self), Critic(self), self.shape, self.latent_dim, config=self)


@dataclass(frozen=True)
class WGANConfig(GANConfig):
    """The same with a critic that sees every image by itself; the sizes are the book's."""

    shape: Widths = (3, 64, 64)
    latent_dim: Size = 128
    batch_norm: Literal["both", "generator", "none"] = "generator"
    bias: bool = True
    dropout: float = 0.0
    """Share of features that the critic leaves out in training (book: 0.3): with it the slope that
    is held at 1 is that of another critic at every step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_norm == "both":
            raise ValueError(
                "batch_norm is 'both'; a critic that normalises over the batch has no gradient at "
                "a single image to penalise, give 'generator' or 'none'"
            )


@dataclass(frozen=True)
class ProjectedCriticConfig(Checked):
    """A critic that sees images by the features of a classifier, which is not trained (Sauer et al.
    2021); see `generative.nets.projected`."""

    features: CNNClassifierConfig = field(default_factory=CNNClassifierConfig)
    """The classifier, of images of the same shape; what its classes are is no matter here."""
    width: Size = 32
    """Feature maps of the heads on its maps, twice as many at their ends."""
    pixel_width: Size = 16
    """The same of the head on the pixels."""
    pixel_gain: Positive = 1.0
    """Factor of the pixels before their head, which decides how faint a difference it can see."""
    std_group: SizeOrZero = 0
    """Examples that each head compares with each other, see `minibatch_std`, in batches that it
    divides; 0 for none."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones saw the pixels as they are, and each image by itself."""
        return {"pixel_gain": 1.0, "std_group": 0, **settings}

    def check_batch(self, batch_size: int) -> None:
        """Refuse batches that its groups do not divide.

        Raises:
            ValueError: they do not.
        """
        if self.std_group and batch_size % self.std_group:
            raise ValueError(
                f"batch_size is {batch_size}, which model.projected.std_group {self.std_group} "
                "does not divide; give a multiple of it, or std_group 0"
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse images of a shape that the classifier does not see.

        Raises:
            ValueError: the shapes differ.
        """
        if tuple(shape) != tuple(self.features.image_shape):
            raise ValueError(
                f"shape is {tuple(shape)}, and the classifier of the critic sees images "
                f"{tuple(self.features.image_shape)}; give both one shape"
            )

    def build(
        self, shape: tuple[int, ...], num_classes: int = 0, source_channels: int = 0
    ) -> ProjectedCritic:
        """The critic around a classifier with fresh weights; `network.load_state_dict` takes those
        of a trained one."""
        from generative.nets.projected import ProjectedCritic

        return ProjectedCritic(
            self.features.build(), shape, self.width, self.pixel_width, num_classes,
            self.pixel_gain, source_channels, self.std_group,
        )  # fmt: skip


@dataclass(frozen=True)
class ConditionalGANConfig(WGANConfig):
    """The same with a label; the sizes are the book's, for faces with blond hair or not."""

    latent_dim: Size = 32
    widths: Widths = (64, 128, 128, 128)
    num_classes: Choices = 2
    """Labels count from 0 to num_classes - 1."""
    conditioning: Literal["planes", "projection"] = "planes"
    """Form in which the critic sees the label: further channels (for points, numbers) that are 1
    for the class, or the product of its last features and a vector of the class (Miyato & Koyama
    2018). """
    generator: Literal["convolutions", "residual"] = "convolutions"
    """Residual is BigGAN's without attention: blocks whose norms know the label and a part of the
    noise, and of which the last works at all pixels. It has no use for batch_norm, bias, upsample
    and init."""
    projected: ProjectedCriticConfig | None = None
    """A critic that sees images by the features of a classifier, in place of one of convolutions;
    then conditioning, dropout, spectral_norm and num_waves are of no use."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older ones had both networks of convolutions."""
        return {"generator": "convolutions", "projected": None, **settings}

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = len(self.widths) + 1
        if self.generator == "residual" and (len(self.shape) != 3 or self.latent_dim % parts):
            raise ValueError(
                f"shape is {self.shape} and latent_dim {self.latent_dim}; a residual generator "
                f"makes images, and its {parts - 1} blocks and first layer take equal parts of the "
                f"noise: give a multiple of {parts}"
            )
        if self.projected is None:
            return
        self.projected.check_shape(self.shape)
        unused = {"conditioning": "planes", "dropout": 0.0, "spectral_norm": False, "num_waves": 0}
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, which a projected critic has no use for; "
                    f"leave it {value!r}"
                )

    def build(self) -> GAN:
        """Generator and critic that get the label as input."""
        from generative.gan.model import GAN
        from generative.gan.networks import ConditionalGenerator, PlanesCritic, ProjectionCritic

        if self.projected is not None:
            critic = self.projected.build(self.shape, self.num_classes)
        else:
            critic = (PlanesCritic if self.conditioning == "planes" else ProjectionCritic)(self)
        generator: nn.Module
        if self.generator == "residual":
            from generative.nets.residual import ResidualGenerator

            generator = ResidualGenerator(
                self.shape, self.latent_dim, self.widths, self.num_classes,
                shared_dim=self.latent_dim, split_z=True,
            )  # fmt: skip
        else:
            generator = ConditionalGenerator(self)
        return GAN(generator, critic, self.shape, self.latent_dim, self.num_classes, config=self)


@dataclass(frozen=True)
class GANLossConfig(Checked):
    """Training settings of a GAN; the defaults are the book's, but for what `GAN_BOOK` says."""

    objective: Literal["bce", "hinge", "squares", "relativistic"] = "bce"
    """bce: cross-entropy of real or generated, the generator's labels turned round (Goodfellow et
    al. 2014). hinge: Lim & Ye 2017. squares: squared distance of heights from 1 for real and 0 for
    generated (Mao et al. 2017). relativistic: of pairs of a real and a generated example, which
    is which (Jolicoeur-Martineau 2019)."""
    clip: Share = 0.0
    """bce: keep probabilities this far from 0 and 1, as the book's framework does (1e-7); beyond,
    there is no gradient. 0 computes with logits, without that limit."""
    label_noise: Share = 0.1
    """bce: the critic's labels are moved by up to so much, at random."""
    noise_direction: Literal["outward", "inward"] = "inward"
    """Inward, between 0 and 1, or outward as in the book, to below 0 and above 1."""
    flip: Share = 0.0
    """bce: share of the critic's labels that are turned round, at random."""
    r1: NonNegative = 0.0
    """Adds r1 / 2 times the squared slope of heights at real examples (Mescheder et al. 2018)."""
    r2: NonNegative = 0.0
    """The same at generated ones (Roth et al. 2017)."""
    penalty_every: Size = 1
    """Updates from one with these penalties to the next, which then weigh as many times as much
    (Karras et al. 2020, "lazy regularisation"): they cost more than all else in an update."""
    penalty_end: Quantile = 1.0
    """Share of r1 and r2 that is left at the last step (geometric): the more lasts, the smoother
    the heights, and the less sharp what the generator learns of them."""
    critic_steps: Size = 1
    """Steps of the critic in an update."""
    generator_steps: Size = 1
    """Steps of the generator in an update; more than the critic's provoke mode collapse."""
    lr: NonNegative = 2e-4
    """Adam's learning rate for the generator."""
    critic_lr: NonNegative = 2e-4
    """The same for the critic."""
    lr_end: Probability = 1.0
    """Share of both that is left at the last step (cosine; 1: constant, as in the book)."""
    beta1: Share = 0.5
    """Adam's decay of the average gradient."""
    beta2: Share = 0.999
    """Adam's decay of the average square."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    ema: Share = 0.0
    """Decay of the average of the generator's weights that is kept in their place; 0 keeps the last
    weights."""
    orthogonal: NonNegative = 0.0
    """Weight of a penalty on products of the generator's filters (Brock et al. 2019: 1e-4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip >= 0.5:
            raise ValueError(f"clip is {self.clip}; give 0 or a small number below 0.5")
        if self.label_noise > 0.5 or self.flip >= 0.5:
            raise ValueError(
                f"label_noise is {self.label_noise} and flip {self.flip}; from 0.5 on labels say "
                "nothing or the opposite"
            )
        unbounded = self.label_noise and self.noise_direction == "outward" and not self.clip
        if self.objective == "bce" and unbounded:
            raise ValueError(
                "labels beyond 0 and 1 with clip 0: such a loss has no lower bound; give a clip, "
                "or noise_direction 'inward'"
            )


GAN_BOOK = GANLossConfig(noise_direction="outward", clip=1e-7)
"""The book's program: labels beyond 0 and 1, whose loss has no bound but where its logarithm is
cut off, and beyond that no gradient."""


@dataclass(frozen=True)
class WGANLossConfig(Checked):
    """Training settings of a Wasserstein GAN; the defaults are the book's, with the penalty as
    published (Gulrajani et al. 2017); see `WGAN_BOOK`."""

    lipschitz: Literal["penalty", "clipping"] = "penalty"
    """Bound of the critic's slope, near or below 1: a penalty on its gradient (Gulrajani et al.
    2017), or clipping all of its weights (Arjovsky et al. 2017)."""
    penalty: NonNegative = 10.0
    """Weight of the gradient penalty."""
    alpha: Literal["uniform", "normal"] = "uniform"
    """Point between a real and a generated example where the gradient is taken: uniform in [0, 1]
    as in the paper, or normal as in the book's program, which takes two in three of them
    outside."""
    norm_eps: NonNegative = 1e-12
    """Added to the squared norm under the root, whose slope at 0 is else infinite (book: none)."""
    clip: Positive = 0.01
    """Clipping: largest weight of the critic."""
    critic_steps: Size = 3
    """Steps of the critic, on one batch of real examples, for each of the generator."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """RMSprop is what the paper takes for clipping."""
    lr: NonNegative = 2e-4
    """Learning rate of the generator."""
    critic_lr: NonNegative = 2e-4
    """Learning rate of the critic."""
    lr_end: Probability = 1.0
    """Share of both that is left at the last step (cosine; 1: constant)."""
    beta1: Share = 0.5
    """Adam's decay of the average gradient."""
    beta2: Share = 0.9
    """Adam's decay of the average square, and RMSprop's."""
    adam_eps: Positive = 1e-7
    """Epsilon of both optimisers (the book's framework has 1e-7)."""
    ema: Share = 0.0
    """Decay of the average of the generator's weights that is kept in their place; 0 keeps the last
    weights."""


WGAN_BOOK = WGANLossConfig(alpha="normal", norm_eps=0.0)
"""The book's program: the penalty is taken beyond real and generated examples in two of three
cases, and a slope of 0 ends in NaN. Its critic has a dropout of 0.3."""
