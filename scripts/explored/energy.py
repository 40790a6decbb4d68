"""A trained energy-based model, Boltzmann machine or score network: what it has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

SNAPSHOTS = (0, 1, 3, 5, 10, 30, 50, 100, 300, 999)
"""Steps of a walk that are shown, as far as it goes."""

CLASSES = ("ConvEnergy", "ImageEnergy", "PointEnergy", "RBM", "DeepBeliefNetwork", "ScoreNetwork")


@dataclass(frozen=True)
class Settings(Checked):
    """Energy-based models, Boltzmann machines and score networks."""

    steps: Count = 1000
    """Steps of a walk or of a Gibbs chain."""
    side: Count = 200
    """Pixels of a landscape on either axis."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of what the model has learned.

    Energy of images: walks from noise, energies of data, samples and noise, the sample buffer.
    Energy of points: the landscape beside the true density, descent with and without noise.
    Boltzmann machines: receptive fields, Gibbs chains, reconstructions. Scores: walks through the
    noise levels, the field of scores.
    """
    import torch

    explorers = {
        "ImageEnergy": explore_images, "PointEnergy": explore_points, "RBM": explore_rbm,
        "DeepBeliefNetwork": explore_dbn, "ScoreNetwork": explore_score,
    }  # fmt: skip
    torch.manual_seed(subject.seed)
    explorers[type(subject.model).__name__](subject, settings)
    return {}


# ---------------------------------------------------------------------------------------------
# Each kind of model
# ---------------------------------------------------------------------------------------------


def explore_images(subject: Subject, settings: Settings) -> None:
    """Walks from noise, samples, energies, the buffer."""
    import torch

    from generative.energy import langevin_path
    from generative.training.pictures import image_grid, strips

    model = subject.model
    c = model.langevin
    y = model.start(10)
    shown = [y]
    walk = langevin_path(
        model.chain_energy, y, settings.steps, c.step_size, c.noise, c.clip, model.box
    )
    for step, y in enumerate(walk, 1):
        if step in SNAPSHOTS or step == settings.steps:
            shown.append(y)
    by_walk = [model.to_data(torch.stack([s[i] for s in shown])) for i in range(len(y))]
    subject.save("walks", strips(*by_walk, scale=2))
    subject.save("samples", image_grid(model.to_data(y), columns=5, scale=3))
    groups = {"walks": model.chain_energy(y), "noise": model.chain_energy(model.start(500))}
    test = test_images(subject, model.image_shape)
    if test is not None:
        groups = {"test images": model.energy(test), **groups}
    buffer = saved_buffer(subject)
    if buffer is not None:
        groups["buffer"] = model.chain_energy(buffer[:500].to(subject.device))
        subject.save("buffer", image_grid(model.to_data(buffer[:100]), scale=2))
    subject.save_figure("energies", histogram(groups), dpi=100)


def explore_points(subject: Subject, settings: Settings) -> None:
    """The landscape beside the true density, and walks down it with and without noise."""
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from generative.energy import langevin_path

    model, side = subject.model, settings.side
    axis = torch.linspace(-2.5, 2.5, side)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).flatten(0, 1)
    with torch.no_grad():
        energy = model.energy(grid.to(subject.device)).cpu().view(side, -1).numpy()
    log_partition = model.log_partition()
    truth = subject.density_if_there()
    panels = {"model": np.exp(-energy - log_partition)}
    if truth is not None:
        panels = {"truth": truth.log_prob(grid).view(side, -1).exp().numpy(), **panels}
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
    corners = [[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]]
    begin = torch.tensor(corners, device=subject.device)
    step = float(model.step_size) / 4
    for noise, style in ((0.0, "w-"), (None, "r-")):
        walk = langevin_path(model.chain_energy, begin, settings.steps, step, noise, clip=50.0)
        line = torch.stack([begin, *walk]).cpu().numpy()
        for i in range(len(begin)):
            axes[-1].plot(line[:, i, 0], line[:, i, 1], style, linewidth=0.8)
    axes[-1].set_xlim(-2.5, 2.5)
    axes[-1].set_ylim(-2.5, 2.5)
    subject.save_figure("landscape", figure, dpi=100)
    samples = model.sample(500)
    groups = {"samples": model.energy(samples), "noise": model.energy(model.start(500))}
    if truth is not None:
        groups = {"data": model.energy(truth.sample(500).to(subject.device)), **groups}
    subject.save_figure("energies", histogram(groups), dpi=100)


def explore_rbm(subject: Subject, settings: Settings) -> None:
    """Receptive fields, Gibbs chains, reconstructions."""
    import torch

    from generative.training.pictures import image_grid, strips

    model = subject.model
    shape = model.config.shape
    fields = model.weight.detach().T[:64]
    reach = fields.abs().amax(1, keepdim=True)
    pictures = (0.5 + fields / (2 * reach)).unflatten(1, shape)
    subject.save("receptive_fields", image_grid(pictures, scale=scale_of(shape)))
    subject.save("gibbs_chains", gibbs_chains(model, settings.steps))
    test = test_images(subject, shape)
    if test is not None:
        x = (test[:10] >= subject.setting("threshold", 0.5)).float()
        with torch.no_grad():
            rows = (x, model.reconstruct(x))
        subject.save("reconstructions", strips(*rows, scale=scale_of(shape)))


def explore_dbn(subject: Subject, settings: Settings) -> None:
    """Draw the pattern that each unit of each layer sends down, and samples."""
    import torch

    from generative.training.pictures import image_grid

    model = subject.model
    shape = model.config.shape
    for layer in range(len(model.stack)):
        down = torch.eye(model.stack[layer].config.hidden_dim, device=subject.device)[:64]
        with torch.no_grad():
            for rbm in reversed(model.stack[: layer + 1]):
                down = rbm.visible_mean(down).flatten(1)
        picture = image_grid(down.unflatten(1, shape), scale=scale_of(shape))
        subject.save(f"units_of_layer_{layer + 1}", picture)
    subject.save("samples", image_grid(model.sample(64), scale=scale_of(shape)))


def explore_score(subject: Subject, settings: Settings) -> None:
    """Walks through the noise levels; of points also the field of scores."""
    import torch
    from matplotlib.figure import Figure

    from generative.score_matching import annealed_langevin_path
    from generative.training.pictures import point_clouds, strips

    model = subject.model
    c, images = model.config, len(model.config.shape) == 3
    x = model.start(8 if images else 2000)
    steps = min(c.sample_steps, settings.steps)
    with torch.no_grad():
        path = [
            x, *annealed_langevin_path(model.score, x, model.levels, steps, c.step_size)
        ]  # fmt: skip
        path.append(model.finish(path[-1]))
    chosen = [*path[:: max(1, len(path) // 8)], path[-1]]
    if images:
        by_walk = [torch.stack([s[i] for s in chosen]) for i in range(8)]
        subject.save("walks", strips(*by_walk, scale=scale_of(c.shape)))
        return
    subject.save("walks", point_clouds(chosen))
    axis = torch.linspace(-2.5, 2.5, min(settings.side, 25))
    grid = torch.cartesian_prod(axis, axis).to(subject.device)
    figure = Figure(figsize=(12, 4), layout="constrained")
    middle = len(model.levels) // 2
    for ax, sigma in zip(figure.subplots(1, 3), model.levels[[0, middle, -1]], strict=True):
        with torch.no_grad():
            arrow = sigma * model.score(grid, sigma)
        ax.quiver(*grid.T.cpu().numpy(), *arrow.T.cpu().numpy(), angles="xy")
        ax.set_title(f"sigma * score, sigma = {float(sigma):.3g}")
    subject.save_figure("score_field", figure, dpi=100)


# ---------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------


def gibbs_chains(model, steps: int):
    """Eight chains, a row each, at ten moments."""
    import torch

    from generative.training.pictures import strips

    v = torch.bernoulli(model.visible_bias.detach().sigmoid().expand(8, -1))
    shown = [v]
    for _ in range(9):
        v = model.gibbs(v, max(1, steps // 9))
        shown.append(v)
    rows = [torch.stack([s[i] for s in shown]).unflatten(1, model.config.shape) for i in range(8)]
    return strips(*rows, scale=scale_of(model.config.shape))


def histogram(groups: dict[str, Tensor]) -> Figure:
    """Figure: energies of several groups of examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    ax = figure.subplots()
    for name, values in groups.items():
        ax.hist(values.detach().cpu().numpy(), bins=40, density=True, alpha=0.6, label=name)
    ax.set_xlabel("energy")
    ax.legend()
    return figure


def test_images(subject: Subject, shape: Any) -> Tensor | None:
    """Up to 500 test images of the run's data; None where they are not at hand."""
    if subject.data == "bars-and-stripes":
        from generative.known.bars_and_stripes import bars_and_stripes

        return bars_and_stripes(shape[1]).as_tensor(device=subject.device)
    images = subject.images_if_there(tuple(shape))
    if images is None:
        return None
    return images.part("test").as_tensor(slice(500), subject.device)


def saved_buffer(subject: Subject) -> Tensor | None:
    """Samples that the run's last checkpoint holds; None if there is none."""
    from generative.training.checkpoint import Checkpoints

    if subject.run is None:
        return None
    latest = Checkpoints(subject.run / "checkpoints").load_latest()
    return None if latest is None else latest[1]["learner"]["buffer"]


def scale_of(shape: tuple[int, ...]) -> int:
    """So that an image is 32 pixels high or more."""
    return max(1, -(-32 // shape[1]))
