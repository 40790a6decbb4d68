"""Boltzmann machines against sums over all states, scikit-learn, and each other."""

import itertools
import math

import numpy as np
import pytest
import torch

from generative.known.bars_and_stripes import bars_and_stripes
from generative.rbm import (
    RBM,
    BoltzmannConfig,
    BoltzmannLearner,
    BoltzmannMachine,
    DBNConfig,
    DBNLearner,
    DeepBeliefNetwork,
    RBMConfig,
    RBMLossConfig,
    all_bits,
)

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(visible: int = 4, hidden: int = 3, size: float = 1.0) -> RBM:
    """A machine with weights that matter, in float64."""
    torch.manual_seed(0)
    rbm = RBM(RBMConfig((visible,), hidden, sample_steps=50)).double()
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    return rbm


def states(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def joint(rbm: RBM) -> dict[tuple[float, ...], float]:
    """Probability of each (v, h), by loops in plain Python."""
    w, b, c = (p.detach().numpy() for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    weights = {}
    for v in itertools.product((0.0, 1.0), repeat=len(b)):
        for h in itertools.product((0.0, 1.0), repeat=len(c)):
            energy = -sum(b[i] * v[i] for i in range(len(b)))
            energy -= sum(c[j] * h[j] for j in range(len(c)))
            energy -= sum(w[i, j] * v[i] * h[j] for i in range(len(b)) for j in range(len(c)))
            weights[v + h] = math.exp(-energy)
    total = sum(weights.values())
    return {"Z": total, **{state: weight / total for state, weight in weights.items()}}


# ---------------------------------------------------------------------------------------------
# Sums
# ---------------------------------------------------------------------------------------------


def test_all_bits_are_all_different():
    found = torch.cat(list(all_bits(5, torch.zeros(1), rows=7)))
    assert found.shape == (32, 5)
    assert len(found.unique(dim=0)) == 32
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.cat(list(all_bits(0, torch.zeros(1)))).shape == (1, 0)


@pytest.mark.parametrize(("visible", "hidden"), [(4, 3), (3, 4)])
def test_everything_is_the_brute_force_sum(visible, hidden):
    """Either side is the smaller one, and so the one that is enumerated."""
    rbm = tiny(visible, hidden).requires_grad_(False)
    p = joint(rbm)
    assert float(rbm.log_partition()) == pytest.approx(math.log(p["Z"]))
    for v in states(visible):
        key = tuple(v.tolist())
        rows = {s: q for s, q in p.items() if s != "Z" and s[:visible] == key}
        marginal = sum(rows.values())
        assert float(rbm.log_prob(v[None])) == pytest.approx(math.log(marginal))
        means = [
            sum(q for s, q in rows.items() if s[visible + j]) / marginal for j in range(hidden)
        ]
        assert rbm.hidden_mean(v[None])[0].tolist() == pytest.approx(means)
    for h in states(hidden):
        rows = {s: q for s, q in p.items() if s != "Z" and s[visible:] == tuple(h.tolist())}
        means = [
            sum(q for s, q in rows.items() if s[i]) / sum(rows.values()) for i in range(visible)
        ]
        assert rbm.visible_mean(h[None])[0].tolist() == pytest.approx(means)
    v, h = states(visible)[2:3], states(hidden)[-2:-1]
    expected = p[tuple(v[0].tolist() + h[0].tolist())]
    found = -float(rbm.energy(v, h)) - float(rbm.log_partition())
    assert found == pytest.approx(math.log(expected))


def test_free_energy_and_hidden_means_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neural_network", reason="the oracle is scikit-learn")
    rbm = tiny(6, 4)
    theirs = sklearn.BernoulliRBM(n_components=4)
    theirs.components_ = rbm.weight.detach().numpy().T
    theirs.intercept_visible_ = rbm.visible_bias.detach().numpy()
    theirs.intercept_hidden_ = rbm.hidden_bias.detach().numpy()
    x = states(6)
    np.testing.assert_allclose(rbm.free_energy(x).detach(), theirs._free_energy(x.numpy()))
    np.testing.assert_allclose(rbm.hidden_mean(x).detach(), theirs.transform(x.numpy()))


def test_a_boltzmann_machine_without_inner_connections_is_a_restricted_one():
    rbm, machine = tiny(4, 3), BoltzmannMachine(BoltzmannConfig((4,), 3)).double()
    with torch.no_grad():
        full = torch.zeros(7, 7, dtype=torch.float64)
        full[:4, 4:] = rbm.weight
        machine.couplings.copy_(full[machine.rows, machine.columns])
        machine.biases.copy_(torch.cat([rbm.visible_bias, rbm.hidden_bias]))
    x = states(4)
    torch.testing.assert_close(machine.free_energy(x), rbm.free_energy(x))
    torch.testing.assert_close(machine.log_prob(x), rbm.log_prob(x))


def test_a_boltzmann_machine_is_the_books_but_for_biases_and_a_factor():
    """E = -(v^T L v + h^T J h + v^T W h) / 2, with a W twice that of the matrix here."""
    torch.manual_seed(0)
    machine = BoltzmannMachine(BoltzmannConfig((4,), 3)).double()
    with torch.no_grad():
        machine.couplings.copy_(torch.randn_like(machine.couplings))
    a, s = machine.matrix(), states(7)
    assert torch.equal(a, a.T)
    assert not a.diagonal().any()
    v, h = s[:, :4], s[:, 4:]
    inner_v, inner_h, across = a[:4, :4], a[4:, 4:], 2 * a[:4, 4:]
    printed = -0.5 * torch.stack(
        [v[i] @ inner_v @ v[i] + h[i] @ inner_h @ h[i] + v[i] @ across @ h[i] for i in range(128)]
    )
    torch.testing.assert_close(machine.energy(s), printed)
    brute = torch.stack([-machine.energy(s)[i] for i in range(128)]).view(16, 8).logsumexp(1)
    torch.testing.assert_close(-machine.free_energy(states(4)), brute)
    assert float(machine.log_prob(states(4)).exp().sum().detach()) == pytest.approx(1)


def test_bound_of_a_deep_belief_network_is_below_the_exact_sum():
    torch.manual_seed(0)
    network = DeepBeliefNetwork(DBNConfig((3,), (3, 2))).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.8 * torch.randn_like(parameter))
    lower, top = network.stack
    x, h = states(3), states(3)
    p_v = torch.distributions.Bernoulli(logits=lower.visible_logits(h))
    log_p = torch.stack([(top.log_prob(h) + p_v.log_prob(v).sum(1)).logsumexp(0) for v in x])
    assert float(log_p.exp().sum().detach()) == pytest.approx(1)
    bound = network.bound(x, 4000, generator())
    assert bool((bound < log_p).all())
    # The bound itself in closed form: E_q of log p(v, h) - log q(h | v).
    q_h = torch.distributions.Bernoulli(logits=lower.hidden_logits(x)[:, None])
    log_q = q_h.log_prob(h).sum(-1)
    log_joint = torch.stack([top.log_prob(h) + p_v.log_prob(v).sum(1) for v in x])
    exact = (log_q.exp() * (log_joint - log_q)).sum(1)
    torch.testing.assert_close(bound, exact.detach(), rtol=0, atol=0.08)


def test_a_network_of_one_layer_is_its_machine():
    torch.manual_seed(0)
    network = DeepBeliefNetwork(DBNConfig((4,), (3,), sample_steps=4)).double()
    rbm, x = network.stack[0], states(4)
    torch.testing.assert_close(network.bound(x), rbm.log_prob(x))
    torch.testing.assert_close(network.reconstruct(x), rbm.reconstruct(x))
    assert torch.equal(network.sample(5, generator()), rbm.sample(5, generator()))


# ---------------------------------------------------------------------------------------------
# Chains
# ---------------------------------------------------------------------------------------------


def chi_square(found: torch.Tensor, p: torch.Tensor) -> float:
    """Pearson's statistic of bits (N, D) against probabilities in the order of `states`."""
    index = (found.long() * 2 ** torch.arange(found.shape[1]).flip(0)).sum(1)
    counts = torch.bincount(index, minlength=len(p)).double()
    return float(((counts - len(found) * p).square() / (len(found) * p)).sum())


@pytest.mark.parametrize("kind", ["rbm", "machine"])
def test_frequencies_of_gibbs_chains_are_the_exact_probabilities(kind):
    model = tiny(4, 3, size=0.7)
    if kind == "machine":
        torch.manual_seed(0)
        model = BoltzmannMachine(BoltzmannConfig((4,), 2, sample_steps=30)).double()
        with torch.no_grad():
            model.couplings.copy_(0.7 * torch.randn_like(model.couplings))
    p = model.log_prob(states(4)).exp().detach()
    x = model.sample(20_000, generator())
    assert chi_square(x, p) < 37.7  # 15 degrees of freedom, one in a thousand above
    assert chi_square(x, torch.full_like(p, 1 / 16)) > 100


def test_chains_that_exchange_their_temperatures_keep_the_distribution():
    rbm = tiny(4, 3)
    config = RBMLossConfig("pcd", num_chains=20_000, num_temperatures=4)
    learner = BoltzmannLearner(rbm, config, 1)
    torch.manual_seed(1)
    chains = torch.bernoulli(torch.full((4, 20_000, 4), 0.5, dtype=torch.float64))
    for _ in range(25):
        chains = learner._temper(rbm, chains)
    p = rbm.log_prob(states(4)).exp().detach()
    assert chi_square(chains[-1], p) < 37.7
    independent = torch.distributions.Bernoulli(logits=rbm.visible_bias)
    p = independent.log_prob(states(4)).sum(1).exp().detach()
    assert chi_square(chains[0], p) < 37.7


@pytest.mark.parametrize("examples", [None, states(8)[50:90]])
def test_annealed_importance_sampling_finds_the_partition_function(examples):
    rbm = tiny(8, 6).requires_grad_(False)
    estimate = rbm.estimate_log_partition(300, 500, examples, generator())
    exact = float(rbm.log_partition())
    assert abs(estimate.log_partition - exact) < 0.1
    assert abs(estimate.log_partition - exact) < 5 * estimate.std_error
    again = rbm.estimate_log_partition(300, 500, examples, generator())
    assert again == estimate


def test_annealing_in_one_step_is_plain_importance_sampling():
    """Whose expectation is exact: the average of the weights over all base states is Z."""
    rbm = tiny(5, 4).requires_grad_(False)
    v = states(5)
    base = torch.distributions.Bernoulli(logits=rbm.visible_bias).log_prob(v).sum(1)
    weights = -rbm.free_energy(v) - base
    assert float((base + weights).logsumexp(0)) == pytest.approx(float(rbm.log_partition()))
    found = rbm.estimate_log_partition(1, 20_000, generator=generator())
    assert abs(found.log_partition - float(rbm.log_partition())) < 5 * found.std_error


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def gradients(model, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_exact_gradient_is_positive_phase_less_negative_phase():
    """<v h>_data - <v h>_model from the joint distribution, against autograd through log Z."""
    rbm = tiny(4, 3)
    x = states(4)[[3, 5, 6]]
    found = gradients(rbm, -rbm.log_prob(x).mean())[:12].view(4, 3)
    p = joint(rbm)
    model = sum(
        q * torch.outer(torch.tensor(s[:4]), torch.tensor(s[4:])).double()
        for s, q in p.items()
        if s != "Z"
    )
    data = torch.einsum("bi,bj->ij", x, rbm.hidden_mean(x)) / 3
    torch.testing.assert_close(found, (model - data).detach())


@pytest.mark.parametrize("method", ["cd", "pcd"])
def test_gradient_of_chains_is_the_exact_one_in_expectation(method):
    """Once k is large for cd, once the chains have run for pcd."""
    rbm = tiny(4, 3, size=0.7)
    x = states(4)[[3, 5, 6]].repeat(10_000, 1)
    exact = gradients(rbm, -rbm.log_prob(x[:3]).mean())
    learner = BoltzmannLearner(rbm, RBMLossConfig(method, k=30), 1)
    torch.manual_seed(0)
    chains = learner._draw(x)
    found = gradients(rbm, rbm.chain_free_energy(x).mean() - rbm.chain_free_energy(chains).mean())
    assert float((found - exact).abs().max()) < 0.02
    assert float(exact.abs().max()) > 0.2


def test_cd_1_on_all_states_is_the_exact_gradient_at_the_optimum():
    """Data that are the model's own stay so in a Gibbs step, so CD has nothing left to change."""
    rbm = tiny(4, 3, size=0.7)
    p = rbm.log_prob(states(4)).exp().detach()
    x = states(4)[torch.multinomial(p, 40_000, replacement=True, generator=generator())]
    torch.manual_seed(0)
    chains = BoltzmannLearner(rbm, RBMLossConfig("cd"), 1)._draw(x)
    found = gradients(rbm, rbm.chain_free_energy(x).mean() - rbm.chain_free_energy(chains).mean())
    assert float(found.abs().max()) < 0.02


def test_an_update_is_the_rule_of_the_papers():
    """lr * (<v p(h|v)>_data - <v p(h|v)>_chains), spelled out."""
    rbm = tiny(4, 3)
    before = {name: p.detach().clone() for name, p in rbm.named_parameters()}
    x = states(4)[[1, 7, 8, 14]]
    torch.manual_seed(3)
    chains = rbm.gibbs(x, 2)
    rule = {
        "weight": x.T @ rbm.hidden_mean(x) - chains.T @ rbm.hidden_mean(chains),
        "visible_bias": (x - chains).sum(0),
        "hidden_bias": (rbm.hidden_mean(x) - rbm.hidden_mean(chains)).sum(0),
    }
    torch.manual_seed(3)
    BoltzmannLearner(rbm, RBMLossConfig("cd", k=2, lr=0.1, final_lr=0.1), 10).update(x)
    for name, p in rbm.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] + 0.1 * rule[name].detach() / 4)


def test_weight_decay_leaves_biases_alone():
    rbm = tiny(4, 3)
    learner = BoltzmannLearner(rbm, RBMLossConfig("exact", weight_decay=0.5), 1)
    decays = {
        id(p): group["weight_decay"]
        for group in learner.optimisation.optimizers[0].param_groups
        for p in group["params"]
    }
    assert decays[id(rbm.weight)] == 0.5
    assert decays[id(rbm.visible_bias)] == decays[id(rbm.hidden_bias)] == 0


def test_layers_of_a_deep_belief_network_are_trained_in_turn():
    torch.manual_seed(0)
    network = DeepBeliefNetwork(DBNConfig((1, 4, 4), (5, 3)))
    learner = DBNLearner(network, RBMLossConfig(lr=0.1), 6)
    x = bars_and_stripes().as_tensor()
    start = [rbm.weight.detach().clone() for rbm in network.stack]
    layers = [learner.update(x)["layer"] for _ in range(3)]
    lower = network.stack[0].weight.detach().clone()
    assert torch.equal(network.stack[1].weight, start[1])
    layers += [learner.update(x)["layer"] for _ in range(4)]  # the last goes on beyond its share
    assert layers == [0, 0, 0, 1, 1, 1, 1]
    assert torch.equal(network.stack[0].weight, lower)
    assert not torch.equal(network.stack[1].weight, start[1])
    torch.manual_seed(0)
    drawn = network.up(x.repeat(2000, 1, 1, 1), 1).view(2000, 30, 5).mean(0)
    torch.testing.assert_close(drawn, network.stack[0].hidden_mean(x), rtol=0, atol=0.06)


def test_begins_at_the_log_odds_of_the_data():
    rbm = RBM(RBMConfig((2,), 1))
    rbm.initialise(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]))
    assert rbm.visible_bias.tolist() == pytest.approx([math.log(3), -math.log(3)])


# ---------------------------------------------------------------------------------------------
# Bars and stripes
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "count"), [(2, 6), (3, 14), (4, 30)])
def test_bars_and_stripes_are_all_there_once(side, count):
    images = bars_and_stripes(side)
    assert len(images) == count
    assert len(np.unique(images.images.reshape(count, -1), axis=0)) == count
    for image, (stripes,) in zip(images.images[..., 0], images.factors, strict=True):
        same = image == (image[:, :1] if stripes else image[:1])
        assert same.all()
    assert images.as_tensor().shape == (count, 1, side, side)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bars_and_stripes(1), "side is 1"),
        (lambda: RBMConfig(hidden_dim=0), "hidden_dim is 0"),
        (lambda: RBMConfig((2, 2)), r"shape is \(2, 2\)"),
        (lambda: BoltzmannConfig(hidden_dim=-1), "hidden_dim is -1"),
        (lambda: DBNConfig(hidden_dims=()), r"hidden_dims is \(\), and must be at least 1"),
        (lambda: RBMLossConfig(k=0), "k is 0"),
        (lambda: RBMLossConfig(num_temperatures=3), "method cd"),
        (lambda: RBMLossConfig(lr=0.0), "lr is 0.0"),
        (lambda: RBM().log_prob(torch.zeros(1, 1, 28, 28)), r"2\^128.*estimate_log_partition"),
        (
            lambda: BoltzmannLearner(
                BoltzmannMachine(), RBMLossConfig("pcd", num_temperatures=2), 1
            ),
            "restricted machines",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
