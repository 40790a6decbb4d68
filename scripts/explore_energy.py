"""Pictures of what an energy-based model, a Boltzmann machine or a score network has learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from generative.training.cli import Input, start
from generative.training.devices import find_device
from generative.training.ranges import Checked, Count, Device, Folder, Seed
from generative.training.words import with_article
from scripts.common.points import PointData, load_density

if TYPE_CHECKING:
    from torch import Tensor

SNAPSHOTS = (0, 1, 3, 5, 10, 30, 50, 100, 300, 999)
"""Steps of a walk that are shown, as far as it goes."""


@dataclass(frozen=True)
class Args(Checked):
    """Pictures of what an energy-based model, a Boltzmann machine or a score network has learned.

    Energy of images: walks from noise, energies of data, samples and noise, the sample buffer.
    Energy of points: the landscape beside the true density, descent with and without noise.
    Boltzmann machines: receptive fields, Gibbs chains, reconstructions. Scores: walks through the
    noise levels, the field of scores. Where the run's metrics are, their curves.
    """

    model: Annotated[Path, Input("train_energy.py")] = Path("runs/energy/model")
    """Folder of the trained model, in the folder of its run, which tells the data."""
    out: Folder = Path("runs/energy/explore")
    """Where the pictures go."""
    steps: Count = 1000
    """Steps of a walk or of a Gibbs chain."""
    side: Count = 200
    """Pixels of a landscape on either axis."""
    device: Device = "cpu"
    seed: Seed = 0


DEFAULT_PRESET = "all"
PRESETS = {"all": Args(), "smoke": Args(steps=5, side=20)}


def main(args: Args) -> list[Path]:
    """Returns the pictures written."""
    import torch

    from generative.energy import ConvEnergy, PointEnergy
    from generative.rbm import RBM, DeepBeliefNetwork
    from generative.score_matching import ScoreNetwork
    from generative.training.pretrained import class_name

    known = {
        ConvEnergy: explore_images, PointEnergy: explore_points, RBM: explore_rbm,
        DeepBeliefNetwork: explore_dbn, ScoreNetwork: explore_score,
    }  # fmt: skip
    args = replace(args, device=str(find_device(args.device)))
    if not (args.model / "config.json").is_file() or (args.model / "model").is_dir():
        raise FileNotFoundError(
            f"{args.model}: there is no model; train one with train_energy.py, train_rbm.py or "
            "train_score.py, and pass the folder `model` of its run by --model"
        )
    name = class_name(args.model)
    kind = next((kind for kind in known if kind.__name__ == name), None)
    if kind is None:
        names = ", ".join(kind.__name__ for kind in known)
        raise ValueError(f"{args.model} holds {with_article(str(name))}; this explores {names}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    model = kind.from_pretrained(args.model, args.device)
    return [*known[kind](model, args), *curves(args)]


# ---------------------------------------------------------------------------------------------
# Each kind of model
# ---------------------------------------------------------------------------------------------


def explore_images(model, args: Args) -> list[Path]:
    """Walks from noise, samples, energies, the buffer."""
    import torch

    from generative.energy import langevin_path
    from generative.training.pictures import image_grid, strips

    c = model.config.langevin
    y = model.start(10)
    shown = [y]
    walk = langevin_path(model.chain_energy, y, args.steps, c.step_size, c.noise, c.clip, model.box)
    for step, y in enumerate(walk, 1):
        if step in SNAPSHOTS or step == args.steps:
            shown.append(y)
    by_walk = [model.to_data(torch.stack([s[i] for s in shown])) for i in range(len(y))]
    written = [
        save(args, "walks", strips(*by_walk, scale=2)),
        save(args, "samples", image_grid(model.to_data(y), columns=5, scale=3)),
    ]
    groups = {"walks": model.chain_energy(y), "noise": model.chain_energy(model.start(500))}
    test = test_images(args, model.config.image_shape)
    if test is not None:
        groups = {"test images": model.energy(test), **groups}
    buffer = saved_buffer(args)
    if buffer is not None:
        groups["buffer"] = model.chain_energy(buffer[:500].to(args.device))
        written.append(save(args, "buffer", image_grid(model.to_data(buffer[:100]), scale=2)))
    return [*written, histogram(args, groups)]


def explore_points(model, args: Args) -> list[Path]:
    """The landscape beside the true density, and walks down it with and without noise."""
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from generative.energy import langevin_path

    axis = torch.linspace(-2.5, 2.5, args.side)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).flatten(0, 1)
    with torch.no_grad():
        energy = model.energy(grid.to(args.device)).cpu().view(args.side, -1).numpy()
    log_partition = model.log_partition()
    truth = true_density(args)
    panels = {"model": np.exp(-energy - log_partition)}
    if truth is not None:
        panels = {"truth": truth.log_prob(grid).view(args.side, -1).exp().numpy(), **panels}
    figure = Figure(figsize=(4 * (len(panels) + 1), 4.4), layout="constrained")
    extent = (-2.5, 2.5, -2.5, 2.5)
    axes = figure.subplots(1, len(panels) + 1)
    top = max(float(p.max()) for p in panels.values())
    for ax, (name, p) in zip(axes, panels.items(), strict=False):
        ax.imshow(p, origin="lower", extent=extent, cmap="magma", vmin=0, vmax=top)
        ax.set_title(f"density, {name}")
    low = float(energy.min())
    axes[-1].imshow(energy, origin="lower", extent=extent, cmap="viridis", vmin=low, vmax=low + 12)
    axes[-1].set_title("energy, and walks down it")
    # Without noise a walk ends in the nearest hollow; with it, it goes on from there.
    begin = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]], device=args.device)
    step = float(model.step_size) / 4
    for noise, style in ((0.0, "w-"), (None, "r-")):
        path = list(langevin_path(model.chain_energy, begin, args.steps, step, noise, clip=50.0))
        line = torch.stack([begin, *path]).cpu().numpy()
        for i in range(len(begin)):
            axes[-1].plot(line[:, i, 0], line[:, i, 1], style, linewidth=0.8)
    axes[-1].set_xlim(-2.5, 2.5)
    axes[-1].set_ylim(-2.5, 2.5)
    written = [save_figure(args, "landscape", figure)]
    samples = model.sample(500)
    groups = {"samples": model.energy(samples), "noise": model.energy(model.start(500))}
    if truth is not None:
        groups = {"data": model.energy(truth.sample(500).to(args.device)), **groups}
    return [*written, histogram(args, groups)]


def explore_rbm(model, args: Args) -> list[Path]:
    """Receptive fields, Gibbs chains, reconstructions."""
    import torch

    from generative.training.pictures import image_grid, strips

    shape = model.config.shape
    fields = model.weight.detach().T[:64]
    reach = fields.abs().amax(1, keepdim=True)
    pictures = (0.5 + fields / (2 * reach)).unflatten(1, shape)
    written = [save(args, "receptive_fields", image_grid(pictures, scale=scale_of(shape)))]
    written.append(save(args, "gibbs_chains", gibbs_chains(model, args)))
    test = test_images(args, shape)
    if test is not None:
        x = (test[:10] >= setting(args, "threshold", 0.5)).float()
        with torch.no_grad():
            rows = (x, model.reconstruct(x))
        written.append(save(args, "reconstructions", strips(*rows, scale=scale_of(shape))))
    return written


def explore_dbn(model, args: Args) -> list[Path]:
    """What each layer's units look for, as what they send down, and samples."""
    import torch

    from generative.training.pictures import image_grid

    shape, written = model.config.shape, []
    for layer in range(len(model.stack)):
        down = torch.eye(model.stack[layer].config.hidden_dim, device=args.device)[:64]
        with torch.no_grad():
            for rbm in reversed(model.stack[: layer + 1]):
                down = rbm.visible_mean(down).flatten(1)
        picture = image_grid(down.unflatten(1, shape), scale=scale_of(shape))
        written.append(save(args, f"units_of_layer_{layer + 1}", picture))
    return [*written, save(args, "samples", image_grid(model.sample(64), scale=scale_of(shape)))]


def explore_score(model, args: Args) -> list[Path]:
    """Walks through the noise levels; of points also the field of scores."""
    import torch
    from matplotlib.figure import Figure

    from generative.score_matching import annealed_langevin_path
    from generative.training.pictures import point_clouds, strips

    c, images = model.config, len(model.config.shape) == 3
    x = model.start(8 if images else 2000)
    steps = min(c.sample_steps, args.steps)
    with torch.no_grad():
        path = [
            x, *annealed_langevin_path(model.score, x, model.levels, steps, c.step_size)
        ]  # fmt: skip
        path.append(model.finish(path[-1]))
    chosen = [*path[:: max(1, len(path) // 8)], path[-1]]
    if images:
        by_walk = [torch.stack([s[i] for s in chosen]) for i in range(8)]
        return [save(args, "walks", strips(*by_walk, scale=scale_of(c.shape)))]
    written = [save(args, "walks", point_clouds(chosen))]
    axis = torch.linspace(-2.5, 2.5, min(args.side, 25))
    grid = torch.cartesian_prod(axis, axis).to(args.device)
    figure = Figure(figsize=(12, 4), layout="constrained")
    middle = len(model.levels) // 2
    for ax, sigma in zip(figure.subplots(1, 3), model.levels[[0, middle, -1]], strict=True):
        with torch.no_grad():
            arrow = sigma * model.score(grid, sigma)
        ax.quiver(*grid.T.cpu().numpy(), *arrow.T.cpu().numpy(), angles="xy")
        ax.set_title(f"sigma * score, sigma = {float(sigma):.3g}")
    return [*written, save_figure(args, "score_field", figure)]


# ---------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------


def gibbs_chains(model, args: Args):
    """Eight chains, a row each, at ten moments."""
    import torch

    from generative.training.pictures import strips

    v = torch.bernoulli(model.visible_bias.detach().sigmoid().expand(8, -1))
    shown = [v]
    for _ in range(9):
        v = model.gibbs(v, max(1, args.steps // 9))
        shown.append(v)
    rows = [torch.stack([s[i] for s in shown]).unflatten(1, model.config.shape) for i in range(8)]
    return strips(*rows, scale=scale_of(model.config.shape))


def histogram(args: Args, groups: dict[str, Tensor]) -> Path:
    """Energies of several groups of examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    ax = figure.subplots()
    for name, values in groups.items():
        ax.hist(values.detach().cpu().numpy(), bins=40, density=True, alpha=0.6, label=name)
    ax.set_xlabel("energy")
    ax.legend()
    return save_figure(args, "energies", figure)


def curves(args: Args) -> list[Path]:
    """Every metric of the run over its steps, in groups of the same range."""
    from matplotlib.figure import Figure

    from generative.training.metrics import METRICS_NAME, read_metrics

    if not (args.model.parent / METRICS_NAME).is_file():
        return []
    series: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(args.model.parent):
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                series.setdefault(name, []).append((line["step"], value))
    if not series:
        return []
    figure = Figure(figsize=(7, 1.6 * len(series)), layout="constrained")
    axes = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, points) in zip(axes, series.items(), strict=True):
        ax.plot(*zip(*points, strict=True))
        ax.set_ylabel(name)
    axes[-1].set_xlabel("step")
    return [save_figure(args, "metrics", figure)]


def run_settings(args: Args) -> dict[str, Any]:
    """Settings of the run that the model is in; empty if it is in none."""
    from generative.training.run import CONFIG_NAME, read_config

    run = args.model.parent
    return read_config(run)[1] if (run / CONFIG_NAME).is_file() else {}


def setting(args: Args, name: str, default: Any) -> Any:
    """One of them."""
    return run_settings(args).get(name, default)


def test_images(args: Args, shape: Any) -> Tensor | None:
    """Up to 500 test images of the run's data; None if there is no run, or its data are gone."""
    settings = run_settings(args)
    if not settings:
        return None
    if settings["data"] == "bars-and-stripes":
        from generative.known.bars_and_stripes import bars_and_stripes

        return bars_and_stripes(shape[1]).as_tensor(device=args.device)
    from scripts.common.images import load_images

    try:
        images = load_images(settings["data"], Path(settings["data_dir"]), tuple(shape))
    except FileNotFoundError:
        return None
    return images.part("test").as_tensor(slice(500), args.device)


def true_density(args: Args):
    """The density that the run's points were drawn from; None if there is no run."""
    name = setting(args, "data", "")
    return load_density(name) if name in get_args(PointData) else None


def saved_buffer(args: Args) -> Tensor | None:
    """Samples that the run's last checkpoint holds; None if there is none."""
    from generative.training.checkpoint import Checkpoints

    latest = Checkpoints(args.model.parent / "checkpoints").load_latest()
    return None if latest is None else latest[1]["learner"]["buffer"]


def scale_of(shape: tuple[int, ...]) -> int:
    """So that an image is 32 pixels high or more."""
    return max(1, -(-32 // shape[1]))


def save(args: Args, name: str, picture) -> Path:
    """Write uint8 (H, W, 3) to out/NAME.png."""
    from PIL import Image

    path = args.out / f"{name}.png"
    Image.fromarray(picture).save(path)
    return path


def save_figure(args: Args, name: str, figure) -> Path:
    """Write a figure to out/NAME.png."""
    path = args.out / f"{name}.png"
    figure.savefig(path, dpi=100)
    return path


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
