"""Points in the plane from known densities: draws, batches, and the excess loss of a model.

points = Points("two-moons", run, even=True)
points(step)                         # (batch_size, 2) on the run's device
points.draw(2000, "picture")         # (2000, 2), always the same
points.excess(flow.log_prob)         # {"nll": ..., "floor": ..., "gap": ...}, nats
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from generative.known.densities import Standardised
    from generative.known.quadrature import LogDensity
    from generative.training.run import Run

__all__ = ["PointData", "Points", "load_density"]

PointData = Literal["two-moons", "eight-gaussians", "grid-25", "checkerboard", "ring"]
"""Names of the densities."""


def load_density(name: str) -> Standardised:
    """A density of `generative.known.densities` by its name, standardised by its exact moments.

    Raises:
        ValueError: there is none of this name.
    """
    from generative.known import densities

    makers = {
        "two-moons": densities.TwoMoons,
        "eight-gaussians": densities.eight_gaussians,
        "grid-25": densities.grid_25,
        "checkerboard": densities.checkerboard,
        "ring": densities.ring,
    }
    if name not in makers:
        raise ValueError(f"there are no points {name!r}; there are {', '.join(makers)}")
    return densities.Standardised(makers[name]())


class Points:
    """Points of a step, from the run's seed and the step alone, so a killed run goes on alike.

    Args:
        name: of the density.
        run: whose seed and device are used, and the batch_size of whose settings.
        even: spread the points of a step evenly, which takes most of the noise from the gradient.
    """

    def __init__(self, name: str, run: Run, even: bool = False):
        self.density, self.run, self.even = load_density(name), run, even

    def __call__(self, step: int) -> Tensor:
        """Fresh points (batch_size, 2) on the run's device."""
        x = self.draw(self.run.config.batch_size, "batch", step, even=self.even)
        return x.to(self.run.device)

    def draw(self, n: int, purpose: str, *numbers: int, even: bool = False) -> Tensor:
        """n points (n, 2) on the CPU, the same for the same purpose and numbers."""
        import torch

        generator = torch.Generator().manual_seed(self.run.seed_for(purpose, *numbers))
        return self.density.sample(n, generator, even)

    def excess(self, log_prob: LogDensity, points_per_std: float = 3.0) -> dict[str, float]:
        """Expected -log p of a model, its least value, and their difference, nats.

        Args:
            log_prob: of the model, (N, 2) -> (N,), on the run's device.
            points_per_std: how fine the grid is on which the expectation is taken.
        """
        from generative.known.quadrature import divergence

        def on_cpu(x: Tensor) -> Tensor:
            return log_prob(x.float().to(self.run.device)).cpu()

        gap = divergence(self.density, on_cpu, points_per_std)
        floor = self.density.entropy()
        return {"nll": floor + gap, "floor": floor, "gap": gap}
