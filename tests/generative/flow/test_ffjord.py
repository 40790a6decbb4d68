"""FFJORD against closed forms, autograd, torchdiffeq and quadrature."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from generative.flow import standard_normal_log_prob
from generative.flow.config import FFJORDConfig, FlowLossConfig
from generative.flow.ffjord import (
    FFJORD,
    FFJORDLearner,
    VelocityNet,
    adaptive,
    draw_directions,
)
from generative.known.densities import Standardised, TwoMoons
from generative.known.quadrature import Grid, log_normaliser

torch.set_num_threads(1)
TINY = FFJORDConfig(hidden_dim=8, num_hidden=2, num_steps=4, fine_steps=16)
A = torch.tensor([[0.6, -1.2, 0.3], [0.4, -0.5, 0.8], [-0.2, 0.1, 0.7]], dtype=torch.float64)


def shaken(config: FFJORDConfig = TINY, size: float = 0.3) -> FFJORD:
    """A flow whose weights are anything, as after training, in float64."""
    torch.manual_seed(0)
    flow = config.build().double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return flow.eval()


class Linear(nn.Module):
    """dz/dt = A z, whose flow is the matrix exponential."""

    def forward(self, t, z, directions):
        return z @ A.T, directions @ A.T


def linear_flow(**settings) -> FFJORD:
    return FFJORD(Linear(), 3, **settings)


# ---------------------------------------------------------------------------------------------
# Solvers
# ---------------------------------------------------------------------------------------------


def test_linear_equation_has_the_matrix_exponential_and_the_trace():
    flow = linear_flow(fine_steps=64)
    x = torch.randn(5, 3, dtype=torch.float64)
    z, log_det = flow.encode_log_det(x)
    torch.testing.assert_close(z, x @ torch.linalg.matrix_exp(-A).T, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_det, (-A.trace()).expand(5))
    # So the samples are normal, with a covariance in closed form.
    forth = torch.linalg.matrix_exp(A)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.float64), forth @ forth.T
    )
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(x), rtol=0, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_solvers_are_torchdiffeqs(name):
    """The whole state, with the log-determinant, against the reference library."""
    torchdiffeq = pytest.importorskip("torchdiffeq", reason="pip install torchdiffeq")
    flow = shaken()
    x = torch.randn(6, 2, dtype=torch.float64)

    def reference(t, state):
        with torch.enable_grad():
            z = state[0].detach().requires_grad_()
            f, _ = flow.velocity(t.reshape(1, 1), z, z.new_zeros(0, 6, 2))
            trace = sum(
                torch.autograd.grad(f[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(2)
            )
        return f.detach(), trace

    options = (
        {"rtol": 1e-9, "atol": 1e-9} if name == "dopri5" else {"options": {"step_size": 1 / 16}}
    )
    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    start = (x, torch.zeros(6, dtype=torch.float64))
    path = torchdiffeq.odeint(reference, start, times, method=name, **options)
    ours = copy.deepcopy(flow)
    if name == "dopri5":
        ours.solver, ours.tolerance = "dopri5", 1e-9
    z, log_det = ours.encode_log_det(x)
    # torchdiffeq's rk4 is the 3/8 rule, of the same order with other errors.
    most = 1e-7 if name == "dopri5" else 1e-4
    torch.testing.assert_close(z, path[0][-1], rtol=0, atol=most)
    torch.testing.assert_close(log_det, path[1][-1], rtol=0, atol=most)


@pytest.mark.oracle
def test_fixed_steps_come_to_the_adaptive_solution():
    pytest.importorskip("torchdiffeq", reason="pip install torchdiffeq")
    x = torch.randn(6, 2, dtype=torch.float64)
    fixed = shaken(replace(TINY, fine_steps=64))
    free = shaken(replace(TINY, solver="dopri5", tolerance=1e-8))
    torch.testing.assert_close(fixed.log_prob(x), free.log_prob(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(fixed.decode(x), free.decode(x), rtol=0, atol=1e-5)
    loss = free.loss(x)
    loss.loss.backward()  # through the adaptive solver
    assert all(p.grad.isfinite().all() for p in free.parameters())


def test_missing_solver_is_explained(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(RuntimeError, match="pip install torchdiffeq, or use solver 'rk4'"):
        adaptive(lambda t, z: (z, z), torch.zeros(1, 2), 0.0, 1.0, 1e-5)


# ---------------------------------------------------------------------------------------------
# Divergence
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "softplus", "silu"])
def test_derivatives_in_forward_mode_are_autograds(activation):
    torch.manual_seed(0)
    network = VelocityNet(replace(TINY, dim=3, activation=activation)).double()
    z, t = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 1, dtype=torch.float64)
    directions = torch.randn(5, 4, 3, dtype=torch.float64)
    f, derivative = network(t, z, directions)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda row, t=t[i : i + 1]: network(t, row[None], row.new_zeros(0, 1, 3))[0][0], z[i]
        )
        torch.testing.assert_close(derivative[:, i], directions[:, i] @ jacobian.T)
    torch.testing.assert_close(f, network(t, z, z.new_zeros(0, 4, 3))[0])


@pytest.mark.parametrize("dim", [2, 3])
def test_log_determinant_is_autograds_of_the_whole_solver(dim):
    """Of the map that the steps make, which comes to that of the equation as h^4."""
    flow = shaken(replace(TINY, dim=dim, fine_steps=40))
    x = torch.randn(4, dim, dtype=torch.float64)
    z, log_det = flow.encode_log_det(x)
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda row: flow.encode(row[None])[0], x[i])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[i], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(flow.log_prob(x), standard_normal_log_prob(z) + log_det)


def test_jacobian_of_the_steps_is_autograds():
    """Of a step too long for the equation, where the integral of the trace is off."""
    flow = shaken(replace(TINY, log_det="steps", num_steps=1), size=1.5)
    x = torch.randn(4, 2, dtype=torch.float64)
    times = (1.0, 0.0)
    z, log_det, rates = flow._solve_with_jacobian(x, times)
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda row: flow._solve_with_jacobian(row[None], times)[0][0], x[i]
        )
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)
    assert (rates[:, 0] - log_det).abs().max() > 0.02
    again, integrals = flow._solve(x, times, flow._all_directions(x))
    torch.testing.assert_close(z, again)
    torch.testing.assert_close(rates, integrals)


def test_log_determinants_come_together_as_steps_get_short():
    x, losses = torch.randn(8, 2, dtype=torch.float64), []
    for how in ("trace", "steps"):
        flow = shaken(replace(TINY, log_det=how, num_steps=32))
        losses.append(flow.loss(x, torch.Generator().manual_seed(0)).loss)
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased(noise):
    """Trace and squared norm of a known Jacobian, at one point for many directions."""
    count = 20_000
    flow = linear_flow(noise=noise)
    e = draw_directions(torch.zeros(count, 3).double(), noise, torch.Generator().manual_seed(0))
    assert e.shape == (1, count, 3)
    _, rates = flow._solve(torch.zeros(count, 3).double(), (0.0, 1.0), e)
    traces, norms = rates[:, 0], rates[:, 2]
    for values, exact in ((traces, A.trace()), (norms, A.square().sum())):
        error = values.std() / math.sqrt(count)
        assert abs(values.mean() - exact) < 4 * error
    # Signs leave only what the off-diagonal entries contribute.
    symmetric = A + A.T
    variance = (
        ((symmetric - symmetric.diag().diag()).square().sum() / 2)
        if noise == "rademacher"
        else symmetric.square().sum() / 2
    )
    assert float(traces.var()) == pytest.approx(float(variance), rel=0.05)


def test_estimated_loss_has_the_exact_one_as_its_mean():
    flow = shaken()
    x = torch.randn(8, 2, dtype=torch.float64)
    estimate = copy.deepcopy(flow)
    estimate.log_det = "hutchinson"
    generator = torch.Generator().manual_seed(0)
    losses = torch.stack([estimate.loss(x, generator).loss.detach() for _ in range(100)])
    assert losses.std() > 0
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - flow.loss(x).loss) < 4 * error


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


def test_decode_inverts_encode():
    flow = shaken(replace(TINY, fine_steps=64))
    x = torch.randn(100, 2, dtype=torch.float64)
    assert (flow.decode(flow.encode(x)) - x).abs().max() < 1e-6
    single = copy.deepcopy(flow).float()
    assert (single.decode(single.encode(x.float())) - x.float()).abs().max() < 1e-5


def test_density_integrates_to_one():
    flow = shaken()
    reach = float(flow.sample(5000, torch.Generator().manual_seed(0)).abs().max()) + 2
    grid = Grid((-reach, -reach), (reach, reach), (100, 100))
    assert log_normaliser(flow.log_prob, grid) == pytest.approx(0, abs=1e-3)


def test_trajectory_goes_from_noise_to_data():
    flow = shaken(replace(TINY, fine_steps=32))
    z = torch.randn(20, 2, dtype=torch.float64)
    path = flow.trajectory(z, num_times=5)
    assert path.shape == (5, 20, 2)
    assert torch.equal(path[0], z)
    torch.testing.assert_close(path[-1], flow.decode(z))
    # Each place has the density that the paths lead to it.
    torch.testing.assert_close(flow.log_prob_at(path[-1], 1.0), flow.log_prob(path[-1]))
    torch.testing.assert_close(flow.log_prob_at(z, 0.0), standard_normal_log_prob(z))
    grid = Grid((-9.0, -9.0), (9.0, 9.0), (100, 100))
    halfway = log_normaliser(lambda x: flow.log_prob_at(x, 0.5), grid)
    assert halfway == pytest.approx(0, abs=1e-3)
    assert torch.equal(flow.trajectory(z, num_times=1), z[None])
    torch.testing.assert_close(flow.trajectory(z, num_times=2)[1], flow.decode(z))


def test_a_flow_in_evaluation_mode_keeps_no_graph():
    flow, x = shaken(), torch.randn(3, 2, dtype=torch.float64)
    methods = (flow.log_prob, flow.encode, flow.decode, lambda x: flow.log_prob_at(x, 0.5))
    for method in methods:
        assert not method(x).requires_grad
        assert method(x.clone().requires_grad_()).requires_grad
        flow.train()
        assert method(x).requires_grad
        flow.eval()


def test_penalties_are_what_they_say():
    """Of dz/dt = A z at rest and in motion: |A z|^2 along exp(A t) z, and |A|^2."""
    x = torch.randn(4, 3, dtype=torch.float64)
    plain = linear_flow(num_steps=32).loss(x)
    times = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    paths = torch.stack([x @ torch.linalg.matrix_exp(-A * (1 - t)).T for t in times])
    kinetic = (paths @ A.T).square().sum(2).mean()
    torch.testing.assert_close(plain.kinetic, kinetic, rtol=1e-5, atol=0)
    torch.testing.assert_close(plain.jacobian, A.square().sum())
    torch.testing.assert_close(plain.loss, plain.latent - plain.log_det)
    punished = linear_flow(num_steps=32, kinetic_energy=0.3, jacobian_norm=0.02).loss(x)
    expected = plain.loss + 0.3 * plain.kinetic + 0.02 * plain.jacobian
    torch.testing.assert_close(punished.loss, expected)


def test_penalties_straighten_the_paths():
    """The kinetic energy falls where it is punished."""
    moons, energies = Standardised(TwoMoons()), []
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        config = replace(TINY, num_steps=1, kinetic_energy=weight)
        learner = FFJORDLearner(config.build(), FlowLossConfig(lr=2e-2, final_lr=1e-3), 40)
        for i in range(40):
            last = learner.update(moons.sample(64, torch.Generator().manual_seed(i)))
        energies.append(float(last["kinetic"]))
    assert energies[1] < 0.8 * energies[0]


def test_matching_loss_is_least_for_the_mean_velocity():
    """Data in one place x: every line to it has velocity 2 (1 - t) (x - z0), and
    z = (1 - t)^2 z0 + (1 - (1 - t)^2) x, so the best velocity is 2 (x - z) / (1 - t)."""
    x = torch.tensor([[0.4, -0.9]]).expand(64, 2)
    flow = TINY.build()

    class Best(nn.Module):
        def forward(self, t, z, directions):
            return 2 * (x - z) / (1 - t), directions

    flow.velocity = Best()
    assert flow.matching_loss(x, torch.Generator().manual_seed(0)).loss < 1e-8


def test_learner_matches_first_and_then_maximises_the_likelihood():
    """Far below a standard normal's 2.84 nats of the moons; the likelihood goes on from the average
    of the flow matching."""
    torch.manual_seed(0)
    moons = Standardised(TwoMoons())
    config = FFJORDConfig(hidden_dim=32, num_hidden=2, activation="silu", num_steps=2, fine_steps=4)
    matching = FlowLossConfig(lr=1e-2, final_lr=1e-3, ema=0.95)
    likelihood = FlowLossConfig(lr=3e-3, final_lr=1e-3, clip=1.0)
    learner = FFJORDLearner(config.build(), likelihood, 320, matching, matching_steps=300)
    for i in range(320):
        logged = learner.update(moons.sample(128, torch.Generator().manual_seed(i), even=True))
        assert set(logged) == (
            {"matching"} if i < 300 else {"loss", "latent", "log_det", "kinetic", "jacobian"}
        )
        if i == 299:
            pairs = zip(learner.model.parameters(), learner.matching.kept.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    assert 1.13 < logged["loss"] < 2.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"kinetic_energy": -1.0}, "must be at least 0"),
        ({"log_det": "steps", "solver": "dopri5"}, "is of solver 'rk4'"),
    ],
)
def test_impossible_sizes_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        FFJORDConfig(**settings)
