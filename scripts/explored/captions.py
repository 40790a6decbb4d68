"""Worlds with captions, and the best denoiser there is: pictures, exact floors of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from generative.known.scene_denoiser import Floor, SceneDenoiser


@dataclass(frozen=True)
class Settings(Checked):
    """Pictures with captions; there is no model."""

    floor_pictures: Count = 200
    """Noisy pictures of which a floor is the mean."""
    small_cells: Count = 4000
    """Small noisy cells of which the best accuracy of an upsampler is the mean."""
    emoji: Count = 32
    """Emoji in their picture."""


EXAMPLES = (
    "a red square", "a red square at the top left", "a red square and a blue disc",
    "a red square left of a blue disc", "a red square on top of a blue disc", "three red discs",
    "4 green crosses", "a sign that says cat",
)  # fmt: skip
TOLD = ("", "a red square and a blue disc", "a red square left of a blue disc")
"""Captions of the floors, from nothing told to most."""
LEVELS = (-8.0, -6.0, -5.0, -4.0, -3.0, -2.0, 0.0)
"""log SNR of the floors."""
SHOWN = (-6.0, -4.0, -3.0, -2.0)
"""log SNR of the noisy picture whose estimates are shown."""
NOISES = (0.05, 0.1, 0.2)
"""Noise of small pictures, of values in [0, 1]."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns the floors of the loss and the best accuracy of upsamplers."""
    from generative.known.captions import KINDS, captions, entropy
    from generative.known.scene_denoiser import SceneDenoiser

    exact = SceneDenoiser.pairs()
    subject.save("captions", examples(subject.generator()))
    subject.save("estimates", estimates(exact, subject.generator()))
    floors = measure(exact, settings.floor_pictures, subject.generator())
    subject.save_figure("floors", draw_floors(floors))
    subject.save("emoji", emoji(settings.emoji, subject.generator()))
    return {
        "captions": {kind: len(captions(kind)) for kind in KINDS},
        "entropy": {text: entropy(text) for text in EXAMPLES},
        "floors": {
            told or "no caption": {f"{level:g}": floor._asdict() for level, floor in rows.items()}
            for told, rows in floors.items()
        },
        "upsampler": small(settings.small_cells, subject.generator()),
    }


def examples(generator, columns: int = 4, each: int = 3) -> np.ndarray:
    """Captions of every kind, each above some of the pictures that fit it."""
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.scenes import draw
    from generative.training.pictures import image_grid, sheet

    world = CaptionedScenes(part="all", border=4)
    rows = [draw(world.scenes([text] * each, generator), 4) for text in EXAMPLES]
    pictures = [image_grid(row, columns=each, scale=3) for row in rows]
    return sheet(pictures, EXAMPLES, columns)


def estimates(exact: SceneDenoiser, generator) -> np.ndarray:
    """A noisy picture at falling noise, and the best estimate with ever more of the caption."""
    import torch

    from generative.diffusion.schedules import signal_and_noise
    from generative.known.captions import fitting
    from generative.training.pictures import image_grid, sheet

    told = {text: exact.told(text) for text in TOLD}
    row = int(torch.randint(len(fitting(TOLD[-1])), (1,), generator=generator))
    picture = told[TOLD[-1]].pictures(torch.tensor([row])).double()
    noise = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
    level = torch.tensor(SHOWN, dtype=torch.float64)
    signal, rate = (part.view(-1, 1, 1, 1) for part in signal_and_noise(level))
    noisy = signal * picture + rate * noise
    rows = [noisy, *(told[text](noisy, level)[1] for text in TOLD)]
    titles = ["noisy, log SNR " + ", ".join(f"{at:g}" for at in SHOWN), "estimate without caption"]
    titles += [f"told: {text}" for text in TOLD[1:]]
    strips = [image_grid((part + 1) / 2, columns=len(SHOWN), scale=4) for part in rows]
    return sheet(strips, titles, columns=1)


def measure(exact: SceneDenoiser, n: int, generator) -> dict[str, dict[float, Floor]]:
    """Floors of the loss by what is told and by the noise level."""
    from generative.known.scene_denoiser import floor

    return {
        text: {level: floor(exact.told(text), level, n, generator) for level in LEVELS}
        for text in TOLD
    }


def draw_floors(floors: dict[str, dict[float, Floor]]) -> Figure:
    """Figure: the least error of the data by the noise level, with one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for text, rows in floors.items():
        values, errors = zip(*((row.data, row.error) for row in rows.values()), strict=True)
        axis.errorbar(list(rows), values, errors, marker="o", ms=3, label=text or "no caption")
    axis.set_xlabel("log SNR")
    axis.set_ylabel("least squared error of a number of the data")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


def small(n: int, generator) -> dict[str, dict[str, float]]:
    """Best accuracy and entropy of an object in a small noisy picture, by its size and noise."""
    import torch

    from generative.known.scene_denoiser import cell_posterior, small_objects

    found = {}
    for side in (2, 1):
        for noise in NOISES:
            things = torch.randint(24, (n,), generator=generator)
            cells = small_objects(side)[things]
            eps = torch.randn(cells.shape, generator=generator, dtype=torch.float64)
            told = cell_posterior(cells + noise * eps, noise)
            accuracy, entropy = float(told.accuracy.mean()), float(told.entropy.mean())
            found[f"{side}x{side}, noise {noise:g}"] = {"accuracy": accuracy, "entropy": entropy}
    return found


def emoji(n: int, generator, columns: int = 8) -> np.ndarray:
    """Emoji as training sees them, changed a little, each below its caption."""
    from generative.data.emoji import load_emoji
    from generative.training.pictures import image_grid, sheet

    images, texts = load_emoji().part("train").batch(n, generator)
    pictures = [image_grid(image[None], scale=4) for image in images]
    return sheet(pictures, texts, columns)
