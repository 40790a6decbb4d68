"""A trained pix2pix or CycleGAN: what becomes of images, and how its critic judges patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

CLASSES = ("Pix2Pix", "CycleGAN")


@dataclass(frozen=True)
class Settings(Checked):
    """Translators of images."""

    num_images: Count = 10
    """Images in a row of a picture."""
    max_images: Count = 10_000
    """Images to read, at most."""


PATCHES = ("test images", "what the critic says", "translated", "what the critic says")
"""Labels of pictures and of the heights of their patches."""
THERE_AND_BACK = ("first set", "there", "and back", "second set", "there", "and back")
"""Labels of the rows of `train_cyclegan.there_and_back`."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns differences from the right images, and of sprites how many are right."""
    if subject.model.saved_name == "CycleGAN":
        return _two_sets(subject, settings)
    return _pairs(subject, settings)


def _pairs(subject: Subject, settings: Settings) -> dict[str, Any]:
    import torch

    from generative.training.pictures import strips
    from scripts.train_pix2pix import draw_rows, score, source_of

    model, scale = subject.model, scale_to(64, subject.model.shape)
    source = subject.setting("source", "edges")
    images = subject.images(model.shape, max_images=settings.max_images)
    test = images.part("test")
    rows = draw_rows(model, test, source, settings.num_images)
    labels = [source, "test images", *("made of them" for _ in rows[2:])]
    subject.save("translations", strips(*rows, scale=scale, labels=labels))
    x = source_of(test, slice(settings.num_images), source).to(subject.device)
    y = test.as_tensor(slice(settings.num_images), subject.device)
    made = model.translate(x, subject.generator())
    with torch.no_grad():
        heights = model.heights(x, y), model.heights(x, made)
    if heights[0].dim() == 3:  # a projected critic judges the image, and not its patches
        shown = [y, patches(heights, y)[0], made, patches(heights, y)[1]]
        subject.save("patches", strips(*shown, scale=scale, labels=PATCHES))
    return score(model, test, source, images)


def _two_sets(subject: Subject, settings: Settings) -> dict[str, Any]:
    import torch

    from generative.training.pictures import strips
    from scripts.train_cyclegan import load_sets, pairings, score, there_and_back

    model, scale = subject.model, scale_to(64, subject.model.shape)
    first, second = (Path(subject.setting(f"{name}_dir", "")) for name in ("first", "second"))
    sets = load_sets(subject.data, first, second, model.shape)
    test = [images.part("test") for images in sets]
    rows = there_and_back(model, test, settings.num_images)
    subject.save("translations", strips(*rows, scale=scale, labels=THERE_AND_BACK))
    with torch.no_grad():
        heights = model.heights(rows[3]), model.heights(rows[1])
    shown = [rows[3], patches(heights, rows[3])[0], rows[1], patches(heights, rows[3])[1]]
    subject.save("patches", strips(*shown, scale=scale, labels=PATCHES))
    if subject.data == "palettes":
        subject.save_figure("colours", colours(pairings(model, test, sets)), dpi=100)
    return score(model, test, sets)


def patches(heights: tuple[Tensor, ...], images: Tensor) -> list[Tensor]:
    """Heights of patches (B, h, w) as grey images of the size of images; white is the highest."""
    import torch
    from torch.nn import functional as F

    low = min(part.min() for part in heights)
    high = max(part.max() for part in heights)
    return [
        F.interpolate((part[:, None] - low) / (high - low).clamp_min(1e-12), images.shape[-2:])
        .clamp(0, 1)
        .expand(-1, 3, -1, -1)
        for part in map(torch.Tensor.detach, heights)
    ]


def colours(ways: list[dict]) -> Figure:
    """Figure: colours of one set by those they become in the other, there and back."""
    import numpy as np
    from matplotlib.figure import Figure

    from generative.known.palettes import PARTNERS, SECOND
    from generative.known.sprites import COLOURS

    figure = Figure(figsize=(7, 3), layout="constrained")
    names = (list(COLOURS), list(SECOND))
    right = (np.array(PARTNERS), np.argsort(PARTNERS))
    for number, (axis, way) in enumerate(zip(figure.subplots(1, 2), ways, strict=True)):
        shares = way["counts"] / np.maximum(way["counts"].sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.scatter(right[number], range(6), s=160, facecolors="none", edgecolors="tab:red")
        axis.set_xticks(range(6), names[1 - number], rotation=45)
        axis.set_yticks(range(6), names[number])
        axis.set_title(("there", "back")[number])
    return figure
