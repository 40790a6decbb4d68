"""A trained diffusion model: its schedule, its steps, the way between two noises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from generative.diffusion.config import ScheduleConfig
from generative.training.ranges import Checked, Count, Probability
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

CLASSES = ("ImageDiffusion", "PointDiffusion")


@dataclass(frozen=True)
class Settings(Checked):
    """Diffusion models."""

    steps: tuple[Count, ...] = (1, 2, 3, 4, 5, 20, 100)
    """Numbers of steps that are compared."""
    spacing: Literal["time", "log-snr"] = "time"
    """Spacing of the steps: equal in the schedule's time, or in the log signal-to-noise ratio."""
    eta: Probability = 0.0
    """Noise of a step: 0 for DDIM, 1 for DDPM."""
    images: Count = 8
    """Images in a row of samples, stages of a strip."""
    pairs: Count = 4
    """Pairs of noises to go between, by 11 images each."""
    points: Count = 3000
    """In the plane: points in a cloud."""
    runs: tuple[Path, ...] = ()
    """Folders of runs to compare: their results side by side in results.json, their losses in a
    figure."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps")


SCHEDULES = {
    "linear": ScheduleConfig("linear"),
    "cosine": ScheduleConfig("cosine"),
    "offset cosine": ScheduleConfig(),
}
"""Those of the book's chapter."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a diffusion model.

    Schedules and the embedding of the noise variance; data under more and more noise, by two
    schedules; samples, one step after the other; the same noise in few and in many steps; the way
    between noises; test images, their noise, and the images made of it. In the plane: clouds of
    points in their place, and the density.
    """
    from generative.training.files import write_json

    of = of_points if len(subject.model.shape) == 1 else of_images
    for name, picture in of(subject, settings).items():
        subject.save(name, picture)
    subject.save_figure("schedules", schedules())
    subject.save_figure("embedding", embedding())
    if settings.runs:
        write_json(subject.pictures / "results.json", results(settings.runs))
        subject.save_figure("runs", curves(settings.runs))
    return {}


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def of_images(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures by name."""
    import torch

    from generative.interpolation import slerp
    from generative.training.pictures import image_grid, strips

    model, generator = subject.model, subject.generator()
    shape = model.config.image_shape
    scale = scale_to(64, shape)
    images = subject.images(shape, max_images=1000).part("test")
    x = images.as_tensor(slice(settings.images), subject.device)

    def noise(n: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator, device=subject.device)

    made = {}
    one, eps = model.normalise(x[:1]), noise(1)
    rows = [noised(one, eps, kind, settings.images) for kind in ("linear", "cosine")]
    made["noising"] = strips(*map(model.denormalise, rows), scale=scale)

    drawn = model.decode(
        noise(4 * settings.images),
        eta=settings.eta, generator=generator, spacing=settings.spacing,
    )  # fmt: skip
    made["samples"] = image_grid(drawn, columns=settings.images, scale=scale)

    path = list(model.path(noise(1), None, settings.eta, generator, settings.spacing))
    shown = chosen(len(path), settings.images)
    rows = [torch.cat([getattr(path[i], part) for i in shown]) for part in ("x", "data")]
    made["denoising"] = strips(*map(model.denormalise, rows), scale=scale)

    z = noise(settings.images)
    rows = [
        model.decode(z, steps, eta=settings.eta, generator=generator, spacing=settings.spacing)
        for steps in settings.steps
    ]
    made["steps"] = strips(*rows, scale=scale)

    u, ends = torch.linspace(0, 1, 11, device=subject.device), noise(2 * settings.pairs)
    rows = [
        model.decode(slerp(a, b, u, math.pi / 2), spacing=settings.spacing)
        for a, b in zip(ends[::2], ends[1::2], strict=True)
    ]
    made["interpolation"] = strips(*rows, scale=scale)

    z = model.encode(x, steps=max(settings.steps))
    back = model.decode(z, steps=max(settings.steps))
    made["there-and-back"] = strips(x, (0.5 + z / 6).clamp(0, 1), back, scale=scale)
    return made


def noised(x: Tensor, eps: Tensor, kind: str, num: int) -> Tensor:
    """One example x (1, ...) with the noise of num times from 0 to 1, (num, ...)."""
    import torch

    from generative.diffusion import Schedule, signal_and_noise

    log_snr = Schedule(SCHEDULES[kind]).log_snr(torch.linspace(0, 1, num)).to(x)
    signal, rate = (part.view(-1, *[1] * (x.dim() - 1)) for part in signal_and_noise(log_snr))
    return signal * x + rate * eps


def chosen(count: int, num: int) -> list[int]:
    """At most num of count stages, evenly, with the last."""
    return sorted({round((i + 1) * count / num) - 1 for i in range(num) if (i + 1) * count >= num})


# ---------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------


def of_points(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures by name."""
    import torch

    from generative.training.pictures import image_grid, point_clouds, sheet

    model, density = subject.model, subject.density()
    generator = torch.Generator().manual_seed(subject.seed)
    x = density.sample(settings.points, generator)

    def noise(n: int) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    made, eps = {}, noise(settings.points)
    for kind in ("linear", "cosine"):
        clouds = noised(x[None], eps[None], kind, settings.images)
        titles = [f"t = {i / max(1, len(clouds) - 1):.2g}" for i in range(len(clouds))]
        made[f"noising-{kind}"] = point_clouds(list(clouds), titles=titles)
    z = noise(settings.points).to(subject.device)

    def path(steps: int) -> list[Tensor]:
        return [x for x, _ in model.path(z, steps, settings.eta, spacing=settings.spacing)]

    stages = path(model.config.steps)
    shown = chosen(len(stages), settings.images)
    made["denoising"] = point_clouds(
        [z, *(stages[i] for i in shown), x],
        titles=["noise", *(f"after step {i + 1}" for i in shown), "data"],
        columns=(len(shown) + 3) // 2,
    )
    made["steps"] = point_clouds(
        [path(steps)[-1] for steps in settings.steps],
        titles=[f"{steps} steps" if steps > 1 else "1 step" for steps in settings.steps],
    )
    made["there-and-back"] = point_clouds(
        [x, code := model.encode(x.to(subject.device)), model.decode(code)],
        titles=["data", "their noise", "decoded again"],
    )

    axis = torch.linspace(-3, 3, 120)
    grid = torch.cartesian_prod(-axis, axis).flip(1)  # row after row, the second axis upwards
    found = model.log_prob(grid.to(subject.device)).cpu().exp()
    panels = [
        image_grid(1 - part.view(1, 1, 120, 120) / found.max(), scale=2)
        for part in (density.log_prob(grid).exp().float(), found)
    ]
    made["density"] = sheet(panels, ["true density", "density of the model"])
    return made


# ---------------------------------------------------------------------------------------------
# What needs no model
# ---------------------------------------------------------------------------------------------


def schedules() -> Figure:
    """Figure: how much of the variance is signal, and how much noise, over time."""
    import torch
    from matplotlib.figure import Figure

    from generative.diffusion import Schedule

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    t = torch.linspace(0, 1, 400)
    for name, config in SCHEDULES.items():
        alpha_bar = Schedule(config).log_snr(t).sigmoid()
        left.plot(t.numpy(), alpha_bar.numpy(), label=name)
        right.plot(t.numpy(), (1 - alpha_bar).numpy(), label=name)
    left.set(title="signal variance", xlabel="t")
    right.set(title="noise variance", xlabel="t")
    left.legend()
    return figure


def embedding() -> Figure:
    """Figure: the sines and cosines that tell a network the noise variance."""
    import torch
    from matplotlib.figure import Figure

    from generative.nets.embeddings import sinusoidal_embedding

    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    table = sinusoidal_embedding(torch.linspace(0, 1, 8001))
    drawn = axis.imshow(table.T.numpy(), aspect="auto", extent=(0, 1, 32, 0), cmap="coolwarm")
    axis.set(xlabel="noise variance", ylabel="entry of the embedding")
    figure.colorbar(drawn)
    return figure


# ---------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------


def results(runs: tuple[Path, ...]) -> dict[str, dict[str, object]]:
    """Result, steps and seed of each run, by the name of its folder.

    Raises:
        ValueError, DamagedFileError: a folder is no run, or the run has not come to its end.
    """
    from generative.training.run import read_config, read_result

    found = {}
    for run in runs:
        settings = read_config(run)[1]
        had = {name: settings[name] for name in ("data", "steps", "batch_size", "seed")}
        found[run.name] = {**had, **read_result(run)}
    return found


def curves(runs: tuple[Path, ...]) -> Figure:
    """Figure: errors of the noise over the steps of training."""
    from matplotlib.figure import Figure

    from generative.training.metrics import read_metrics

    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    names = {"noise_mae": "mean absolute error of the noise", "noise_mse": "mean squared error"}
    for axis, (name, title) in zip(panels, names.items(), strict=True):
        for run in runs:
            lines = read_metrics(run)
            axis.plot([line["step"] for line in lines], [line[name] for line in lines], lw=1)
        axis.set(title=title, xlabel="step")
    panels[0].legend([run.name for run in runs])
    return figure
