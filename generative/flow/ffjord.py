"""Continuous normalizing flow: an ordinary differential equation carries noise to data.

A network gives the velocity f(t, z) of every point; z(0) is standard normal, z(1) is data. Along a
path the log density changes by minus the divergence of f (Chen et al. 2018), which needs no special
architecture and no determinant (FFJORD, Grathwohl et al. 2019):

    log p(x) = log N(z(0); 0, I) - integral over t from 0 to 1 of tr df/dz

    flow = FFJORD.from_pretrained("runs/ffjord/model")
    flow.log_prob(x)                     # (B, 2) -> (B,), nats
    flow.trajectory(z, num_times=9)      # (9, B, 2): the way from noise to data

The divergence comes with the velocity, in forward mode: the network carries its derivative in K
directions through its layers, which costs as much as K more examples. All D directions give the
trace exactly, one random direction e gives e^T (df/dz) e, which has the trace as its mean
(Hutchinson 1990).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flow.chain import standard_normal_log_prob
from generative.flow.config import FFJORDConfig, FlowLossConfig
from generative.flow.learner import FlowLearner
from generative.nets.embeddings import Waves
from generative.solvers import Velocity, equal_steps, rk4, shifted_steps
from generative.training.checks import at_least_float32, check_some, check_vectors, checked, placed
from generative.training.gradients import graph_if_wanted
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, Probability

__all__ = [
    "FFJORD",
    "FFJORDConfig",
    "FFJORDLearner",
    "FFJORDLosses",
    "MatchingLosses",
    "VelocityNet",
    "adaptive",
    "draw_directions",
]


# ---------------------------------------------------------------------------------------------
# Solvers
# ---------------------------------------------------------------------------------------------


def adaptive(
    velocity: Velocity, z: Tensor, t0: float, t1: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """`rk4` by torchdiffeq's Dormand-Prince method of order 5, whose steps follow the error.

    Args:
        tolerance: relative and absolute, of every step.
    Raises:
        RuntimeError: torchdiffeq is not installed.
    """
    try:
        from torchdiffeq import odeint  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RuntimeError(
            "solver 'dopri5' is torchdiffeq's, which is not installed: pip install torchdiffeq, "
            "or use solver 'rk4'"
        ) from error
    with torch.no_grad():
        rates = velocity(t0, z)[1]
    ends = torch.tensor([t0, t1], dtype=z.dtype, device=z.device)
    state = (z, torch.zeros_like(rates))
    path = odeint(
        lambda t, now: velocity(t, now[0]), state, ends,
        rtol=tolerance, atol=tolerance, method="dopri5",
    )  # fmt: skip
    return path[0][-1], path[1][-1]


# ---------------------------------------------------------------------------------------------
# The velocity
# ---------------------------------------------------------------------------------------------


class VelocityNet(nn.Module):
    """A network that sees the time in every layer and carries derivatives along."""

    def __init__(self, config: FFJORDConfig):
        super().__init__()
        self.activation = config.activation
        self.waves = Waves(math.pi / 4, config.num_waves)
        widths = [
            config.dim * (1 + 2 * config.num_waves),
            *[config.hidden_dim] * config.num_hidden,
            config.dim,
        ]
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        # FFJORD's "concat squash": the time opens and closes every unit, and moves it.
        self.gates = nn.ModuleList(nn.Linear(1, after) for _, after in pairs)
        self.shifts = nn.ModuleList(nn.Linear(1, after, bias=False) for _, after in pairs)

    def forward(self, t: Tensor, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, and its derivative along directions.

        Args:
            t: time of all, (1, 1), or of each example, (B, 1).
            z: (B, D).
            directions: (K, B, D); K = 0 for the velocity alone.
        Returns:
            f (B, D) and (df/dz) directions, (K, B, D).
        """
        z, directions = self.waves.along(z, directions)
        layers = cast("list[nn.Linear]", list(self.layers))
        for layer, gate, shift in zip(layers, self.gates, self.shifts, strict=True):
            opened = torch.sigmoid(gate(t))
            z = layer(z) * opened + shift(t)
            directions = directions @ layer.weight.T * opened
            if layer is not layers[-1]:
                z, slope = _activate(self.activation, z)
                directions = directions * slope
        return z, directions


def _activate(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """An activation and its derivative."""
    if name == "tanh":
        y = x.tanh()
        return y, 1 - y.square()
    gate = x.sigmoid()
    if name == "softplus":
        return F.softplus(x), gate
    return x * gate, gate * (1 + x * (1 - gate))  # silu


def draw_directions(
    like: Tensor, noise: str = "rademacher", generator: torch.Generator | None = None
) -> Tensor:
    """One random direction for each example, (1, B, D), whose entries have mean 0 and variance 1.

    Signs ("rademacher") give the estimate with the least variance; there is also "gaussian".
    """
    shape = (1, *like.shape)
    if noise == "gaussian":
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
    bits = torch.randint(0, 2, shape, generator=generator, device=like.device)
    return 2.0 * bits.to(like.dtype) - 1.0


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


class FFJORDLosses(NamedTuple):
    """Means over the batch: loss = latent - log_det + penalties."""

    loss: Tensor
    latent: Tensor
    """-log N(z; 0, I), nats."""
    log_det: Tensor
    """log |det dz/dx|, nats."""
    kinetic: Tensor
    """Integral of |f|^2 along the path; the least for straight paths at constant speed."""
    jacobian: Tensor
    """Integral of the squared Frobenius norm of df/dz; small where the velocity is smooth."""


class MatchingLosses(NamedTuple):
    """Mean over the batch."""

    loss: Tensor
    """Squared error of the velocity."""


class FFJORD(Pretrained, nn.Module):
    """Continuous flow on vectors (B, D) around any network that gives their velocity.

    `FFJORDConfig().build()` is one whose config is saved with it. A flow that is put together by
    hand is saved by its weights: put it together again and call `load_weights(folder)`.

    Args:
        velocity: (t, z, directions) -> f and (df/dz) directions, as `VelocityNet.forward`.
        dim: numbers of an example, D.
        log_det, noise, solver, num_steps, fine_steps, tolerance, kinetic_energy, jacobian_norm:
            see `FFJORDConfig`.
        config: the recipe of the flow, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"FFJORD": FFJORDConfig}

    def __init__(
        self,
        velocity: nn.Module,
        dim: int,
        *,
        log_det: str = "trace",
        noise: str = "rademacher",
        solver: str = "rk4",
        num_steps: int = 8,
        fine_steps: int = 96,
        tolerance: float = 1e-5,
        kinetic_energy: float = 0.0,
        jacobian_norm: float = 0.0,
        config: FFJORDConfig | None = None,
    ):
        super().__init__()
        self.config, self.dim, self.velocity = config, dim, velocity
        self.log_det, self.noise, self.solver, self.tolerance = log_det, noise, solver, tolerance
        self.num_steps, self.fine_steps = num_steps, fine_steps
        self.kinetic_energy, self.jacobian_norm = kinetic_energy, jacobian_norm

    @graph_if_wanted
    def encode_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) -> z (B, D) and log |det dz/dx| (B,), with the exact trace.

        Raises:
            ValueError: another shape, or integers.
        """
        x = self._check(x)
        return self._fine(x, 1.0, 0.0, self.fine_steps, self._all_directions(x))

    @graph_if_wanted
    def encode(self, x: Tensor) -> Tensor:
        """x (B, D) -> z (B, D), standard normal if x is drawn from the model."""
        return self._move(self._check(x), 1.0, 0.0, self.fine_steps)

    @graph_if_wanted
    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> x (B, D), the inverse of `encode` up to the solver's error."""
        z = check_vectors(z, self.dim, "z", self)
        return self._move(z, 0.0, 1.0, self.fine_steps)

    @graph_if_wanted
    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each point, (B, D) -> (B,), nats."""
        z, log_det = self.encode_log_det(x)
        return standard_normal_log_prob(z) + log_det

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> FFJORDLosses:
        """Mean negative log-likelihood of (B, D) by the solver's coarse steps, and penalties."""
        x = check_some(self._check(x), self)
        shift = float(torch.rand((), generator=generator, device=x.device, dtype=x.dtype))
        times = shifted_steps(1.0, 0.0, self.num_steps, shift)
        if self.log_det == "steps":
            z, log_dets, rates = self._solve_with_jacobian(x, times)
        else:
            exact = self.log_det == "trace"
            directions = (
                self._all_directions(x) if exact else draw_directions(x, self.noise, generator)
            )
            z, rates = self._solve(x, times, directions)
            log_dets = rates[:, 0]
        latent, log_det = -standard_normal_log_prob(z).mean(), log_dets.mean()
        # Backwards in time the integral of a positive function is negative.
        _, kinetic, jacobian = -rates.mean(0)
        loss = latent - log_det
        if self.kinetic_energy or self.jacobian_norm:
            loss = loss + self.kinetic_energy * kinetic + self.jacobian_norm * jacobian
        return FFJORDLosses(loss, latent, log_det, kinetic.detach(), jacobian.detach())

    def matching_loss(self, x: Tensor, generator: torch.Generator | None = None) -> MatchingLosses:
        """Mean squared error of the velocity on lines from noise to data x (B, D).

        Its optimum carries the noise to the data, too, and no equation has to be solved (flow
        matching, Lipman et al. 2023), but it is no likelihood. The noise fades as (1 - t)^2: at
        constant speed it would have to vanish at once where the data are thin, which takes a
        solver many steps.

        Many lines of a batch pass near a point, and the velocity to learn is their mean, weighted
        by how probable each is there. It has the expectation that the velocity of the one line
        through the point has, and far less noise (stable targets, Xu et al. 2023).
        """
        x = check_some(self._check(x), self)
        z0 = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        t = torch.rand(len(x), 1, generator=generator, device=x.device, dtype=x.dtype)
        left = (1 - t).clamp_min(1e-3)
        noise = left.square()
        z = noise * z0 + (1 - noise) * x
        distance = (z[:, None] - (1 - noise)[:, None] * x).square().sum(2)
        mean = torch.softmax(-distance / (2 * noise.square()), 1) @ x
        f, _ = self.velocity(t, z, x.new_zeros(0, *x.shape))
        return MatchingLosses((f - 2 * (mean - z) / left).square().sum(1).mean())

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D): `decode` of standard normal z."""
        z = torch.randn(n, self.dim, generator=generator, **placed(self))
        return self.decode(z)

    @checked
    @torch.no_grad()
    def trajectory(self, z: Tensor, num_times: Count = 9) -> Tensor:
        """Positions of z (B, D) at equally spaced times from 0 (noise) to 1 (data), (T, B, D).

        A single time is 0.
        """
        points = [check_vectors(z, self.dim, "z", self)]
        for i in range(gaps := num_times - 1):
            steps = -(-self.fine_steps // gaps)
            points.append(self._move(points[-1], i / gaps, (i + 1) / gaps, steps))
        return torch.stack(points)

    @graph_if_wanted
    @checked
    def log_prob_at(self, x: Tensor, t: Probability) -> Tensor:
        """log density of the points at time t, (B, D) -> (B,); noise at 0, `log_prob` at 1."""
        x = self._check(x)
        if t == 0:
            return standard_normal_log_prob(x)
        directions = self._all_directions(x)
        z, log_det = self._fine(x, t, 0.0, self.fine_steps, directions)
        return standard_normal_log_prob(z) + log_det

    def _check(self, x: Tensor) -> Tensor:
        return check_vectors(x, self.dim, "points", self)

    def _all_directions(self, x: Tensor) -> Tensor:
        unit = torch.eye(self.dim, device=x.device, dtype=x.dtype)
        return unit[:, None].expand(self.dim, len(x), self.dim)

    def _move(self, z: Tensor, t0: float, t1: float, num_steps: int) -> Tensor:
        return self._fine(z, t0, t1, num_steps, z.new_zeros(0, *z.shape))[0]

    def _fine(
        self, z: Tensor, t0: float, t1: float, num_steps: int, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z at t1 and the integral of the divergence, (B,), by that many equal steps."""
        # Where paths draw together 20-fold the way back magnifies all roundings of the sum, so
        # that is in float64; the network stays as it is.
        end, rates = self._solve(z.double(), equal_steps(t0, t1, num_steps), directions)
        return end.to(z.dtype), rates[:, 0]

    def _solve(
        self, z: Tensor, times: Sequence[float], directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From the first time to the last.

        Returns:
            z, and the integrals of the divergence, of |f|^2 and of |df/dz|^2, (B, 3).
        """

        def velocity(t: float | Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
            now = now.to(directions.dtype)
            f, derivative = self.velocity(_time(t, now), now, directions)
            return f, _rates(f, derivative, directions)

        if self.solver == "dopri5":
            return adaptive(velocity, z, times[0], times[-1], self.tolerance)
        return rk4(velocity, z, times)

    def _solve_with_jacobian(
        self, x: Tensor, times: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with the Jacobian J of the solver's own map: dJ/dt = (df/dz) J along the path.

        Runge-Kutta steps of this equation are the derivatives of those of z.

        Returns:
            z, log |det J| (B,), and the integrals.
        """
        unit = self._all_directions(x)

        def velocity(t: float | Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
            f, derivative = self.velocity(_time(t, now), now[0], unit)
            moved = torch.einsum("kbm,mbi->kbi", now[1:], derivative)
            return torch.cat([f[None], moved]), _rates(f, derivative, unit)

        state, rates = rk4(velocity, torch.cat([x[None], unit]), times)
        jacobian = state[1:].movedim(0, 1)
        log_det = torch.linalg.slogdet(jacobian.to(at_least_float32(x))).logabsdet
        return state[0], log_det.to(x.dtype), rates


def _time(t: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=like.dtype, device=like.device).reshape(1, 1)


def _rates(f: Tensor, derivative: Tensor, directions: Tensor) -> Tensor:
    """Divergence, |f|^2 and |df/dz|^2, (B, 3); with random directions unbiased estimates."""
    trace, norm = (directions * derivative).sum((0, 2)), derivative.square().sum((0, 2))
    return torch.stack([trace, f.square().sum(1), norm], 1)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class FFJORDLearner:
    """Adam on the likelihood, after `matching_steps` of it on `FFJORD.matching_loss`.

    A step of the likelihood solves the equation and differentiates the solution, one of flow
    matching asks once for the velocity and costs a tenth. So it is the cheaper way to learn the
    paths from noise to data; the likelihood then makes the density right.

    Args:
        model: to train.
        config: of the likelihood.
        steps: all of them, those of flow matching included.
        matching: of flow matching; `config` if not given.
        matching_steps: how many of the steps come first and are flow matching.
    """

    def __init__(
        self,
        model: FFJORD,
        config: FlowLossConfig,
        steps: int,
        matching: FlowLossConfig | None = None,
        matching_steps: int = 0,
    ):
        self.model, self.step, self.matching_steps = model, 0, matching_steps
        self.matching = FlowLearner(
            model, matching or config, matching_steps, loss=model.matching_loss
        )
        self.likelihood = FlowLearner(model, config, steps - matching_steps)

    @property
    def kept(self) -> FFJORD:
        """A copy of the model with the weights that sampling and scoring should use."""
        return (self.matching if self.step < self.matching_steps else self.likelihood).kept

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on points (B, D)."""
        if self.step < self.matching_steps:
            losses = {"matching": self.matching.update(x)["loss"]}
        else:
            losses = self.likelihood.update(x)
        self.step += 1
        if self.step == self.matching_steps:
            self.model.load_state_dict(self.matching.kept.state_dict())
        return losses

    def state_dict(self) -> dict:
        matching, likelihood = self.matching.state_dict(), self.likelihood.state_dict()
        return {"step": self.step, "matching": matching, "likelihood": likelihood}

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        self.matching.load_state_dict(state["matching"])
        self.likelihood.load_state_dict(state["likelihood"])
