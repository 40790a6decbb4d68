"""A classifier of images around any network, its losses and its learner.

The book's warm-up (Foster 2023, chapter 2), and what later chapters need where a generated image
has to be judged: a discriminative model, p(class | image).

    model = Classifier.from_pretrained("runs/classifier/model")
    model.classify(images)               # (B, 3, 32, 32) in [0, 1] -> classes (B,)
    model.log_probs(images)              # (B, num_classes), nats

`log_probs` is not the `log_prob` of the other families, which is that of the image itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.classifier.config import (
    ClassifierLossConfig,
    CNNClassifierConfig,
    MLPClassifierConfig,
    ViTClassifierConfig,
)
from generative.training.checks import check_batch, check_images, check_labels, check_some
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained

__all__ = [
    "Classifier",
    "ClassifierLearner",
    "ClassifierLosses",
    "classifier_loss",
    "confusion_matrix",
    "random_mirror",
    "random_shift",
]


class Classifier(Pretrained, nn.Module):
    """p(class | image), around any network.

    `CNNClassifierConfig().build()` and `MLPClassifierConfig().build()` are the book's, that of
    `ViTClassifierConfig` is a Vision Transformer. A classifier that is put together by hand is
    saved by its weights: put it together again and call `load_weights(folder)`.

    Args:
        net: images (B, C, H, W) -> scores before the softmax, (B, num_classes).
        image_shape: (C, H, W).
        num_classes: classes, numbered from 0.
        config: the recipe of the classifier, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "CNNClassifier": CNNClassifierConfig,
        "MLPClassifier": MLPClassifierConfig,
        "ViTClassifier": ViTClassifierConfig,
    }

    def __init__(
        self,
        net: nn.Module,
        image_shape: tuple[int, ...],
        num_classes: int,
        config: MLPClassifierConfig | CNNClassifierConfig | ViTClassifierConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.num_classes = config, image_shape, num_classes
        self.net = net

    def logits(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> scores before the softmax, (B, num_classes).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.net(check_images(x, self.image_shape, self))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> input of the last layer, (B, D).

        Raises:
            TypeError: the network is no nn.Sequential.
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self._layers()[:-1](check_images(x, self.image_shape, self))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> maps behind the activation of each convolution.

        Raises:
            ValueError: another shape or type. Pixels may lie outside [0, 1], as those of a decoder
                in training may.
        """
        x, maps = check_batch(x, self.image_shape, "images", self), []
        for layer in self._layers():
            if isinstance(layer, nn.Flatten):
                break
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x)
        return maps

    def _layers(self) -> nn.Sequential:
        if not isinstance(self.net, nn.Sequential):
            raise TypeError(
                f"the network is a {type(self.net).__name__}; features are read between the layers "
                "of an nn.Sequential, so pass the classifier one"
            )
        return self.net

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


def random_mirror(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W), each with left and right exchanged or not, as a coin says."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(3), x)


class ClassifierLearner(ModelLearner[Classifier]):
    """Adam or Muon on the cross-entropy; one `update` per batch."""

    def __init__(self, model: Classifier, config: ClassifierLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config

    def update(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1] and their classes, int64 (B,)."""
        x, labels = batch
        if self.config.shift:
            x = random_shift(x, self.config.shift)
        if self.config.mirror:
            x = random_mirror(x)
        model = self.model.train()
        if not self.config.noise:
            return self.descend(model.loss(x, labels))
        check_images(check_some(x, model), model.image_shape, model)
        deviation = self.config.noise * torch.rand(len(x), 1, 1, 1, device=x.device)
        noisy = x + deviation * torch.randn_like(x)
        return self.descend(classifier_loss(model.net(noisy), labels))
