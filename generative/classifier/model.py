"""Classifiers of images: multilayer perceptron and convolutional network. Losses, learner.

The book's warm-up (Foster 2023, chapter 2), and what later chapters need where a generated image
has to be judged: a discriminative model, p(class | image).

    model = CNNClassifier.from_pretrained("runs/classifier/model")
    model.classify(images)               # (B, 3, 32, 32) in [0, 1] -> classes (B,)
    model.log_probs(images)              # (B, num_classes), nats

`log_probs` is not the `log_prob` of the other families, which is that of the image itself.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.classifier.config import (
    ClassifierLossConfig,
    CNNClassifierConfig,
    MLPClassifierConfig,
)
from generative.nets.conv import same_pad
from generative.nets.init import glorot_
from generative.training.checks import check_batch, check_images, check_labels, check_some
from generative.training.optimisation import ModelLearner, Optimisation, parameter_groups
from generative.training.pretrained import Pretrained

__all__ = [
    "CNNClassifier",
    "CNNClassifierConfig",
    "ClassifierLearner",
    "ClassifierLossConfig",
    "ClassifierLosses",
    "MLPClassifier",
    "MLPClassifierConfig",
    "classifier_loss",
    "confusion_matrix",
    "random_shift",
]


class MLPClassifier(Pretrained, nn.Module):
    """Dense layers on all pixels at once; at the book's sizes 646,260 parameters.

    It does not know which pixels are neighbours. Without hidden layers it is logistic regression.
    """

    config_class = MLPClassifierConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"loss"})

    def __init__(self, config: MLPClassifierConfig | None = None):
        super().__init__()
        self.config = config = config or MLPClassifierConfig()
        self.net = nn.Sequential(nn.Flatten())
        dim = math.prod(config.image_shape)
        for width in config.hidden_dims:
            self.net.append(nn.Linear(dim, width))
            self.net.append(nn.ReLU())
            dim = width
        self.net.append(nn.Linear(dim, config.num_classes))
        glorot_(self)

    def logits(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> scores before the softmax, (B, num_classes).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.net(check_images(x, self.config.image_shape, self))

    def log_probs(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> log probability of each class, nats, (B, num_classes)."""
        return self.logits(x).log_softmax(1)

    def classify(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the likeliest class of each, int64 (B,)."""
        return self.logits(x).argmax(1)

    def loss(self, x: Tensor, labels: Tensor) -> ClassifierLosses:
        """Cross-entropy of images (B, C, H, W) with their classes, int64 (B,)."""
        return classifier_loss(self.logits(check_some(x, self)), labels)


class CNNClassifier(Pretrained, nn.Module):
    """Convolutions with batch normalisation, then dense layers.

    At the book's sizes 591,914 parameters, and 640 averages that are not trained.
    """

    config_class = CNNClassifierConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"loss"})

    def __init__(self, config: CNNClassifierConfig | None = None):
        super().__init__()
        self.config = config = config or CNNClassifierConfig()
        self.net = nn.Sequential()
        c, *sides = config.image_shape
        for after, kernel, stride in zip(
            config.channels, config.kernels, config.strides, strict=True
        ):
            self.net.append(same_pad(sides, kernel, stride))
            self.net.append(nn.Conv2d(c, after, kernel, stride))
            if config.batch_norm:
                self.net.append(nn.BatchNorm2d(after, config.norm_eps, config.norm_momentum))
            self.net.append(nn.LeakyReLU(config.slope))
            c, sides = after, [math.ceil(side / stride) for side in sides]
        self.net.append(nn.Flatten())
        dim = c * math.prod(sides)
        if config.hidden_dim:
            self.net.append(nn.Linear(dim, config.hidden_dim))
            dim = config.hidden_dim
            if config.batch_norm:
                self.net.append(nn.BatchNorm1d(dim, config.norm_eps, config.norm_momentum))
            self.net.append(nn.LeakyReLU(config.slope))
        self.net.append(nn.Dropout(config.dropout))
        self.net.append(nn.Linear(dim, config.num_classes))
        glorot_(self)

    def logits(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> scores before the softmax, (B, num_classes).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.net(check_images(x, self.config.image_shape, self))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> what the last layer sees, (B, D).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.net[:-1](check_images(x, self.config.image_shape, self))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> maps behind the activation of each convolution.

        Raises:
            ValueError: another shape or type. Pixels may lie outside [0, 1], as those of a decoder
                in training may.
        """
        x, maps = check_batch(x, self.config.image_shape, "images", self), []
        for layer in self.net:
            if isinstance(layer, nn.Flatten):
                break
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x)
        return maps

    def log_probs(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> log probability of each class, nats, (B, num_classes)."""
        return self.logits(x).log_softmax(1)

    def classify(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the likeliest class of each, int64 (B,)."""
        return self.logits(x).argmax(1)

    def loss(self, x: Tensor, labels: Tensor) -> ClassifierLosses:
        """Cross-entropy of images (B, C, H, W) with their classes, int64 (B,)."""
        return classifier_loss(self.logits(check_some(x, self)), labels)


class ClassifierLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Cross-entropy, nats."""
    accuracy: Tensor
    """Share of images whose likeliest class is the right one."""


def classifier_loss(logits: Tensor, labels: Tensor) -> ClassifierLosses:
    """-log softmax(logits)[label], and whether the label has the largest score.

    Args:
        logits: (B, num_classes).
        labels: int64 (B,), from 0.
    Raises:
        ValueError: labels of another shape or type, or a class that there is not.
    """
    check_labels(labels, *logits.shape, who="this classifier")
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    return ClassifierLosses(F.cross_entropy(logits, labels), accuracy)


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Number of images of a class (row) that were classified as another (column), int64 (K, K)."""
    pairs = labels * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def random_shift(x: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W), each moved by at most this many pixels up or down and left or right."""
    b, _, h, w = x.shape
    offset = torch.randint(2 * most + 1, (2, b, 1), generator=generator, device=x.device)
    rows = (torch.arange(h, device=x.device) + offset[0])[:, None, :, None]
    columns = (torch.arange(w, device=x.device) + offset[1])[:, None, None, :]
    images = torch.arange(b, device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return F.pad(x, (most, most, most, most))[images, channels, rows, columns]


class ClassifierLearner(ModelLearner["MLPClassifier | CNNClassifier"]):
    """Adam on the cross-entropy; one `update` per batch."""

    def __init__(
        self, model: MLPClassifier | CNNClassifier, config: ClassifierLossConfig, steps: int
    ):
        groups = parameter_groups(model, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.lr, eps=config.adam_eps)
        super().__init__(model, Optimisation(model, optimizer, steps, config.final_lr))
        self.config = config

    def update(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1] and their classes, int64 (B,)."""
        x, labels = batch
        if self.config.shift:
            x = random_shift(x, self.config.shift)
        return self.descend(self.model.train().loss(x, labels))
