"""Look into a trained flow: its map in the plane, its density, its images, its paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, CountOrZero, Folder, Seed, Workers
from generative.training.words import with_article
from scripts.common.images import ImageData
from scripts.common.points import PointData, load_density


@dataclass(frozen=True)
class Args(Checked):
    """Look into a trained flow: its map in the plane, its density, its images, its paths.

    RealNVP in the plane: the book's four panels before and after training, what every layer does,
    the density, the grid of codes as the flow bends it. FFJORD: the panels, the density, the grid,
    and both points and density on their way from noise to data. Glow: samples at several
    temperatures, the way between images, and images changed along the direction of a factor.
    """

    model: Annotated[Path, Input("train_realnvp.py")] = Path("runs/realnvp/model")
    """Folder of the trained flow, the `model` in the folder of its run."""
    out: Folder = Path("runs/realnvp/explore")
    """Folder of the pictures."""
    density: PointData = "two-moons"
    """In the plane: what the flow was trained on."""
    data: ImageData = "sprites"
    """Images: what the flow was trained on."""
    data_dir: Path = Path("data")
    """Where its files are, or in a folder of its name there (sprites and digits need none)."""
    factor: CountOrZero = 0
    """Images: which of the data's factors is changed (sprites: 1 is the colour)."""
    values: tuple[CountOrZero, CountOrZero] = (0, 1)
    """Images: from which value of the factor to which."""
    points: Count = 3000
    """In the plane: points in a panel."""
    side: Count = 300
    """In the plane: pixels along each side of a density."""
    images: Count = 8
    """Images in a row."""
    threads: Workers = 0
    """CPU threads; 0 leaves the choice to torch."""
    seed: Seed = 1


DEFAULT_PRESET = "realnvp"
PRESETS = {
    "realnvp": Args(),
    "ffjord": Args(model=Path("runs/ffjord/model"), out=Path("runs/ffjord/explore")),
    "glow": Args(model=Path("runs/glow/model"), out=Path("runs/glow/explore"), factor=1),
    "smoke": Args(points=200, side=20, images=3),
}


def main(args: Args) -> Path:
    """Returns the folder of the pictures."""
    kind = kind_of_model(args.model)
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if kind == "Glow":
        from generative.flow import Glow

        explore_images(Glow.from_pretrained(args.model), args)
    elif kind == "FFJORD":
        from generative.flow import FFJORD

        flow = FFJORD.from_pretrained(args.model)
        torch.manual_seed(args.seed)
        explore_plane(flow, FFJORD(flow.config), args)
        explore_paths(flow, args)
    else:
        from generative.flow import RealNVP

        flow = RealNVP.from_pretrained(args.model)
        torch.manual_seed(args.seed)
        explore_plane(flow, RealNVP(flow.config), args)
        explore_couplings(flow, args)
    print(f"pictures are in {args.out}")
    return args.out


def kind_of_model(folder: Path) -> str:
    """Which flow is in a folder.

    Raises:
        FileNotFoundError: there is none; says how to get one.
        ValueError: it is another model.
    """
    from generative.training.pretrained import class_name

    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder}: there is no model; train one (scripts/train_realnvp.py, train_glow.py, "
            "train_ffjord.py) and pass the folder `model` of its run with --model"
        )
    kind = class_name(folder)
    if kind not in ("RealNVP", "FFJORD", "Glow"):
        raise ValueError(
            f"{folder} holds {with_article(str(kind))}; pass a RealNVP, an FFJORD or a Glow"
        )
    return kind


# ---------------------------------------------------------------------------------------------
# Points in the plane
# ---------------------------------------------------------------------------------------------


def explore_plane(flow, untrained, args: Args) -> None:
    """The four panels before and after training, densities, and the grid of codes."""
    import torch

    from generative.training.pictures import point_clouds

    x, z = draw_points(args)
    for name, model in (("before", untrained), ("after", flow)):
        with torch.no_grad():
            panels = point_clouds([x, model.encode(x), z, model.decode(z)])
        save(panels, args, f"panels-{name}")
    truth = density_picture(load_density(args.density).log_prob, args.side)
    save(
        side_by_side(truth, density_picture(lambda at: flow.log_prob(at.float()), args.side)),
        args,
        "density",
    )
    save(warped_grid(flow), args, "grid")


def explore_couplings(flow, args: Args) -> None:
    """The noise after every layer, on its way to data."""
    import torch

    from generative.training.pictures import point_clouds

    _, z = draw_points(args)
    clouds = [z]
    with torch.no_grad():
        for layer in flow.layers:
            clouds.append(layer.decode(clouds[-1]))
    save(point_clouds(clouds), args, "couplings")


def explore_paths(flow, args: Args) -> None:
    """Points and densities on their way from noise to data, and the paths of single points."""
    import numpy as np

    from generative.training.pictures import point_clouds

    _, z = draw_points(args)
    path = flow.trajectory(z, num_times=9)
    times = np.linspace(0, 1, 9)[::2]
    densities = [
        density_picture(lambda at, t=t: flow.log_prob_at(at.float(), t), args.side) for t in times
    ]
    save(point_clouds(list(path[::2]), side=args.side), args, "trajectory-points")
    save(side_by_side(*densities), args, "trajectory-density")
    save(drawn_lines(flow.trajectory(z[:150], num_times=33).movedim(0, 1)), args, "paths")


def draw_points(args: Args):
    """Data and standard normal points, (N, 2) each."""
    import torch

    x = load_density(args.density).sample(args.points, torch.Generator().manual_seed(args.seed))
    z = torch.randn(args.points, 2, generator=torch.Generator().manual_seed(args.seed + 1))
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


def explore_images(flow, args: Args) -> None:
    """Samples at several temperatures, ways between images, images changed along a factor."""
    import torch

    from generative.training.pictures import image_grid
    from scripts.common.images import load_images

    config, n = flow.config, args.images
    scale = max(1, 64 // config.image_shape[2])
    rows = []
    for temperature in (0.0, 0.25, 0.5, 0.7, 0.85, 1.0):
        generator = torch.Generator().manual_seed(args.seed)
        rows.append(flow.sample(n, generator, temperature))
    save(image_grid(torch.cat(rows), columns=n, scale=scale), args, "temperatures")

    images = load_images(args.data, args.data_dir, config.image_shape, config.levels)
    train, test = images.part("train", "val"), images.part("test")
    with torch.no_grad():
        ends = flow.encode(test.as_tensor(slice(8)))
        share = torch.linspace(0, 1, n)[:, None]
        between = [a + share * (b - a) for a, b in zip(ends[::2], ends[1::2], strict=True)]
        save(image_grid(flow.decode(torch.cat(between)), columns=n, scale=scale), args, "between")

        old, new = args.values
        factor = train.factors[:, args.factor]
        means = [
            flow.encode(train.as_tensor((factor == value).nonzero()[0][:500])).mean(0)
            for value in (old, new)
        ]
        chosen = (test.factors[:, args.factor] == old).nonzero()[0][:4]
        codes = flow.encode(test.as_tensor(chosen))
        step = torch.linspace(-0.5, 1.5, n)[:, None]
        moved = torch.cat([code + step * (means[1] - means[0]) for code in codes])
        save(image_grid(flow.decode(moved), columns=n, scale=scale), args, "factor")


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


def side_by_side(*pictures):
    """Pictures (H, W, 3) of one size with a gap between them."""
    import torch

    from generative.training.pictures import image_grid

    stack = torch.stack([torch.from_numpy(picture) for picture in pictures])
    return image_grid(stack.movedim(-1, 1) / 255, columns=len(pictures))


def save(picture, args: Args, name: str) -> None:
    """As NAME.png in the folder of the pictures."""
    from PIL import Image

    Image.fromarray(picture).save(args.out / f"{name}.png")


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
