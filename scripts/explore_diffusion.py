"""Look into a trained diffusion model: its schedule, its steps, the way between two noises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import tyro

from generative.diffusion.config import ScheduleConfig
from generative.training.cli import Input, start
from generative.training.devices import find_device
from generative.training.ranges import Checked, Count, Device, Folder, Probability, Seed
from generative.training.words import with_article
from scripts.common.images import ImageData, load_images
from scripts.common.points import PointData, load_density

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from generative.diffusion import ImageDiffusion, PointDiffusion


@dataclass(frozen=True)
class Args(Checked):
    """Look into a trained diffusion model: its schedule, its steps, the way between two noises.

    Schedules and the embedding of the noise variance; data under more and more noise, by two
    schedules; samples, one step after the other; the same noise in few and in many steps; the way
    between noises; test images, their noise, and the images made of it. In the plane: clouds of
    points in their place, and the density.
    """

    model: Annotated[Path, Input("train_diffusion.py")] = Path("runs/diffusion/model")
    """Folder of the model, as train_diffusion.py writes it."""
    pictures: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/diffusion/explore")
    """Where the pictures go."""
    data: ImageData | PointData = "flowers"
    """What the model was trained on."""
    data_dir: Path = Path("data")
    """Where its files are, or in a folder of its name there."""
    steps: tuple[Count, ...] = (1, 2, 3, 4, 5, 20, 100)
    """Numbers of steps that are compared."""
    spacing: Literal["time", "log-snr"] = "time"
    """Of the steps: equal in the schedule's time, or in the log signal-to-noise ratio."""
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
    device: Device = "cpu"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps")


DEFAULT_PRESET = "book"
PRESETS = {
    "book": Args(),
    "sprites": Args(data="sprites"),
    "digits": Args(data="digits"),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes")),
    "two-moons": Args(data="two-moons"),
    "eight-gaussians": Args(data="eight-gaussians"),
    "ring": Args(data="ring"),
    "checkerboard": Args(data="checkerboard"),
    "smoke": Args(data="sprites", steps=(1, 2), images=3, pairs=1, points=100),
}
SCHEDULES = {
    "linear": ScheduleConfig("linear"),
    "cosine": ScheduleConfig("cosine"),
    "offset cosine": ScheduleConfig(),
}
"""Those of the book's chapter."""


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    from PIL import Image

    from generative.diffusion import ImageDiffusion, PointDiffusion
    from generative.training.files import write_json

    args = replace(args, device=str(find_device(args.device)))
    kind = kind_of_model(args.model)
    planar = args.data in get_args(PointData)
    if planar != (kind == "PointDiffusion"):
        raise ValueError(
            f"{args.model} holds {with_article(str(kind))}, data is {args.data!r}; name the "
            "preset or the data that the model was trained on"
        )
    if planar:
        made = of_points(PointDiffusion.from_pretrained(args.model, args.device), args)
    else:
        made = of_images(ImageDiffusion.from_pretrained(args.model, args.device), args)
    args.pictures.mkdir(parents=True, exist_ok=True)
    for name, picture in made.items():
        Image.fromarray(picture).save(args.pictures / f"{name}.png")
    schedules().savefig(args.pictures / "schedules.png", dpi=80)
    embedding().savefig(args.pictures / "embedding.png", dpi=80)
    if args.runs:
        write_json(args.pictures / "results.json", results(args.runs))
        curves(args.runs).savefig(args.pictures / "curves.png", dpi=80)
    print(f"wrote {len(list(args.pictures.glob('*.png')))} pictures into {args.pictures}")
    return args.pictures


def kind_of_model(folder: Path) -> str:
    """Name of the class that is saved in a folder.

    Raises:
        FileNotFoundError: there is no model; says what to do.
    """
    from generative.training.pretrained import class_name

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model; train one with train_diffusion.py, or pass --model with the "
            "`model` in the folder of its run"
        )
    return class_name(folder)


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def of_images(model: ImageDiffusion, args: Args) -> dict[str, np.ndarray]:
    """Pictures by name."""
    import torch

    from generative.diffusion import slerp
    from generative.training.pictures import image_grid, strips

    config = model.config
    shape, scale = config.image_shape, max(1, 64 // config.image_shape[1])
    data = cast("ImageData", args.data)
    images = load_images(data, args.data_dir, shape, max_images=1000).part("test")
    x = images.as_tensor(slice(args.images), args.device)
    generator = torch.Generator(args.device).manual_seed(args.seed)

    def noise(n: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator, device=args.device)

    made = {}
    one, eps = model.normalise(x[:1]), noise(1)
    rows = [noised(one, eps, kind, args.images) for kind in ("linear", "cosine")]
    made["noising"] = strips(*map(model.denormalise, rows), scale=scale)

    made["samples"] = image_grid(
        model.decode(
            noise(4 * args.images), eta=args.eta, generator=generator, spacing=args.spacing
        ),
        columns=args.images, scale=scale,
    )  # fmt: skip

    path = list(model.path(noise(1), None, args.eta, generator, args.spacing))
    shown = chosen(len(path), args.images)
    rows = [torch.cat([getattr(path[i], part) for i in shown]) for part in ("x", "data")]
    made["denoising"] = strips(*map(model.denormalise, rows), scale=scale)

    z = noise(args.images)
    rows = [model.decode(z, steps, args.eta, generator, args.spacing) for steps in args.steps]
    made["steps"] = strips(*rows, scale=scale)

    u, ends = torch.linspace(0, 1, 11, device=args.device), noise(2 * args.pairs)
    rows = [
        model.decode(slerp(a, b, u, math.pi / 2), spacing=args.spacing)
        for a, b in zip(ends[::2], ends[1::2], strict=True)
    ]
    made["interpolation"] = strips(*rows, scale=scale)

    z = model.encode(x, steps=max(args.steps))
    back = model.decode(z, steps=max(args.steps))
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


def of_points(model: PointDiffusion, args: Args) -> dict[str, np.ndarray]:
    """Pictures by name."""
    import torch

    from generative.training.pictures import image_grid, point_clouds

    density = load_density(args.data)
    generator = torch.Generator().manual_seed(args.seed)
    x = density.sample(args.points, generator)

    def noise(n: int) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    made, eps = {}, noise(args.points)
    for kind in ("linear", "cosine"):
        clouds = noised(x[None], eps[None], kind, args.images)
        made[f"noising-{kind}"] = point_clouds(list(clouds))
    z = noise(args.points).to(args.device)

    def path(steps: int) -> list[Tensor]:
        return [x for x, _ in model.path(z, steps, args.eta, spacing=args.spacing)]

    stages = path(model.config.steps)
    shown = [stages[i] for i in chosen(len(stages), args.images)]
    made["denoising"] = point_clouds([z, *shown, x])
    made["steps"] = point_clouds([path(steps)[-1] for steps in args.steps])
    made["there-and-back"] = point_clouds(
        [x, code := model.encode(x.to(args.device)), model.decode(code)]
    )

    axis = torch.linspace(-3, 3, 120)
    grid = torch.cartesian_prod(-axis, axis).flip(1)  # row after row, the second axis upwards
    found = model.log_prob(grid.to(args.device)).cpu().exp()
    panels = [1 - part.view(1, 120, 120) / found.max() for part in
              (density.log_prob(grid).exp().float(), found)]  # fmt: skip
    made["density"] = image_grid(torch.stack(panels), columns=2, scale=2)
    return made


# ---------------------------------------------------------------------------------------------
# What needs no model
# ---------------------------------------------------------------------------------------------


def schedules():
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


def embedding():
    """Figure: the sines and cosines by which a network is told the noise variance."""
    import torch
    from matplotlib.figure import Figure

    from generative.diffusion import sinusoidal_embedding

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
    """What each run came to, by the name of its folder, beside the steps and the seed it had.

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


def curves(runs: tuple[Path, ...]):
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


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
