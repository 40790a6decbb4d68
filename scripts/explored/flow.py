"""A trained flow: its map in the plane, its density, its images, its paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generative.training.ranges import Checked, Count, CountOrZero
from scripts.explored.common import Subject, scale_to

CLASSES = ("RealNVP", "FFJORD", "Glow", "ImageRealNVP")
PANELS = ("data", "data, encoded", "noise", "noise, decoded")
"""Titles of the book's four panels."""


@dataclass(frozen=True)
class Settings(Checked):
    """Flows."""

    factor: CountOrZero | None = None
    """Images: which of the data's factors is changed; if not given 1, of sprites the colour, or 0
    where there is no other."""
    values: tuple[CountOrZero, CountOrZero] = (0, 1)
    """Images: from which value of the factor to which."""
    points: Count = 3000
    """In the plane: points in a panel."""
    side: Count = 300
    """In the plane: pixels along each side of a density."""
    images: Count = 8
    """Images in a row."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures of a flow.

    RealNVP in the plane: the book's four panels before and after training, what every layer does,
    the density, the grid of codes as the flow bends it. FFJORD: the panels, the density, the grid,
    and both points and density on their way from noise to data. Of images: samples at several
    temperatures, the way between images, and images changed along the direction of a factor.
    """
    import torch

    from generative.flow import FFJORD, ImageFlow

    flow = subject.model.to("cpu")
    if isinstance(flow, ImageFlow):
        explore_images(flow, subject, settings)
        return {}
    torch.manual_seed(subject.seed)
    explore_plane(flow, flow.config.build(), subject, settings)
    if isinstance(flow, FFJORD):
        explore_paths(flow, subject, settings)
    else:
        explore_couplings(flow, subject, settings)
    return {}


# ---------------------------------------------------------------------------------------------
# Points in the plane
# ---------------------------------------------------------------------------------------------


def explore_plane(flow, untrained, subject: Subject, settings: Settings) -> None:
    """The four panels before and after training, densities, and the grid of codes."""
    import torch

    from generative.training.pictures import point_clouds, sheet

    x, z = draw_points(subject, settings)
    for name, model in (("before", untrained), ("after", flow)):
        with torch.no_grad():
            clouds = [x, model.encode(x), z, model.decode(z)]
        subject.save(f"panels-{name}", point_clouds(clouds, titles=PANELS))
    truth = density_picture(subject.density().log_prob, settings.side)
    found = density_picture(lambda at: flow.log_prob(at.float()), settings.side)
    subject.save("density", sheet([truth, found], ["true density", "density of the flow"]))
    subject.save("grid", warped_grid(flow))


def explore_couplings(flow, subject: Subject, settings: Settings) -> None:
    """The noise after every layer, on its way to data."""
    import torch

    from generative.training.pictures import point_clouds

    _, z = draw_points(subject, settings)
    clouds = [z]
    with torch.no_grad():
        for layer in flow.layers:
            clouds.append(layer.decode(clouds[-1]))
    titles = ["noise", *(f"after layer {i + 1}" for i in range(len(flow.layers)))]
    subject.save("couplings", point_clouds(clouds, titles=titles, columns=4))


def explore_paths(flow, subject: Subject, settings: Settings) -> None:
    """Points and densities on their way from noise to data, and the paths of single points."""
    import numpy as np

    from generative.training.pictures import point_clouds, sheet

    _, z = draw_points(subject, settings)
    path = flow.trajectory(z, num_times=9)
    times = np.linspace(0, 1, 9)[::2]
    densities = [
        density_picture(lambda at, t=t: flow.log_prob_at(at.float(), t), settings.side)
        for t in times
    ]
    titles = [f"time {t:g}" for t in times]
    subject.save(
        "trajectory-points", point_clouds(list(path[::2]), side=settings.side, titles=titles)
    )
    subject.save("trajectory-density", sheet(densities, titles))
    subject.save("paths", drawn_lines(flow.trajectory(z[:150], num_times=33).movedim(0, 1)))


def draw_points(subject: Subject, settings: Settings):
    """Data and standard normal points, (N, 2) each."""
    import torch

    generator = torch.Generator().manual_seed(subject.seed)
    x = subject.density().sample(settings.points, generator)
    z = torch.randn(settings.points, 2, generator=torch.Generator().manual_seed(subject.seed + 1))
    return x, z


def density_picture(log_prob, side: int, limit: float = 3.0):
    """exp(log_prob) over the square from -limit to limit, dark where it is high; (H, W, 3)."""
    import matplotlib
    import torch

    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * limit - limit
    at = torch.cartesian_prod(-axis, axis).flip(1)  # rows from the top
    with torch.no_grad():
        density = torch.cat([log_prob(part) for part in at.split(2**14)]).exp()
    density = (density / density.quantile(0.995)).clamp(0, 1).reshape(side, side)
    colours = matplotlib.colormaps["magma_r"](density.double().numpy())
    return (255 * colours[..., :3]).astype("uint8")


def warped_grid(flow, limit: float = 2.5, lines: int = 21):
    """Straight lines between codes, decoded."""
    import torch

    fine, coarse = torch.linspace(-limit, limit, 400), torch.linspace(-limit, limit, lines)
    across = torch.stack(torch.meshgrid(coarse, fine, indexing="ij"), -1)
    both = torch.cat([across, across.flip(-1)])
    with torch.no_grad():
        return drawn_lines(flow.decode(both.flatten(0, 1)).unflatten(0, both.shape[:2]))


def drawn_lines(lines, limit: float = 3.0):
    """Lines (N, T, 2), each in the colour of where it begins; (H, W, 3)."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    paths = lines.detach().numpy()
    hue = (np.arctan2(paths[:, 0, 1], paths[:, 0, 0]) / (2 * np.pi)) % 1
    axes.add_collection(
        LineCollection(list(paths), colors=colormaps["twilight"](hue), linewidths=0.7)
    )
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
    axes.axis("off")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def explore_images(flow, subject: Subject, settings: Settings) -> None:
    """Samples at several temperatures, ways between images, images changed along a factor."""
    import math

    import torch

    from generative.training.pictures import image_grid

    levels, shape, n = flow.dequantiser.levels, flow.shape, settings.images
    scale = scale_to(64, shape)
    rows = []
    for temperature in (0.0, 0.25, 0.5, 0.7, 0.85, 1.0):
        generator = torch.Generator().manual_seed(subject.seed)
        z = torch.randn(n, math.prod(shape), generator=generator)
        with torch.no_grad():
            rows.append(flow.decode(temperature * z))
    subject.save("temperatures", image_grid(torch.cat(rows), columns=n, scale=scale))

    images = subject.images(shape, levels)
    train, test = images.part("train", "val"), images.part("test")
    with torch.no_grad():
        ends = flow.encode(test.as_tensor(slice(8)))
        share = torch.linspace(0, 1, n)[:, None]
        between = [a + share * (b - a) for a, b in zip(ends[::2], ends[1::2], strict=True)]
        subject.save("between", image_grid(flow.decode(torch.cat(between)), columns=n, scale=scale))

        old, new = settings.values
        column = settings.factor
        if column is None:
            column = min(1, train.factors.shape[1] - 1)
        factor = train.factors[:, column]
        examples = [(factor == value).nonzero()[0][:500] for value in (old, new)]
        chosen = (test.factors[:, column] == old).nonzero()[0][:4]
        if not all(map(len, [*examples, chosen])):  # frames have no factors
            return
        means = [flow.encode(train.as_tensor(rows)).mean(0) for rows in examples]
        codes = flow.encode(test.as_tensor(chosen))
        step = torch.linspace(-0.5, 1.5, n)[:, None]
        moved = torch.cat([code + step * (means[1] - means[0]) for code in codes])
        subject.save("factor", image_grid(flow.decode(moved), columns=n, scale=scale))
