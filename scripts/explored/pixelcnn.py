"""A trained PixelCNN: samples, completed images, what it expects and what surprises it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, NonNegative
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.pixelcnn import PixelCNN

CLASSES = ("PixelCNN",)


@dataclass(frozen=True)
class Settings(Checked):
    """PixelCNNs."""

    max_images: Count = 10_000
    """Images to read, at most."""
    num_samples: Count = 10
    """Images in a row of a picture."""
    temperatures: tuple[NonNegative, ...] = (0.5, 0.8, 1.0, 1.2)
    """Temperatures of the samples, a row for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise ValueError("temperatures is empty; give at least one")


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns bits per number of test images.

    They are those of the model, and those of pixels that do not depend on each other.
    """
    import matplotlib
    import torch

    from generative.known.baselines import independent_pixels
    from generative.pixelcnn import bits_per_dim
    from generative.training.pictures import image_grid, strips

    model, device, generator = subject.model, subject.device, subject.generator()
    config = model.config
    images = subject.images(config.image_shape, config.levels, settings.max_images)
    test, n = images.part("test"), settings.num_samples
    scale = scale_to(48, config.image_shape)
    real = test.as_tensor(slice(n), device)

    rows = [model.sample(len(real), generator, t) for t in settings.temperatures]
    subject.save("temperatures", strips(real, *rows, scale=scale))
    half = config.image_shape[1] // 2
    known = real.clone()
    known[:, :, half:] = 0.5
    drawn = [model.complete(real, half, generator) for _ in range(3)]
    subject.save("completions", strips(known, *drawn, real, scale=scale))
    subject.save("surprise", strips(real, surprise(model, real), scale=scale))
    subject.save("reach", strips(reach(model, real[:1]), scale=scale))
    if model.num_classes:
        labels = torch.arange(model.num_classes, device=device).repeat_interleave(n)
        drawn_of = model.sample(len(labels), generator, labels=labels)
        subject.save("classes", image_grid(drawn_of, columns=n, scale=scale))
    with matplotlib.rc_context({"font.size": 8}):  # texts are made when a figure is drawn
        subject.save_figure("next_pixel", expectations(model, real[:1]), dpi=100)
        subject.save_figure("mixture", mixture_of_normals(subject.seed), dpi=100)
    return {
        "test_bits_per_dim": bits_per_dim(model, test, most=1000),
        "independent_pixels_bits_per_dim": independent_pixels(
            images.part("train").images, test.images, config.levels
        ),
    }


def surprise(model: PixelCNN, x: Tensor) -> Tensor:
    """Bits of each pixel of (B, C, H, W), all colours together, as grey images.

    White is the largest number in any of them.
    """
    import torch

    with torch.no_grad():
        bits = -model.pixel_log_probs(x).sum(1, keepdim=True)
    return (bits / bits.max()).expand_as(x)


def reach(model: PixelCNN, x: Tensor) -> Tensor:
    """Receptive field of one pixel of x (1, C, H, W), below the middle; two pictures (2, C, H, W).

    The first shows the strength of the gradient, the second is white wherever it is not zero. The
    pixel itself is grey. Pixels before it that are black in the second picture are in the blind
    spot, or out of reach.
    """
    import torch

    _, _, h, w = x.shape
    i, j = 3 * h // 4, w // 2
    x = x.clone().requires_grad_()
    labels = torch.zeros(1, dtype=torch.int64, device=x.device) if model.num_classes else None
    params = model.pixel_params(x, labels)[0, :, i, j]
    strength = torch.zeros(h, w, device=x.device)
    for value in params:  # one by one, so that none cancels another
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        strength += gradient[0].abs().sum(0)
    pictures = torch.stack([(strength / strength.max().clamp_min(1e-30)).sqrt(), strength > 0])
    pictures[:, i, j] = 0.5
    return pictures[:, None].expand(-1, x.shape[1], -1, -1)


def expectations(model: PixelCNN, x: Tensor) -> Figure:
    """Figure: probability of every level of four pixels of x (1, C, H, W), and their level."""
    import torch
    from matplotlib.figure import Figure

    _, _, h, w = x.shape
    places = [(h // 4, w // 2), (h // 2, w // 4), (h // 2, w // 2), (3 * h // 4, w // 2)]
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    axes = figure.subplots(1, 5)
    axes[0].imshow(x[0].movedim(0, -1).cpu().squeeze(-1), cmap="gray", vmin=0, vmax=1)
    for number, ((i, j), axis) in enumerate(zip(places, axes[1:], strict=True)):
        with torch.no_grad():
            p = model.next_pixel(x, i, j)[0].cpu()
        axis.bar(range(len(p)), p, width=1.0)
        level = round(float(x[0, 0, i, j]) * (len(p) - 1))
        axis.axvline(level, color="tab:red", linewidth=1)
        axis.set_title(f"{'abcd'[number]}: row {i}, column {j}")
        axis.set_xlabel("level")
        axes[0].text(j, i, "abcd"[number], color="tab:red", ha="center", va="center")
    axes[1].set_ylabel("probability")
    axes[0].axis("off")
    return figure


def mixture_of_normals(seed: int) -> Figure:
    """Figure: draws from three normal distributions, chosen with chances 0.5, 0.3 and 0.2."""
    import numpy as np
    from matplotlib.figure import Figure

    pi, mean, std = np.array([0.5, 0.3, 0.2]), np.array([-1.0, 1.5, 4.0]), np.array([0.8, 0.5, 1.2])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(3, size=10_000, p=pi)
    draws = rng.normal(mean[chosen], std[chosen])
    x = np.linspace(-5, 9, 400)
    parts = pi * np.exp(-0.5 * ((x[:, None] - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.hist(draws, bins=100, range=(-5, 9), density=True, color="0.85", label="10,000 draws")
    axis.plot(x, parts, linewidth=1)
    axis.plot(x, parts.sum(1), color="black", label="mixture: 8 free numbers")
    axis.legend(frameon=False)
    return figure
