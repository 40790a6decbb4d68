"""Deep energy-based models: a network whose output is an energy.

The density is p(x) = exp(-E(x)) / Z, and Z is known only where it can be summed up. Training lowers
the energy of data and raises that of the model's own samples, which come from walks down the
energy with noise (Foster 2023, chapter 7, after Du & Mordatch 2019):

    grad of -E_data[log p(x)]  =  E_data[grad E(x)] - E_model[grad E(x)]

    model = PointEnergy.from_pretrained("runs/energy/model")
    model.energy(x)                      # (B, 2) -> (B,)
    model.log_prob(x)                    # exact, by quadrature: points in the plane only
    model.sample(1000)                   # (1000, 2)

`ImageEnergy` takes images and has no `log_prob`: nobody can sum over all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from generative.energy.config import ConvEnergyConfig, LangevinConfig, PointEnergyConfig
from generative.energy.walks import langevin, mala
from generative.known.quadrature import Grid, log_normaliser
from generative.training.checks import check_images, check_vectors, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero

__all__ = ["EnergyModel", "ImageEnergy", "PointEnergy"]


class ImageEnergy(Pretrained, nn.Module):
    """Energy of images around any network; walks move in pixels of [-1, 1] (`chain`), images have
    [0, 1].

    `ConvEnergyConfig().build()` is the book's, with 76,993 parameters. An energy that is put
    together by hand is saved by its weights: put it together again and call `load_weights(folder)`.

    Args:
        network: pixels in [-1, 1], (B, *image_shape) -> minus the energy, (B, 1).
        image_shape: (C, H, W).
        langevin: how chains move in `sample`.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ConvEnergy": ConvEnergyConfig}
    box: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, ...],
        langevin: LangevinConfig | None = None,
        config: ConvEnergyConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape = config, image_shape
        self.langevin = langevin or LangevinConfig()
        self.network = network

    def energy(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> energies (B,); low for plausible images.

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.chain_energy(self.to_chain(x))

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W) in [0, 1]: walks from noise, of `langevin`.

        They end where the energy is low, as in the book; they are no exact samples of exp(-E).
        """
        c = self.langevin
        y = self.start(n, generator)
        walk = (c.steps, c.step_size, c.noise, c.clip, self.box)
        return self.to_data(langevin(self.chain_energy, y, *walk, generator=generator))

    def chain_energy(self, y: Tensor) -> Tensor:
        """Energy of pixels in [-1, 1], where walks move; unchecked."""
        return -self.network(y).squeeze(1)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """First states of walks: uniform in [-1, 1], (n, C, H, W)."""
        shape = (n, *self.image_shape)
        return 2 * torch.rand(shape, generator=generator, **placed(self)) - 1

    def to_chain(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> pixels in [-1, 1]."""
        return 2 * check_images(x, self.image_shape, self) - 1

    def to_data(self, y: Tensor) -> Tensor:
        """The inverse."""
        return (y + 1) / 2


class PointEnergy(Pretrained, nn.Module):
    """Energy of points (B, D): f(x) + |x|^2 / (2 base_std^2), with f any network.

    The bowl makes the partition function finite, and gives walks a Gaussian to restart from.
    `PointEnergyConfig().build()` has a perceptron. An energy that is put together by hand is saved
    by its weights: put it together again and call `load_weights(folder)`.

    Args:
        network: f, points (B, D) -> (B, 1).
        dim: D.
        base_std: of the Gaussian that the model is where f is constant.
        step_size: of the Metropolis-adjusted walk, before training adapts it.
        sample_sweeps: rounds of `sample`.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"PointEnergy": PointEnergyConfig}
    renamed: ClassVar[Mapping[str, str]] = {"network.": "network.layers."}
    box: ClassVar[tuple[float, float] | None] = None
    step_size: Tensor
    """Step of `mala`; training adapts it to the width of the density."""

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        base_std: float = 1.5,
        step_size: float = 1e-3,
        sample_sweeps: int = 200,
        config: PointEnergyConfig | None = None,
    ):
        super().__init__()
        self.config, self.dim = config, dim
        self.base_std, self.sample_sweeps = base_std, sample_sweeps
        self.register_buffer("step_size", torch.tensor(step_size))
        self.network = network

    def energy(self, x: Tensor) -> Tensor:
        """Points (B, D) -> energies (B,).

        Raises:
            ValueError: another shape, or integers.
        """
        return self.chain_energy(self.to_chain(x))

    def log_partition(self, grid: Grid | None = None) -> float:
        """log of the integral of exp(-E) over the plane, by quadrature.

        Args:
            grid: four base_std around the origin in steps of base_std / 75 if not given.
        Raises:
            ValueError: the points have not two dimensions.
        """
        if self.dim != 2:
            raise ValueError(
                f"points have {self.dim} dimensions; the partition function is summed up "
                "in the plane only: use energy(x), as its differences need none"
            )
        reach = 4 * self.base_std
        grid = grid or Grid((-reach, -reach), (reach, reach), (600, 600))
        p = next(self.parameters())
        return log_normaliser(lambda x: -self.energy(x.to(p)).cpu(), grid)

    def log_prob(self, x: Tensor, log_partition: float | None = None) -> Tensor:
        """log density of each point of the plane, (B, 2) -> (B,), nats.

        Args:
            log_partition: what `log_partition()` gave, to compute it once for many batches.
        """
        energy = self.energy(x)
        return -energy - (self.log_partition() if log_partition is None else log_partition)

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D): `sample_sweeps` rounds of a proposed restart and two MALA steps.

        Both leave exp(-E) as it is, so the only error is that of stopping.
        """
        y = self.start(n, generator)
        for _ in range(self.sample_sweeps):
            y = self.restart(y, 1.0, generator)
            y, _ = mala(self.chain_energy, y, 2, self.step_size, generator)
        return y

    @torch.no_grad()
    def restart(self, y: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
        """Propose to a share of the walks to begin anew, and accept as Metropolis does.

        With points from the Gaussian of the bowl, q, the bowls cancel: exp(f(y) - f(y')) is the
        probability (Tierney 1994, independence chain). Walks so cross barriers that no small step
        does, and unlike the book's fresh noise they still sample exp(-E).
        """
        there = self.start(len(y), generator)
        u = torch.rand(2, len(y), generator=generator, device=y.device, dtype=y.dtype)
        take = (u[0] < share) & (u[1].log() < self._f(y) - self._f(there))
        return torch.where(take[:, None], there, y)

    def chain_energy(self, y: Tensor) -> Tensor:
        """Energy of points; unchecked."""
        return self._f(y) + y.square().sum(1) / (2 * self.base_std**2)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """First states of walks: draws from the Gaussian of the bowl, (n, D)."""
        p = next(self.parameters())
        z = torch.randn(n, self.dim, generator=generator, device=p.device, dtype=p.dtype)
        return self.base_std * z

    def to_chain(self, x: Tensor) -> Tensor:
        """The points themselves."""
        return check_vectors(x, self.dim, "points", self)

    def to_data(self, y: Tensor) -> Tensor:
        """The points themselves."""
        return y

    def _f(self, y: Tensor) -> Tensor:
        return self.network(y).squeeze(1)


EnergyModel: TypeAlias = ImageEnergy | PointEnergy
