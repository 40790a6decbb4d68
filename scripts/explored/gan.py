"""A trained GAN: samples, interpolations, nearest training images, heights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from generative.training.ranges import Checked, Count, Range
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.data.image_set import ImageSet
    from generative.gan import GAN

CLASSES = ("GAN", "WGAN", "ConditionalGAN")


@dataclass(frozen=True)
class Settings(Checked):
    """GANs of images."""

    label: tuple[str, ...] = ()
    """Conditional GAN: what the images are told apart by. As the run had it, if not given."""
    max_images: Count = 50_000
    """Images to read, at most."""
    num_samples: Annotated[int, Range(2, 2**30)] | None = None
    """Samples to measure; 1,000 if not given, of sprites 23,040: a recall of 0.95 needs 14,000 of
    them even if all are right."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns how samples compare with images.

    They are the energy coefficient of samples and test images, how far samples are from the nearest
    training image, the mean height of training images, test images and samples, and of sprites
    precision and recall.
    """
    import torch

    from generative.gan import coverage, energy_coefficient, nearest_images
    from generative.gan.model import draw_z
    from generative.training.pictures import image_grid, point_clouds, strips

    gan, generator = subject.model, subject.generator()
    shape = gan.shape
    if len(shape) != 3:
        subject.save("samples", point_clouds([gan.sample(3000, generator)]))
        return {}
    images = subject.images(shape, max_images=settings.max_images)
    train, test = images.part("train"), images.part("test")
    scale = scale_to(64, shape)
    num_samples = settings.num_samples or (23_040 if subject.data == "sprites" else 1000)

    z = draw_z(gan, 100, generator)
    labels = labels_of(gan, len(z))
    with torch.no_grad():
        made = gan.generate(z, *labels)
        subject.save("samples", image_grid(made, columns=10, scale=scale))
        subject.save("interpolation", image_grid(between(gan, z[:20]), columns=10, scale=scale))
        index, _ = nearest_images(made[:10], train)
        copied_from = train.as_tensor(index.cpu().numpy(), subject.device)
        subject.save("nearest", strips(made[:10], copied_from, scale=scale))
        if gan.num_classes:
            subject.save("classes", image_grid(class_switch(gan, z[:10]), columns=10, scale=scale))

        samples = gan.sample(num_samples, generator)
        found = energy_coefficient(test.as_tensor(slice(1000), subject.device), samples, most=1000)
        _, distance = nearest_images(samples[:1000], train)
        label = settings.label or tuple(subject.setting("label", ("class",)))
        heights = {
            "training": heights_of(gan, images, "train", label),
            "test": heights_of(gan, images, "test", label),
        }
        heights["generated"] = gan.heights(samples[:1000], *labels_of(gan, min(1000, len(samples))))
        subject.save_figure("heights", histogram(heights), dpi=100)
        result = {
            "samples": len(samples),
            "energy": float(found.energy),
            "spread": float(found.spread),
            "nearest_training_image": float(distance.mean()),
            **{f"height_{name}": float(values.mean()) for name, values in heights.items()},
        }
        if subject.data == "sprites":
            covered = coverage(samples, subject.images(shape))
            result |= {"precision": covered.precision, "recall": covered.recall}
    return result


def labels_of(gan: GAN, n: int) -> tuple[Tensor, ...]:
    """Classes 0, 1, 2, ... in turn for a conditional GAN, nothing for the others."""
    import torch

    num_classes = gan.num_classes
    device = next(gan.parameters()).device
    return (torch.arange(n, device=device) % num_classes,) if num_classes else ()


def between(gan: GAN, z: Tensor, num: int = 10) -> Tensor:
    """Images on the way from one z to the next, for each pair of them, (len(z) / 2 * num, ...).

    The way is along a great circle, so that all z on it are as long as normal noise is. A
    conditional GAN is asked for class 0.
    """
    import torch

    from generative.interpolation import slerp

    u = torch.linspace(0, 1, num)
    way = torch.stack([slerp(a, b, u) for a, b in zip(z[0::2], z[1::2], strict=True)])
    way = way.flatten(0, 1)
    labels = (torch.zeros_like(label.expand(len(way))) for label in labels_of(gan, 1))
    return gan.generate(way, *labels)


def class_switch(gan: GAN, z: Tensor) -> Tensor:
    """The same noise with each label in turn, one row of len(z) images for each class."""
    import torch

    classes = torch.arange(gan.num_classes, device=z.device)
    return gan.generate(z.repeat(len(classes), 1), classes.repeat_interleave(len(z)))


def heights_of(
    gan: GAN, images: ImageSet, part: str, label: tuple[str, ...], most: int = 1000
) -> Tensor:
    """Heights that the critic gives the first images of a part of the set."""
    import torch

    from generative.data.image_set import PARTS
    from scripts.common.images import classes_of

    device = next(gan.parameters()).device
    rows, labels = (images.split == PARTS.index(part)).nonzero()[0][:most], ()
    if labels_of(gan, 1):
        classes = classes_of(images, label, gan.num_classes)[rows]
        labels = (torch.from_numpy(classes).to(device),)
    return gan.heights(images.as_tensor(rows, device), *labels)


def histogram(heights: dict[str, Tensor]) -> Figure:
    """Draw the distribution of heights of each kind of image."""
    import numpy as np
    from matplotlib.figure import Figure

    values = {name: s.cpu().numpy() for name, s in heights.items()}
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, 50)
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name, s in values.items():
        axes.hist(s, edges, density=True, histtype="step", label=name)
    axes.set_xlabel("height")
    axes.set_yticks([])
    axes.legend()
    return figure
