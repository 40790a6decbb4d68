"""Distances between sets of images, by the features of a classifier.

    known = image_features(classifier, training_images)
    drawn = image_features(classifier, samples)
    frechet_distance(moments(known), moments(drawn)), kernel_distance(known, drawn)

Heusel et al. (2017) take features of a network trained on photographs; for other images those of a
classifier of the same data tell more. Distances are comparable only between features of the same
network. That of Frechet falls with the number of images, so that sets have to be of the same size;
the kernel distance has the same mean for any.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from generative.classifier.model import Classifier

__all__ = ["Moments", "frechet_distance", "image_features", "kernel_distance", "moments"]


class Moments(NamedTuple):
    """The normal distribution that is fitted to features."""

    mean: Tensor
    """(D,), float64."""
    cov: Tensor
    """(D, D), float64."""


@torch.no_grad()
def image_features(model: Classifier, images: Tensor, batch_size: int = 500) -> Tensor:
    """Features (N, D) of images (N, C, H, W) in [0, 1], in evaluation mode.

    The model's own mode stays. Images are brought to its device a batch at a time.
    """
    weight, training = next(model.parameters()), model.training
    model.eval()
    try:
        return torch.cat([
            model.features(part.to(weight.device, weight.dtype)).cpu()
            for part in images.split(batch_size)
        ])  # fmt: skip
    finally:
        model.train(training)


def moments(features: Tensor) -> Moments:
    """Mean and covariance of features (N, D).

    Raises:
        ValueError: another shape, fewer than two rows, or a feature that is not finite.
    """
    if features.dim() != 2 or len(features) < 2:
        raise ValueError(
            f"got features of shape {tuple(features.shape)}; a covariance needs (N, D) with N of "
            "at least 2"
        )
    if not features.isfinite().all():
        raise ValueError("got features that are not finite; the images or the classifier are not")
    x = features.double()
    return Moments(x.mean(0), x.T.cov().reshape(x.shape[1], x.shape[1]))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two normal distributions (Dowson & Landau 1982).

    |mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)); 0 for equal ones.

    Raises:
        ValueError: features of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"got features of {len(a.mean)} and of {len(b.mean)} numbers; take those of one network"
        )
    # (cov_a cov_b)^(1/2) has the trace of (root_a cov_b root_a)^(1/2), which is symmetric.
    values, vectors = torch.linalg.eigh(a.cov)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    inner = root @ b.cov @ root
    shared = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * shared
    return float(distance.clamp_min(0))


def kernel_distance(a: Tensor, b: Tensor, chunk: int = 1000) -> float:
    """Squared maximum mean discrepancy of features (N, D) and (M, D) under the kernel
    (x . y / D + 1)^3, without bias for any N and M (Binkowski et al. 2018, "KID").

    Around 0, and so at times below it, for two sets of the same law.

    Args:
        chunk: rows of a that are compared at once, each with all of b.

    Raises:
        ValueError: features of different widths, fewer than two rows, or a feature that is not
            finite.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"got features of shapes {tuple(a.shape)} and {tuple(b.shape)}; a kernel distance "
            "needs (N, D) and (M, D) of one network, with N and M of at least 2"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("got features that are not finite; the images or the classifier are not")
    a, b = a.double(), b.double()
    width = a.shape[1]

    def total(x: Tensor, y: Tensor) -> Tensor:
        parts = [(part @ y.T / width + 1).pow(3).sum() for part in x.split(chunk)]
        return torch.stack(parts).sum()

    def among(x: Tensor) -> Tensor:
        alone = (x.square().sum(1) / width + 1).pow(3).sum()
        return (total(x, x) - alone) / (len(x) * (len(x) - 1))

    return float(among(a) + among(b) - 2 * total(a, b) / (len(a) * len(b)))
