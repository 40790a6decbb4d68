"""Draw CMA-ES at work in the plane: population, mean, covariance ellipse, by generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from generative.training.cli import start
from generative.training.ranges import Checked, Count, Folder, Seed
from worldmodels.configs import EvolutionConfig

if TYPE_CHECKING:
    import numpy as np

FunctionName = Literal["schaffer", "rastrigin", "rosenbrock"]


@dataclass(frozen=True)
class Args(Checked):
    """Draw CMA-ES at work in the plane: population, mean and covariance ellipse.

    For each function a film (gif) and a picture of six generations go to the folder `out`.
    """

    out: Folder = Path("runs/cma_es_demo")
    """Folder for the films and pictures."""
    functions: tuple[FunctionName, ...] = ("schaffer", "rastrigin", "rosenbrock")
    """Functions to minimise."""
    evolution: EvolutionConfig = field(
        default_factory=lambda: EvolutionConfig(popsize=32, sigma=0.3, generations=40)
    )
    """Initial sigma as a share of the drawn half width."""
    milliseconds: Count = 350
    """Milliseconds per generation in the film."""
    seed: Seed = 4


DEFAULT_PRESET = "all"
PRESETS = {
    "all": Args(),
    "smoke": Args(functions=("rastrigin",), evolution=EvolutionConfig(6, 0.2, 6)),
}


class Function(NamedTuple):
    """Function of the plane to minimise."""

    value: Callable[[np.ndarray], np.ndarray]
    """Points (..., 2) -> values (...)."""
    minimum: tuple[float, float]
    begin: tuple[float, float]
    """Initial mean of the search."""
    half_width: float
    """Half the width of the drawn square around 0."""


def schaffer(x: np.ndarray) -> np.ndarray:
    """Schaffer's sixth function: rings around 0, each a separate valley."""
    import numpy as np

    square = np.square(x).sum(-1)
    return 0.5 + (np.sin(np.sqrt(square)) ** 2 - 0.5) / (1 + 0.001 * square) ** 2


def rastrigin(x: np.ndarray) -> np.ndarray:
    """A bowl full of dents, one at each pair of whole numbers."""
    import numpy as np

    return (10 + np.square(x) - 10 * np.cos(2 * np.pi * x)).sum(-1)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    """A bent, flat valley."""
    import numpy as np

    return 100 * np.square(x[..., 1] - np.square(x[..., 0])) + np.square(1 - x[..., 0])


FUNCTIONS = {
    "schaffer": Function(schaffer, (0.0, 0.0), (6.5, -5.0), 10.0),
    "rastrigin": Function(rastrigin, (0.0, 0.0), (3.2, 2.6), 5.0),
    "rosenbrock": Function(rosenbrock, (1.0, 1.0), (-1.3, -0.8), 2.4),
}


class Moment(NamedTuple):
    """One generation of the drawing."""

    candidates: np.ndarray
    mean: np.ndarray
    """Mean of the distribution of its candidates."""
    covariance: np.ndarray


def search(function: Function, config: EvolutionConfig, seed: int) -> list[Moment]:
    """Run CMA-ES until it has converged; returns all generations."""
    import numpy as np

    from worldmodels.evolution import CMAES

    config = replace(config, sigma=config.sigma * function.half_width)
    strategy, moments = CMAES(np.array(function.begin), config, seed), []
    while len(moments) < config.generations and not strategy.stopped:
        mean, covariance = strategy.mean, strategy.covariance
        candidates = strategy.ask()
        moments.append(Moment(candidates, mean, covariance))
        strategy.tell(candidates, -function.value(candidates))
    return moments


def draw(axes, function: Function, moments: list[Moment], place: int) -> None:
    """Draw a generation over the function's values, with the ellipse of two deviations."""
    import numpy as np
    from matplotlib.patches import Ellipse

    moment, width = moments[place], function.half_width
    grid = np.linspace(-width, width, 161)
    x = np.stack(np.meshgrid(grid, grid), -1)
    # Logarithms show the bottom of the valley and its walls at once.
    axes.contourf(grid, grid, np.log(0.05 + function.value(x)), 24, cmap="Greys_r", alpha=0.75)
    path = np.array([earlier.mean for earlier in moments[: place + 1]])
    axes.plot(*path.T, color="tab:orange", lw=1.2)
    axes.plot(*moment.candidates.T, "o", color="tab:blue", ms=4, mec="white", mew=0.5)
    axes.plot(*moment.mean, "P", color="tab:orange", ms=9, mec="white")
    axes.plot(*function.minimum, "*", color="tab:red", ms=12, mec="white")
    variances, directions = np.linalg.eigh(moment.covariance)
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    long, short = 4 * np.sqrt(variances[::-1])
    centre = (float(moment.mean[0]), float(moment.mean[1]))
    axes.add_patch(Ellipse(centre, long, short, angle=angle, fill=False, color="tab:orange", lw=2))
    axes.set(xlim=(-width, width), ylim=(-width, width), aspect="equal", xticks=[], yticks=[])
    best = function.value(moment.candidates).min()
    axes.set_title(f"generation {place + 1}: best {best:.2g}", fontsize=11)


def main(args: Args) -> Path:
    """Returns the folder of films and pictures."""
    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    from generative.training.progress import progress

    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.functions:
        function = FUNCTIONS[name]
        moments = search(function, args.evolution, args.seed)
        frames = []
        for place in progress(range(len(moments)), f"drawing {name}"):
            figure, axes = plt.subplots(figsize=(4.2, 4.4), dpi=80, layout="constrained")
            draw(axes, function, moments, place)
            figure.canvas.draw()
            frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))  # type: ignore[attr-defined]
            plt.close(figure)
        film = [frame.quantize(64) for frame in frames]
        film[0].save(
            args.out / f"{name}.gif", save_all=True, append_images=film[1:], loop=0,
            duration=[args.milliseconds] * (len(film) - 1) + [6 * args.milliseconds],
        )  # fmt: skip
        figure, grid = plt.subplots(2, 3, figsize=(9, 6.4), dpi=90, layout="constrained")
        shown = np.unique(np.linspace(0, 1, 6) ** 1.5 * (len(moments) - 1)).astype(int)
        for axes, place in zip(grid.flat, shown, strict=False):
            draw(axes, function, moments, place)
        for axes in grid.flat[len(shown) :]:
            axes.axis("off")
        figure.savefig(args.out / f"{name}.png")
        plt.close(figure)
        print(f"{name}: {len(moments)} generations, {args.out / name}.gif")
    return args.out


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
