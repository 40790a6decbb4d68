"""Generators and critics of images and of points, with a label or without.

For them images have values from -1 to 1, as the generator's tanh gives them. The networks are those
of the DCGAN (Radford et al. 2016; Foster 2023, chapter 4), for points fully connected ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from generative.gan.config import ConditionalGANConfig, GANConfig
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_, normal_

__all__ = [
    "ConditionalGenerator",
    "Critic",
    "Generator",
    "PlanesCritic",
    "ProjectionCritic",
    "from_network",
    "to_network",
]


class Generator(nn.Module):
    """Noise (B, latent_dim) -> images (B, C, H, W) in [-1, 1], or points (B, D).

    3,574,656 parameters at the book's sizes.

    Args:
        config: see `GANConfig`.
        num_given: numbers that follow the noise, such as those of a label.
    """

    def __init__(self, config: GANConfig, num_given: int = 0):
        super().__init__()
        in_dim = config.latent_dim + num_given
        if len(config.shape) == 1:
            hidden = _hidden_layers(in_dim, config)
            self.layers = nn.Sequential(*hidden, _last_layer(config, config.shape[0]))
        else:
            self.layers = nn.Sequential(*_generator_layers(in_dim, config))
        _initialise(self, config)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def _generator_layers(in_dim: int, config: GANConfig) -> Iterator[nn.Module]:
    """From one pixel of `in_dim` channels to a small map, and then double its sides."""
    normalise, widths = config.batch_norm != "none", config.widths[::-1]
    small = _small_sides(config)
    bias = config.bias and not normalise
    yield nn.Unflatten(1, (in_dim, 1, 1))
    yield nn.ConvTranspose2d(in_dim, widths[0], small, bias=bias)
    for i, (before, after) in enumerate(itertools.pairwise((*widths, config.shape[0]))):
        if normalise:
            yield nn.BatchNorm2d(before, eps=1e-3, momentum=0.1)
        yield nn.LeakyReLU(0.2)
        bias = config.bias and (not normalise or i == len(widths) - 1)
        if config.upsample == "transposed":
            yield nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
        else:
            yield nn.Upsample(scale_factor=2)
            # "same" padding of an even kernel has the odd row and column at the end.
            yield nn.ZeroPad2d((1, 2, 1, 2))
            yield nn.Conv2d(before, after, 4, bias=bias)
    yield nn.Tanh()


class Critic(nn.Module):
    """Images (B, C, H, W) in [-1, 1], or points (B, D) -> heights (B,), higher for real ones.

    A height is the logit of "real" to a GAN; no sigmoid follows. 2,763,520 parameters at the book's
    sizes.

    Args:
        config: see `GANConfig`.
        num_given: channels (of points: numbers) that follow those of the example.
    """

    def __init__(self, config: GANConfig, num_given: int = 0):
        super().__init__()
        if len(config.shape) == 1:
            in_dim = config.shape[0] + num_given
            waves = [Waves(math.pi / 2, config.num_waves)] if config.num_waves else []
            width = in_dim * (1 + 2 * config.num_waves)
            self.features = nn.Sequential(*waves, *_hidden_layers(width, config, config.dropout))
            self.head = _last_layer(config, 1)
        else:
            channels = (config.shape[0] + num_given, *config.widths)
            self.features = nn.Sequential(*_critic_layers(channels, config))
            self.head = nn.Conv2d(channels[-1], 1, _small_sides(config), bias=config.bias)
        _initialise(self, config)
        if config.spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).flatten()


def _critic_layers(channels: tuple[int, ...], config: GANConfig) -> Iterator[nn.Module]:
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        normalise = config.batch_norm == "both" and i > 0
        bias = config.bias and not normalise
        yield nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias)
        if normalise:
            yield nn.BatchNorm2d(after, eps=1e-3, momentum=0.1)
        yield nn.LeakyReLU(0.2)
        yield nn.Dropout(config.dropout)


def _hidden_layers(in_dim: int, config: GANConfig, dropout: float = 0.0) -> Iterator[nn.Module]:
    for before, after in itertools.pairwise((in_dim, *config.widths)):
        yield nn.Linear(before, after, bias=config.bias)
        yield nn.LeakyReLU(0.2)
        if dropout:
            yield nn.Dropout(dropout)


def _last_layer(config: GANConfig, out_dim: int) -> nn.Linear:
    return nn.Linear(config.widths[-1], out_dim, bias=config.bias)


def _small_sides(config: GANConfig) -> tuple[int, int]:
    """Height and width of an image after all convolutions of the critic."""
    _, h, w = config.shape
    return (h >> len(config.widths), w >> len(config.widths))


def _initialise(network: nn.Module, config: GANConfig) -> None:
    if config.init == "normal" and len(config.shape) == 3:
        normal_(network)
    else:
        glorot_(network)


def to_network(x: Tensor) -> Tensor:
    """Images from [0, 1] to [-1, 1]; points as they are."""
    return 2 * x - 1 if x.dim() == 4 else x


def from_network(x: Tensor) -> Tensor:
    """The inverse."""
    return (x + 1) / 2 if x.dim() == 4 else x


class ConditionalGenerator(Generator):
    """A generator whose noise is followed by the label, one-hot; 728,963 parameters in the book."""

    def __init__(self, config: ConditionalGANConfig):
        super().__init__(config, num_given=config.num_classes)
        self.num_classes = config.num_classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim) and labels (B,) -> examples."""
        return super().forward(torch.cat([z, F.one_hot(labels, self.num_classes).to(z)], 1))


class PlanesCritic(Critic):
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


class ProjectionCritic(Critic):
    """height(x, label) = head(features(x)) + <vector of the label, summed features(x)>.

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
