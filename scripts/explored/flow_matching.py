"""A trained flow of straight lines, or a MeanFlow: its paths, its velocity, its few steps."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject, scale_to
from scripts.explored.flow import density_picture, drawn_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

CLASSES = ("PointFlowMatching", "ImageFlowMatching", "PointMeanFlow", "ImageMeanFlow")
TIMES = (0.0, 0.25, 0.5, 0.75, 0.95)
"""Times of the pictures of the velocity."""


@dataclass(frozen=True)
class Settings(Checked):
    """Flow matching and MeanFlow."""

    steps: tuple[Count, ...] = (1, 2, 4, 8, 50)
    """Numbers of steps that are compared."""
    points: Count = 3000
    """In the plane: points in a cloud."""
    pairs: Count = 1000
    """In the plane: points of which the distance from the data is measured."""
    side: Count = 300
    """In the plane: pixels along each side of a density."""
    images: Count = 8
    """Images in a row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps")


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures, and how straight the paths are and how far few steps are from the data.

    In the plane: paths of single noises, clouds after few and many steps, arrows of the velocity
    beside the exact ones where these are known, and for flow matching the density. Of images:
    samples, the same noise in few and many steps, and the image that is expected along the path.
    """
    of = of_points if len(subject.model.shape) == 1 else of_images
    return of(subject, settings)


def sampled(model, z: Tensor, steps: int) -> Tensor:
    """Examples of noise z in so many steps: of Euler's method, or jumps."""
    from generative.flow_matching import FlowMatching

    is_flow = isinstance(model, FlowMatching)
    *_, x = model.path(z, steps, "euler") if is_flow else model.path(z, steps)
    return model.denormalise(x)


def flow_of(model):
    """The model itself, or the flow of a MeanFlow's velocity."""
    from generative.flow_matching import FlowMatching

    return model if isinstance(model, FlowMatching) else model.flow()


# ---------------------------------------------------------------------------------------------
# Points
# ---------------------------------------------------------------------------------------------


def of_points(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a model of points, and figures of its paths and its steps."""
    import torch

    from generative.known.two_samples import wasserstein
    from generative.training.pictures import point_clouds, sheet

    model, density = subject.model.to("cpu"), subject.density()
    flow, generator = flow_of(model), torch.Generator().manual_seed(subject.seed)
    z = torch.randn(settings.points, 2, generator=generator)
    with torch.no_grad():
        path = torch.stack([z, *flow.path(z, 50, "heun")])
        clouds = [sampled(model, z, steps) for steps in settings.steps]
    subject.save("paths", drawn_lines(path[:, :150].movedim(0, 1)))
    data = density.sample(settings.points, generator)
    titles = [f"{n} steps" if n > 1 else "1 step" for n in settings.steps]
    subject.save("steps", point_clouds([*clouds, data], titles=[*titles, "data"]))
    subject.save_figure("velocity", arrows(flow, density))
    if flow is model:
        truth = density_picture(density.log_prob, settings.side)
        found = density_picture(lambda at: model.log_prob(at.float()), settings.side)
        subject.save("density", sheet([truth, found], ["true density", "density of the flow"]))

    count = min(settings.pairs, settings.points)
    other = density.sample(count, generator)
    distances = {
        f"{n}_steps": wasserstein(cloud[:count], data[:count])
        for n, cloud in zip(settings.steps, clouds, strict=True)
    }
    return {
        "straightness": straightness(path),
        "wasserstein": {**distances, "of_data": wasserstein(other, data[:count])},
    }


def straightness(path: Tensor) -> float:
    """Mean squared difference of the velocity from that of the straight way between both ends, by
    the steps of a path (T, B, D); 0 for straight lines (Liu et al. 2023, equation 4)."""
    velocity = (len(path) - 1) * path.diff(dim=0)
    return float((velocity - (path[-1] - path[0])).square().sum(2).mean())


def arrows(flow, density, reach: float = 2.5, num: int = 15) -> Figure:
    """Figure: the velocity on a grid at some times, above the exact one where it is known."""
    import torch
    from matplotlib.figure import Figure

    from generative.flow_matching import MixtureVelocity

    fields = {"model": flow.velocity}
    with contextlib.suppress(ValueError):  # not a mixture of Gaussians
        fields["exact"] = MixtureVelocity.of(density)
    figure = Figure(figsize=(3 * len(TIMES), 3 * len(fields)), layout="constrained")
    axes = figure.subplots(len(fields), len(TIMES), squeeze=False)
    ticks = torch.linspace(-reach, reach, num)
    at = torch.cartesian_prod(ticks, ticks)
    for row, (name, field) in zip(axes, fields.items(), strict=True):
        for axis, t in zip(row, TIMES, strict=True):
            with torch.no_grad():
                velocity = field(at, torch.full((len(at),), t))
            axis.quiver(*at.T.numpy(), *velocity.T.numpy(), angles="xy", scale=40)
            axis.set(title=f"{name}, t = {t:g}", xticks=[], yticks=[], aspect="equal")
    return figure


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def of_images(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a model of images."""
    import torch

    from generative.flow_matching import noise_and_data
    from generative.training.pictures import image_grid, strips

    model, n = subject.model, settings.images
    flow, scale = flow_of(model), scale_to(64, model.shape)
    generator = subject.generator()

    def noise(num: int) -> Tensor:
        return torch.randn(num, *model.shape, generator=generator, device=subject.device)

    with torch.no_grad():
        drawn = model.sample(4 * n, generator)
        subject.save("samples", image_grid(drawn, columns=n, scale=scale))
        z = noise(n)
        rows = [sampled(model, z, steps) for steps in settings.steps]
        subject.save("steps", strips(*rows, scale=scale))
        z = noise(1)
        path = [z, *flow.path(z, n, "heun")][:n]
        t = torch.arange(n, device=subject.device) / n
        x = torch.cat(path)
        expected = noise_and_data(flow.velocity(x, t), x, t)[1]
        subject.save("path", strips(*map(model.denormalise, (x, expected)), scale=scale))
    return {}
