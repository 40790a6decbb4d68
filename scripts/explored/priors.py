"""A trained prior of DALL.E 2: errors beside the least ones, and its samples from two sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from generative.training.ranges import Checked, Count
from scripts.common.priors import (
    LEVELS,
    Embeddings,
    PairEmbeddings,
    PriorData,
    embedding_scores,
    level_errors,
    load_embeddings,
)
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = ("DiffusionPrior", "AutoregressivePrior")


@dataclass(frozen=True)
class Settings(Checked):
    """Priors of DALL.E 2."""

    samples: Count = 500
    """Samples that are drawn, each for a caption of its own."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns the distance of samples from true embeddings, and errors."""
    import torch

    model = subject.model
    if subject.data not in get_args(PriorData):
        raise ValueError(
            f"{subject.folder} holds a prior of embeddings and data is {subject.data!r}; pass "
            f"--data {', '.join(get_args(PriorData))}"
        )
    context = model.config.context_dim > 0
    clip = subject.setting("clip", ["runs/clip"])
    clip = Path(clip[0] if isinstance(clip, list) else clip)
    source = load_embeddings(cast("PriorData", subject.data), clip, context, subject.device)
    generator = torch.Generator().manual_seed(subject.seed)
    found = embedding_scores(model, source, generator, settings.samples)
    subject.save_figure("samples", samples(model, source, generator, settings.samples), dpi=100)
    if subject.model.saved_name == "DiffusionPrior" and isinstance(source, PairEmbeddings):
        errors = level_errors(model, source.pair, generator)
        subject.save_figure("errors", error_bars(errors), dpi=100)
        found |= errors
    return found


def samples(model: Any, source: Embeddings, generator: Any, n: int) -> Figure:
    """True embeddings and samples for the same captions, along the two main directions."""
    import torch
    from matplotlib.figure import Figure

    batch = source.draw(n, generator)
    device = next(model.parameters()).device
    drawn = model.sample(
        *batch.to(device)[1:], generator=torch.Generator(device).manual_seed(0)
    ).cpu()
    image = batch.image.cpu()
    _, _, directions = torch.linalg.svd(image - image.mean(0), full_matrices=False)
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axis, points, title in zip(
        figure.subplots(1, 2, sharex=True, sharey=True),
        (image, drawn),
        ("true embeddings", "samples for the same captions"),
        strict=True,
    ):
        flat = ((points - image.mean(0)) @ directions[:2].T).numpy()
        axis.scatter(flat[:, 0], flat[:, 1], s=4)
        axis.set_title(title)
        axis.set_aspect("equal")
    return figure


def error_bars(errors: dict[str, float]) -> Figure:
    """Squared errors at noise levels, with the text and without, beside the least ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, title in zip(axes, ("", "alone_"), ("given the text", "without"), strict=True):
        for offset, kind, label in ((-0.2, "mse", "model"), (0.2, "floor", "least possible")):
            heights = [errors[f"{name}{kind}_{level:g}"] for level in LEVELS]
            axis.bar([i + offset for i in range(len(LEVELS))], heights, 0.38, label=label)
        axis.set_xticks(range(len(LEVELS)), [f"{level:g}" for level in LEVELS])
        axis.set_xlabel("log SNR")
        axis.set_title(title)
        axis.legend()
    axes[0].set_ylabel("squared error per number")
    return figure
