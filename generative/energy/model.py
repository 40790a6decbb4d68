"""Deep energy-based models: a network whose output is an energy, samplers, contrastive divergence.

The density is p(x) = exp(-E(x)) / Z, and Z is known only where it can be summed up. Training lowers
the energy of data and raises that of the model's own samples, which come from walks down the
energy with noise (Foster 2023, chapter 7, after Du & Mordatch 2019):

    grad of -E_data[log p(x)]  =  E_data[grad E(x)] - E_model[grad E(x)]

    model = PointEnergy.from_pretrained("runs/energy/model")
    model.energy(x)                      # (B, 2) -> (B,)
    model.log_prob(x)                    # exact, by quadrature: points in the plane only
    model.sample(1000)                   # (1000, 2)
    langevin(my_energy, x, steps=100, step_size=0.01)   # any function (B, ...) -> (B,)

`ConvEnergy` takes images and has no `log_prob`: nobody can sum over all images.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from generative.energy.config import (
    ConvEnergyConfig,
    EnergyLossConfig,
    LangevinConfig,
    PointEnergyConfig,
)
from generative.known.quadrature import Grid, log_normaliser
from generative.nets.conv import same_pad
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_
from generative.training.checks import check_images, check_some, check_vectors, checked, placed
from generative.training.optimisation import Optimisation
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, NonNegative, Positive

__all__ = [
    "ConvEnergy",
    "ConvEnergyConfig",
    "EnergyLearner",
    "EnergyLossConfig",
    "EnergyLosses",
    "LangevinConfig",
    "PointEnergy",
    "PointEnergyConfig",
    "SampleBuffer",
    "contrastive_divergence",
    "energy_gradient",
    "langevin",
    "langevin_path",
    "mala",
]

Energy: TypeAlias = Callable[[Tensor], Tensor]
"""Examples (B, ...) -> energies (B,)."""


# ---------------------------------------------------------------------------------------------
# Walks on any energy
# ---------------------------------------------------------------------------------------------


def energy_gradient(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B,) and their gradients with respect to x, of the shape of x; no graph is kept.

    Weights of the energy get no gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = energy(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


@checked
def langevin_path(
    energy: Energy,
    x: Tensor,
    steps: Count,
    step_size: Positive,
    noise: NonNegative | None = None,
    clip: NonNegative = 0.0,
    box: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The state after each step of `langevin`, which explains the arguments."""
    noise = math.sqrt(2 * step_size) if noise is None else noise
    for _ in range(steps):
        x = x + noise * _normal(x.shape, x, generator)
        x = x if box is None else x.clamp(*box)
        _, gradient = energy_gradient(energy, x)
        gradient = gradient.clamp(-clip, clip) if clip else gradient
        x = x - step_size * gradient
        x = x if box is None else x.clamp(*box)
        yield x


def langevin(
    energy: Energy,
    x: Tensor,
    steps: int,
    step_size: float,
    noise: float | None = None,
    clip: float = 0.0,
    box: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Langevin dynamics: x <- y - step_size * grad E(y) with y = x + noise * N(0, I).

    In the book's order: noise first, so that what comes out has just been cleaned. With
    noise = sqrt(2 step_size) and small steps it samples exp(-E); with less it samples
    exp(-E / T), T = noise^2 / (2 step_size), which is a search for low energy when T is tiny, as in
    the book. On E = x^2 / (2 s^2), with a = step_size / s^2 < 2, the variance settles at
    noise^2 (1 - a)^2 / (a (2 - a)), not quite s^2; `mala` has no such bias.

    Args:
        energy: (B, ...) -> (B,).
        x: where the walks begin, (B, ...).
        noise: standard deviation; None for sqrt(2 step_size).
        clip: largest entry of the gradient; 0 for no limit.
        box: smallest and largest number of an example, held after noise and after the gradient.
    Returns:
        where they end.
    Raises:
        ValueError: less than one step, or another number out of its range.
    """
    path = langevin_path(energy, x, steps, step_size, noise, clip, box, generator)
    return deque(path, maxlen=1).pop()


@checked
def mala(
    energy: Energy,
    x: Tensor,
    steps: Count,
    step_size: Positive | Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Metropolis-adjusted Langevin: the same steps, each accepted or not, so exp(-E) is left exact.

    Proposes x' ~ N(x - step_size grad E(x), 2 step_size I) and accepts it with probability
    min(1, exp(E(x) - E(x')) q(x | x') / q(x' | x)) (Roberts & Tweedie 1996).

    Args:
        energy: (B, D) -> (B,).
        x: where the walks begin, (B, D).
    Returns:
        where they end, and the share of proposals that were accepted, a scalar.
    """
    step_size = torch.as_tensor(step_size, dtype=x.dtype, device=x.device)
    values, gradient = energy_gradient(energy, x)
    accepted = x.new_zeros(())
    for _ in range(steps):
        noise = _normal(x.shape, x, generator)
        there = x - step_size * gradient + (2 * step_size).sqrt() * noise
        new_values, new_gradient = energy_gradient(energy, there)
        # The noise that would lead back, whose size against that of the way there is log q.
        back = (x - there + step_size * new_gradient) / (2 * step_size).sqrt()
        log_q = (noise.square() - back.square()).flatten(1).sum(1) / 2
        u = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
        take = u.log() < values - new_values + log_q
        wide = take.view(-1, *[1] * (x.dim() - 1))
        x, gradient = torch.where(wide, there, x), torch.where(wide, new_gradient, gradient)
        values = torch.where(take, new_values, values)
        accepted = accepted + take.to(x.dtype).mean() / steps
    return x, accepted


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


# ---------------------------------------------------------------------------------------------
# Energies
# ---------------------------------------------------------------------------------------------


class ConvEnergy(Pretrained, nn.Module):
    """The book's network on images: 76,993 parameters at its sizes.

    Walks move in pixels of [-1, 1] (`chain`), images have [0, 1].
    """

    config_class = ConvEnergyConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample"})
    box: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def __init__(self, config: ConvEnergyConfig | None = None):
        super().__init__()
        self.config = config = config or ConvEnergyConfig()
        c, h, w = config.image_shape
        self.network = nn.Sequential()
        for i, after in enumerate(config.channels):
            kernel = 3 if i else 5
            self.network.append(same_pad((h, w), kernel, 2))
            self.network.append(nn.Conv2d(c, after, kernel, stride=2))
            self.network.append(nn.SiLU())
            c, h, w = after, (h + 1) // 2, (w + 1) // 2
        self.network.append(nn.Flatten())
        self.network.append(nn.Linear(c * h * w, config.hidden_dim)).append(nn.SiLU())
        self.network.append(nn.Linear(config.hidden_dim, 1))
        glorot_(self.network)

    def energy(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> energies (B,); low for what is plausible.

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.chain_energy(self.to_chain(x))

    def score(self, x: Tensor) -> Tensor:
        """-energy(x): the output of the network, which training pushes up on data (B,)."""
        return -self.energy(x)

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W) in [0, 1]: walks from noise, of `config.langevin`.

        They end where the energy is low, as in the book; they are no exact samples of exp(-E).
        """
        c = self.config.langevin
        y = self.start(n, generator)
        walk = (c.steps, c.step_size, c.noise, c.clip, self.box)
        return self.to_data(langevin(self.chain_energy, y, *walk, generator=generator))

    def chain_energy(self, y: Tensor) -> Tensor:
        """Energy of pixels in [-1, 1], where walks move; unchecked."""
        return -self.network(y).squeeze(1)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Where walks begin: uniform in [-1, 1], (n, C, H, W)."""
        shape = (n, *self.config.image_shape)
        return 2 * torch.rand(shape, generator=generator, **placed(self)) - 1

    def to_chain(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> pixels in [-1, 1]."""
        return 2 * check_images(x, self.config.image_shape, self) - 1

    def to_data(self, y: Tensor) -> Tensor:
        """The inverse."""
        return (y + 1) / 2


class PointEnergy(Pretrained, nn.Module):
    """Energy of points (B, D): f(x) + |x|^2 / (2 base_std^2), with f a perceptron.

    The bowl makes the partition function finite, and gives walks a Gaussian to restart from.
    """

    config_class = PointEnergyConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample", "log_prob"})
    box: ClassVar[tuple[float, float] | None] = None
    step_size: Tensor
    """Of `mala`; training adapts it to the width of what it learns."""

    def __init__(self, config: PointEnergyConfig | None = None):
        super().__init__()
        self.config = config = config or PointEnergyConfig()
        self.register_buffer("step_size", torch.tensor(config.step_size))
        self.waves = Waves(math.pi / (2 * config.base_std), config.num_waves)
        width, layers = config.dim * (1 + 2 * config.num_waves), []
        for _ in range(config.num_hidden):
            layers += [nn.Linear(width, config.hidden_dim), nn.SiLU()]
            width = config.hidden_dim
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))
        glorot_(self.network)

    def energy(self, x: Tensor) -> Tensor:
        """Points (B, D) -> energies (B,).

        Raises:
            ValueError: another shape, or integers.
        """
        return self.chain_energy(self.to_chain(x))

    def score(self, x: Tensor) -> Tensor:
        """-energy(x), (B,)."""
        return -self.energy(x)

    def log_partition(self, grid: Grid | None = None) -> float:
        """log of the integral of exp(-E) over the plane, by quadrature.

        Args:
            grid: four base_std around the origin in steps of base_std / 75 if not given.
        Raises:
            ValueError: the points have not two dimensions.
        """
        if self.config.dim != 2:
            raise ValueError(
                f"points have {self.config.dim} dimensions; the partition function is summed up "
                "in the plane only: use energy(x), differences of which need none"
            )
        reach = 4 * self.config.base_std
        grid = grid or Grid((-reach, -reach), (reach, reach), (600, 600))
        p = next(self.parameters())
        return log_normaliser(lambda x: self.score(x.to(p)).cpu(), grid)

    def log_prob(self, x: Tensor, log_partition: float | None = None) -> Tensor:
        """log density of each point of the plane, (B, 2) -> (B,), nats.

        Args:
            log_partition: what `log_partition()` gave, to compute it once for many batches.
        """
        score = self.score(x)
        return score - (self.log_partition() if log_partition is None else log_partition)

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D): `config.sample_sweeps` rounds of a proposed restart and two MALA steps.

        Both leave exp(-E) as it is, so the only error is that of stopping.
        """
        y = self.start(n, generator)
        for _ in range(self.config.sample_sweeps):
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
        return self._f(y) + y.square().sum(1) / (2 * self.config.base_std**2)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Where walks begin: the Gaussian of the bowl, (n, D)."""
        p = next(self.parameters())
        return self.config.base_std * _normal((n, self.config.dim), p, generator)

    def to_chain(self, x: Tensor) -> Tensor:
        """The points themselves."""
        return check_vectors(x, self.config.dim, "points", self)

    def to_data(self, y: Tensor) -> Tensor:
        """The points themselves."""
        return y

    def _f(self, y: Tensor) -> Tensor:
        return self.network(self.waves(y)).squeeze(1)


EnergyModel: TypeAlias = ConvEnergy | PointEnergy


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class EnergyLosses(NamedTuple):
    """Means over the batch. The loss is no measure of progress: samples improve with the model."""

    loss: Tensor
    """cdiv + reg."""
    cdiv: Tensor
    """Score of samples - score of data; its gradient is that of the negative log-likelihood if the
    samples are the model's."""
    reg: Tensor
    """alpha * (score of data^2 + score of samples^2)."""
    real: Tensor
    """Score of data."""
    fake: Tensor
    """Score of samples."""


def contrastive_divergence(real: Tensor, fake: Tensor, alpha: float = 0.1) -> EnergyLosses:
    """The book's loss of the scores (-energies) of data (B,) and of samples (B,)."""
    cdiv = fake.mean() - real.mean()
    reg = alpha * (real.square().mean() + fake.square().mean())
    return EnergyLosses(cdiv + reg, cdiv, reg, real.mean(), fake.mean())


class SampleBuffer:
    """The newest samples, from which walks go on (Tieleman 2008; Du & Mordatch 2019).

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int):
        self.size = size
        self.samples: Tensor | None = None
        """(N, ...), the newest first; None before the first."""

    def __len__(self) -> int:
        return 0 if self.samples is None else len(self.samples)

    def push(self, y: Tensor) -> None:
        """Put samples (B, ...) in front, and forget the oldest."""
        old = [] if self.samples is None else [self.samples]
        self.samples = torch.cat([y.detach(), *old])[: self.size]

    def draw(self, n: int) -> Tensor:
        """n of them, with replacement."""
        if self.samples is None:
            raise ValueError("the buffer is empty; push samples first")
        return self.samples[torch.randint(len(self), (n,)).to(self.samples.device)]


class EnergyLearner:
    """Contrastive divergence with a buffer of samples; `kept` holds the weights to keep."""

    def __init__(self, model: EnergyModel, config: EnergyLossConfig, steps: int):
        if config.sampler == "mala" and not isinstance(model, PointEnergy):
            raise ValueError("sampler mala is for points; images need sampler langevin")
        self.model, self.config = model, config
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.lr, betas=(config.beta1, 0.999), eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, config.clip, config.ema
        )
        self.buffer = SampleBuffer(config.buffer_size)

    @property
    def kept(self) -> EnergyModel:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on a batch, images (B, C, H, W) in [0, 1] or points (B, D)."""
        model, config = self.model, self.config
        real = model.to_chain(check_some(batch, model))
        real = real + config.data_noise * torch.randn_like(real)
        real = real if model.box is None else real.clamp(*model.box)
        # As many samples as data, also in a last batch that is smaller: the book's program then
        # takes some samples for data.
        walk = self._metropolis if config.sampler == "mala" else self._descend
        fake, notes = walk(len(real))
        scores = -model.chain_energy(torch.cat([real, fake]))
        losses = contrastive_divergence(scores[: len(real)], scores[len(real) :], config.alpha)
        self.optimisation.step(losses.loss)
        return {**{name: value.detach() for name, value in losses._asdict().items()}, **notes}

    def _descend(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The book's: most walks go on from the buffer, some begin anew in noise."""
        c, model = self.config.langevin, self.model
        if not len(self.buffer):
            self.buffer.push(model.start(n))
        count, share = torch.tensor([n, self.config.fresh], dtype=torch.float32)
        fresh = int(torch.binomial(count, share))
        y = torch.cat([model.start(fresh), self.buffer.draw(n - fresh)])
        walk = (c.steps, c.step_size, c.noise, c.clip, model.box)
        y = langevin(model.chain_energy, y, *walk)
        self.buffer.push(y)
        return y, {}

    def _metropolis(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Persistent chains that leave exp(-E) as it is; n of them take part."""
        model = cast("PointEnergy", self.model)
        if self.buffer.samples is None:
            self.buffer.push(model.start(self.buffer.size))
        samples = cast("Tensor", self.buffer.samples)
        rows = torch.randperm(len(samples))[:n].to(samples.device)
        y = model.restart(samples[rows], self.config.fresh)
        y, accepted = mala(model.chain_energy, y, self.config.langevin.steps, model.step_size)
        samples[rows] = y
        # Six in ten accepted is where such a walk moves fastest (Roberts & Rosenthal 1998).
        model.step_size *= (0.1 * (accepted - 0.6)).exp()
        return y, {"accepted": accepted, "step_size": model.step_size.clone()}

    def state_dict(self) -> dict:
        return {**self.optimisation.state_dict(), "buffer": self.buffer.samples}

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
        buffer = state["buffer"]
        self.buffer.samples = (
            None if buffer is None else buffer.to(next(self.model.parameters()).device, copy=True)
        )
