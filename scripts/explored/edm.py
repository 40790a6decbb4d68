"""A trained model with the preconditioning of EDM: its factors, its steps, its density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count
from scripts.explored.common import Subject, scale_to
from scripts.explored.flow import density_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

CLASSES = ("PointEDM", "ImageEDM")


@dataclass(frozen=True)
class Settings(Checked):
    """Diffusion with EDM's preconditioning."""

    steps: tuple[Count, ...] = (2, 4, 8, 18, 50)
    """Numbers of Heun's steps that are compared."""
    points: Count = 3000
    """In the plane: points in a cloud."""
    side: Count = 300
    """In the plane: pixels along each side of a density."""
    images: Count = 8
    """Images in a row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps")


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a model with EDM's preconditioning.

    Factors of the network's parts over the noise levels; the same noise in few and in many steps;
    in the plane the density beside the true one, of images samples.
    """
    import torch

    from generative.training.pictures import image_grid, point_clouds, sheet, strips

    model, generator = subject.model, subject.generator()
    points = len(model.shape) == 1
    num = settings.points if points else settings.images
    z = torch.randn(num, *model.shape, generator=generator, device=subject.device)
    rows = [made(model, z, steps) for steps in settings.steps]
    titles = [f"{steps} steps" if steps > 1 else "1 step" for steps in settings.steps]
    if points:
        density = subject.density()
        data = density.sample(settings.points, torch.Generator().manual_seed(subject.seed))
        subject.save("steps", point_clouds([*rows, data], titles=[*titles, "data"]))
        truth = density_picture(density.log_prob, settings.side)
        found = density_picture(
            lambda at: model.log_prob(at.float().to(subject.device)).cpu(), settings.side
        )
        subject.save("density", sheet([truth, found], ["true density", "density of the model"]))
    else:
        scale = scale_to(64, model.shape)
        subject.save("steps", strips(*rows, scale=scale))
        drawn = model.sample(4 * settings.images, generator)
        subject.save("samples", image_grid(drawn, columns=settings.images, scale=scale))
    subject.save_figure("factors", factors(model.estimate.sigma_data))
    return {}


def made(model, z: Tensor, steps: int) -> Tensor:
    """Examples of noise z in so many steps."""
    *_, x = model.path(z, steps)
    return model.denormalise(x)


def factors(sigma_data: float) -> Figure:
    """Figure: factors of what is kept, of the network's output and of its input."""
    import torch
    from matplotlib.figure import Figure

    from generative.diffusion import scalings

    sigma = torch.logspace(-3, 2, 300)
    found = scalings(sigma, sigma_data)
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    names = {"c_skip": found.skip, "c_out": found.out, "c_in": found.into}
    for name, values in names.items():
        axis.plot(sigma.numpy(), values.numpy(), label=name)
    axis.set(xscale="log", xlabel="noise level sigma")
    axis.legend()
    return figure
