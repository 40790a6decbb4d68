"""Conditional GAN: generator and critic are told a label, so that samples can be asked for by it.

A critic that knows the label can reject a good image of the wrong class, so the generator learns to
make the class it is asked for (Mirza & Osindero 2014; Foster 2023, chapter 4). The book shows the
label to the critic as further channels; a projection takes it in at the end (Miyato & Koyama 2018).

    gan = ConditionalGAN.from_pretrained("runs/conditional_gan/model")
    gan.sample(8, labels=1)              # 8 of class 1
    gan.sample(2, labels=torch.tensor([0, 1]))
    gan.generate(z, labels)              # the same z with another label: only what it says changes

`WGANLearner` trains it as the book does, `GANLearner` with the losses of GANs; a batch is (images,
labels).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.gan.config import (
    ConditionalGANConfig,
    GANLossConfig,
    WGANLossConfig,
)
from generative.gan.model import (
    Discriminator,
    GANLearner,
    Generator,
    check_examples,
    draw_z,
    from_network,
    to_network,
)
from generative.gan.wgan import WGANLearner
from generative.training.checks import check_labels, check_vectors
from generative.training.pretrained import Pretrained

__all__ = [
    "ConditionalGAN",
    "ConditionalGANConfig",
    "ConditionalGenerator",
    "GANLearner",
    "GANLossConfig",
    "PlanesCritic",
    "ProjectionCritic",
    "WGANLearner",
    "WGANLossConfig",
]


class ConditionalGenerator(Generator):
    """A generator whose noise is followed by the label, one-hot; 728,963 parameters in the book."""

    def __init__(self, config: ConditionalGANConfig):
        super().__init__(config, num_given=config.num_classes)
        self.num_classes = config.num_classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim) and labels (B,) -> examples."""
        return super().forward(torch.cat([z, F.one_hot(labels, self.num_classes).to(z)], 1))


class PlanesCritic(Discriminator):
    """A critic that sees, behind the channels of an image, one for each class: 1 everywhere for the
    label, 0 for the others. 662,977 parameters in the book."""

    def __init__(self, config: ConditionalGANConfig):
        super().__init__(config, num_given=config.num_classes)
        self.num_classes = config.num_classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (B, ...) and labels (B,) -> (B,)."""
        planes = F.one_hot(labels, self.num_classes).to(x)
        planes = planes.reshape(*planes.shape, *[1] * (x.dim() - 2))
        return super().forward(torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], 1))


class ProjectionCritic(Discriminator):
    """score(x, label) = head(features(x)) + <vector of the label, summed features(x)>.

    With spectral_norm the matrix of all vectors is divided by its largest singular value, as the
    other weights are.
    """

    def __init__(self, config: ConditionalGANConfig):
        super().__init__(config)
        self.spectral_norm = config.spectral_norm
        self.vectors = nn.Embedding(config.num_classes, config.widths[-1])
        nn.init.xavier_uniform_(self.vectors.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (B, ...) and labels (B,) -> (B,)."""
        features = self.features(x)
        summed = features.flatten(2).sum(2) if features.dim() == 4 else features
        vectors = self.vectors.weight
        if self.spectral_norm:
            vectors = vectors / torch.linalg.matrix_norm(vectors, 2)
        return self.head(features).flatten() + (F.embedding(labels, vectors) * summed).sum(1)


class ConditionalGAN(Pretrained, nn.Module):
    """Generator and critic that both know the label."""

    config_class = ConditionalGANConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample"})

    def __init__(self, config: ConditionalGANConfig | None = None):
        super().__init__()
        self.config = config = config or ConditionalGANConfig()
        self.generator = ConditionalGenerator(config)
        critic = PlanesCritic if config.conditioning == "planes" else ProjectionCritic
        self.discriminator = critic(config)

    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        """Noise (B, latent_dim) and labels (B,) -> images (B, C, H, W) in [0, 1], or points."""
        z = check_vectors(z, self.config.latent_dim, "z", self)
        return from_network(self.generator(z, self._check_labels(labels, len(z))))

    def score(self, x: Tensor, labels: Tensor) -> Tensor:
        """The critic's height at each example with its label, (B, *shape) and (B,) -> (B,).

        Raises:
            ValueError: examples of another shape, type or range, or labels that there are not.
        """
        x = to_network(check_examples(x, self))
        return self.discriminator(x, self._check_labels(labels, len(x)))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Tensor | int | None = None,
    ) -> Tensor:
        """n examples (n, *shape).

        Args:
            n: how many.
            generator: for repeatable draws.
            labels: of each, (n,) integers; one for all; or none for classes 0, 1, 2, ... in turn.
        Raises:
            ValueError: labels of another shape or type, or that there are not.
        """
        z = draw_z(self, n, generator)
        if labels is None:
            asked = torch.arange(n) % self.config.num_classes
        else:
            asked = labels if isinstance(labels, Tensor) else torch.full((n,), labels)
        return self.generate(z, asked.to(z.device))

    def _check_labels(self, labels: Tensor, n: int) -> Tensor:
        return check_labels(labels, n, self.config.num_classes, "this GAN")
