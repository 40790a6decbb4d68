"""A trained classifier: predictions, confusions, filters, convolutions by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.data.image_set import PARTS
from generative.training.ranges import Checked, Count
from scripts.common.images import classes_of
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from torch import Tensor

    from generative.data.image_set import ImageSet

CLASSES = ("CNNClassifier", "MLPClassifier", "ViTClassifier")


@dataclass(frozen=True)
class Settings(Checked):
    """Classifiers."""

    factor: tuple[str, ...] = ()
    """Factors to classify, see train_classifier.py; if not given, as in the run's settings."""
    num_images: Count = 10
    """Test images in the gallery, drawn with replacement as in the book."""


HORIZONTAL = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -1.0, -1.0))
"""The book's filter for edges from left to right; its transpose finds those from top to bottom."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns loss and accuracy over all test images."""
    import torch

    from generative.classifier import confusion_matrix
    from generative.training.pictures import image_grid, strips

    model, device = subject.model, subject.device
    factor = settings.factor or subject.setting("factor", "class")
    factor = (factor,) if isinstance(factor, str) else tuple(factor)
    images = subject.images(model.image_shape)
    test = images.part("test")
    names = class_names(subject.data, factor, model.num_classes)
    labels = torch.from_numpy(
        classes_of(images, factor, model.num_classes)[images.split == PARTS.index("test")]
    )

    with torch.no_grad():
        parts = [test.as_tensor(slice(i, i + 500), device) for i in range(0, len(test), 500)]
        log_probs = torch.cat([model.log_probs(part).cpu() for part in parts])
    predicted = log_probs.argmax(1)
    generator = torch.Generator().manual_seed(subject.seed)
    rows = torch.randint(len(test), (settings.num_images,), generator=generator)
    subject.save_figure("gallery", gallery(test, rows, log_probs, labels, names))
    counts = confusion_matrix(labels, predicted, len(names))
    subject.save_figure("confusion", confusions(counts, names))

    shown = test.as_tensor(rows.numpy())
    grey = shown.mean(1, keepdim=True)
    edges = [convolve(grey, HORIZONTAL), convolve(grey, tuple(zip(*HORIZONTAL, strict=True)))]
    pictures = [grey, *(signed(edge) for edge in edges)]
    subject.save("edges", strips(*pictures, scale=scale_to(64, shown.shape[1:])))
    filters = first_filters(model)
    scale = scale_to(48, filters.shape[1:])
    subject.save("filters", image_grid(signed(filters), scale=scale))
    return {
        "images": len(test),
        "loss": -float(log_probs[torch.arange(len(test)), labels].mean()),
        "accuracy": float((predicted == labels).double().mean()),
    }


def class_names(data: str, factor: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
    """Names of the classes; their numbers if no names are known."""
    from generative.data import cifar10, fashion_mnist
    from generative.known import sprites

    known: dict[tuple[str, str], tuple[str, ...]] = {
        ("cifar-10", "class"): cifar10.CLASSES,
        ("fashion-mnist", "class"): fashion_mnist.CLASSES,
        ("sprites", "shape"): sprites.SHAPES,
        ("sprites", "colour"): tuple(sprites.COLOURS),
    }
    parts = [known.get((data, name), ()) for name in factor]
    names = tuple(map(" ".join, itertools.product(*parts)))
    return names + tuple(str(i) for i in range(len(names), num_classes))


def convolve(images: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Grey images (B, 1, H, W) under a 3x3 filter that is laid on every pixel, (B, 1, H, W).

    At each place the filter and the pixels under it are multiplied one by one and added up: large
    where they are alike, negative where one is the other's inverse. Beyond the border is black.
    """
    import torch

    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    h, w = images.shape[-2:]
    return sum(
        (
            weight * padded[:, :, row : row + h, column : column + w]
            for row, weights in enumerate(kernel)
            for column, weight in enumerate(weights)
        ),
        torch.zeros_like(images),
    )


def signed(x: Tensor) -> Tensor:
    """Numbers of either sign as grey: 0 in the middle, the largest of either black or white."""
    return 0.5 + 0.5 * x / x.abs().amax().clamp_min(1e-9)


def first_filters(model) -> Tensor:
    """Weights of the first layer as images (N, 1 or 3, H, W); at most 64, the longest first."""
    weight = next(p for name, p in model.named_parameters() if name.endswith("weight"))
    weight = weight.detach().cpu()
    weight = weight.unflatten(1, model.image_shape) if weight.dim() == 2 else weight
    weight = weight if weight.shape[1] in (1, 3) else weight.mean(1, keepdim=True)
    return weight[weight.flatten(1).norm(dim=1).argsort(descending=True)[:64]]


def gallery(test: ImageSet, rows: Tensor, log_probs: Tensor, labels: Tensor, names):
    """Figure: images with the class predicted and the true one below."""
    from matplotlib.figure import Figure

    columns = min(10, len(rows))
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(1.5 * columns, 2.2 * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows.tolist(), strict=False):
        axis.imshow(test.images[row].squeeze(), cmap="gray", vmin=0, vmax=test.levels - 1)
        best = int(log_probs[row].argmax())
        share = float(log_probs[row, best].exp())
        right = best == int(labels[row])
        text = f"pred = {names[best]} {share:.0%}\nact = {names[int(labels[row])]}"
        axis.text(0.5, -0.05, text, fontsize=9, ha="center", va="top", transform=axis.transAxes,
                  color="black" if right else "tab:red")  # fmt: skip
    return figure


def confusions(counts: Tensor, names):
    """Figure: share of each class (row) that was taken for another (column)."""
    from matplotlib.figure import Figure

    side = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for (i, j), share in zip(counts.nonzero().tolist(), shares[counts > 0].tolist(), strict=True):
        axis.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8,
                  color="white" if share > 0.5 else "black")  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("actual")
    return figure
