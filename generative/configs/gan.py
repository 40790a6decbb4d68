"""Settings of the GANs: DCGAN, Wasserstein GAN, conditional GAN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GANConfig:
    """A generator and the network that judges it; the defaults are the book's DCGAN (chapter 4).

    Images are made by convolutions, points by layers that are fully connected.
    """

    shape: tuple[int, ...] = (1, 64, 64)
    """Of one example: (C, H, W) for images in [0, 1], (D,) for points."""
    latent_dim: int = 100
    """Numbers that the generator makes an example of."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Feature maps of the judge's convolutions of stride 2, from the image on; the generator has
    them in reverse. For points: units of the hidden layers of both."""
    batch_norm: Literal["both", "generator", "none"] = "both"
    """Which network normalises over the batch, its layers next to the data left out."""
    bias: bool = False
    """In the layers that no batch normalisation follows."""
    dropout: float = 0.3
    """Share of features that the judge leaves out in training."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """How the generator doubles a side: a transposed convolution, or repeated pixels and then a
    convolution, which leaves no chequered patterns."""
    spectral_norm: bool = False
    """Divide the judge's weights by their largest singular values (Miyato et al. 2018)."""
    num_waves: int = 0
    """Points: the judge also sees sines and cosines of so many wavelengths from 4 down by halves,
    with which it can tell fine detail."""
    init: Literal["glorot", "normal"] = "glorot"
    """First weights: uniform as in the book's framework, or normal with deviation 0.02 as in the
    DCGAN paper. Of points always uniform."""

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; give (C, H, W) for images or (D,) for points")
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim is {self.latent_dim}; it must be at least 1")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths is {self.widths}; give one or more positive numbers")
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
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; give a share from 0 up to below 1")


@dataclass(frozen=True)
class WGANConfig(GANConfig):
    """The same with a critic that sees every image by itself; the defaults are the book's."""

    shape: tuple[int, ...] = (3, 64, 64)
    latent_dim: int = 128
    batch_norm: Literal["both", "generator", "none"] = "generator"
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_norm == "both":
            raise ValueError(
                "batch_norm is 'both'; a critic that normalises over the batch has no gradient at "
                "a single image to penalise, give 'generator' or 'none'"
            )


@dataclass(frozen=True)
class ConditionalGANConfig(WGANConfig):
    """The same with a label; the defaults are the book's, for faces with blond hair or not."""

    latent_dim: int = 32
    widths: tuple[int, ...] = (64, 128, 128, 128)
    num_classes: int = 2
    """Labels count from 0 to num_classes - 1."""
    conditioning: Literal["planes", "projection"] = "planes"
    """How the critic sees the label: as further channels (for points, numbers) that are 1 for the
    class, or by the product of its last features and a vector of the class (Miyato & Koyama 2018).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; a choice needs at least 2")


@dataclass(frozen=True)
class GANLossConfig:
    """How a GAN is trained; the defaults are the book's."""

    objective: Literal["bce", "hinge", "relativistic"] = "bce"
    """bce: cross-entropy of real or generated, the generator's labels turned round (Goodfellow et
    al. 2014). hinge: Lim & Ye 2017. relativistic: of pairs of a real and a generated example, which
    is which (Jolicoeur-Martineau 2019)."""
    clip: float = 1e-7
    """bce: keep probabilities this far from 0 and 1, as the book's framework does; beyond, there is
    no gradient. 0 computes with logits, without that limit."""
    label_noise: float = 0.1
    """bce: the discriminator's labels are moved by up to so much, at random."""
    noise_direction: Literal["outward", "inward"] = "outward"
    """Outward as in the book, to below 0 and above 1, or inward, between 0 and 1."""
    flip: float = 0.0
    """bce: share of the discriminator's labels that are turned round, at random."""
    r1: float = 0.0
    """Adds r1 / 2 times the squared gradient of the score at real examples (Mescheder et al. 2018).
    """
    r2: float = 0.0
    """The same at generated ones (Roth et al. 2017)."""
    penalty_end: float = 1.0
    """Share of r1 and r2 that is left at the last step (geometric): the more lasts, the smoother
    the scores, and the less sharp what the generator learns of them."""
    discriminator_steps: int = 1
    """Steps of the discriminator in an update."""
    generator_steps: int = 1
    """Steps of the generator in an update; more than the discriminator's provoke mode collapse."""
    lr: float = 2e-4
    """Adam's learning rate for the generator."""
    discriminator_lr: float = 2e-4
    """The same for the discriminator."""
    lr_end: float = 1.0
    """Share of both that is left at the last step (cosine; 1: constant, as in the book)."""
    beta1: float = 0.5
    """Adam's decay of the average gradient."""
    beta2: float = 0.999
    """Adam's decay of the average square."""
    adam_eps: float = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    ema: float = 0.0
    """Decay of the average of the generator's weights that is kept in their place; 0 keeps the last
    weights."""

    def __post_init__(self) -> None:
        _check_training(self.discriminator_steps, self.generator_steps, self.ema, self.lr_end)
        if not 0 <= self.clip < 0.5:
            raise ValueError(f"clip is {self.clip}; give 0 or a small number below 0.5")
        if not (0 <= self.label_noise <= 0.5 and 0 <= self.flip < 0.5):
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
        if min(self.r1, self.r2) < 0 or not 0 < self.penalty_end <= 1:
            raise ValueError(
                f"r1 is {self.r1}, r2 {self.r2} and penalty_end {self.penalty_end}; penalties can "
                "not be negative, and a positive share of them, at most 1, has to be left"
            )


@dataclass(frozen=True)
class WGANLossConfig:
    """How a Wasserstein GAN is trained; the defaults are the book's WGAN-GP."""

    lipschitz: Literal["penalty", "clipping"] = "penalty"
    """What keeps the critic's slope near or below 1: a penalty on its gradient (Gulrajani et al.
    2017), or clipping all of its weights (Arjovsky et al. 2017)."""
    penalty: float = 10.0
    """Weight of the gradient penalty."""
    alpha: Literal["uniform", "normal"] = "normal"
    """Where between a real and a generated example the gradient is taken: uniform in [0, 1] as in
    the paper, or normal as in the book's program, which takes two in three of them outside."""
    norm_eps: float = 0.0
    """Added to the squared norm under the root, whose slope at 0 is else infinite (book: none)."""
    clip: float = 0.01
    """Clipping: largest weight of the critic."""
    critic_steps: int = 3
    """Steps of the critic, on one batch of real examples, for each of the generator."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """RMSprop is what the paper takes for clipping."""
    lr: float = 2e-4
    """Learning rate of the generator."""
    critic_lr: float = 2e-4
    """Learning rate of the critic."""
    lr_end: float = 1.0
    """Share of both that is left at the last step (cosine; 1: constant)."""
    beta1: float = 0.5
    """Adam's decay of the average gradient."""
    beta2: float = 0.9
    """Adam's decay of the average square, and RMSprop's."""
    adam_eps: float = 1e-7
    """Epsilon of both optimisers (the book's framework has 1e-7)."""
    ema: float = 0.0
    """Decay of the average of the generator's weights that is kept in their place; 0 keeps the last
    weights."""

    def __post_init__(self) -> None:
        _check_training(self.critic_steps, 1, self.ema, self.lr_end)
        if not (self.clip > 0 and self.penalty >= 0 and self.norm_eps >= 0):
            raise ValueError(
                f"clip is {self.clip}, penalty {self.penalty}, norm_eps {self.norm_eps}; clip has "
                "to be positive, the others must not be negative"
            )


def _check_training(judge_steps: int, generator_steps: int, ema: float, lr_end: float) -> None:
    if min(judge_steps, generator_steps) < 1:
        raise ValueError(
            f"an update has {judge_steps} steps of the judge and {generator_steps} of the "
            "generator; it needs at least one of each"
        )
    if not (0 <= ema < 1 and 0 <= lr_end <= 1 and math.isfinite(lr_end)):
        raise ValueError(f"ema is {ema} and lr_end {lr_end}; give shares, ema below 1")
