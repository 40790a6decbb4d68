"""The mixture density head against torch.distributions, closed forms and Bishop's toy problem."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from generative.mdn import Mixture, MixtureDensityHead, mdn_nll

torch.set_num_threads(1)


def random_mixture(*shape: int, seed: int = 0, dtype=torch.float64) -> Mixture:
    """Mixture with fields of `shape` = (..., D, K)."""
    generator = torch.Generator().manual_seed(seed)
    logits, mu, log_std = torch.randn(3, *shape, generator=generator, dtype=dtype)
    return Mixture(logits.log_softmax(-1), 2 * mu, 0.5 * log_std)


def reference(mixture: Mixture) -> MixtureSameFamily:
    components = Normal(mixture.mu, mixture.log_std.exp())
    return MixtureSameFamily(Categorical(logits=mixture.log_pi), components)


def test_density_and_moments_are_those_of_torch_distributions():
    mixture = random_mixture(7, 6, 4, 5)
    x = 3 * torch.randn(7, 6, 4, dtype=torch.float64)
    expected = reference(mixture)
    torch.testing.assert_close(mixture.log_prob(x), expected.log_prob(x))
    torch.testing.assert_close(mdn_nll(x, *mixture), -expected.log_prob(x))
    torch.testing.assert_close(mixture.mean(), expected.mean)
    torch.testing.assert_close(mixture.variance(), expected.variance)


def test_density_by_hand():
    mixture = Mixture(
        torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 0.5]])
    )
    std = math.exp(0.5)
    density = 0.25 * math.exp(-0.5 * 1.5**2) / math.sqrt(2 * math.pi)
    density += 0.75 * math.exp(-0.5 * (0.5 / std) ** 2) / (std * math.sqrt(2 * math.pi))
    assert mixture.log_prob(torch.tensor([1.5])).item() == pytest.approx(math.log(density))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.3, 4.0])
def test_sampled_moments_follow_the_temperature(temperature):
    """softmax(log_pi / tau) for the weights, sqrt(tau) times the deviations."""
    mixture = random_mixture(3, 5, seed=1)
    weights = (mixture.log_pi / temperature).softmax(-1)
    heated = Mixture(weights.log(), mixture.mu, mixture.log_std + 0.5 * math.log(temperature))
    n = 40_000
    many = Mixture(*(field.expand(n, 3, 5) for field in mixture))
    draws = many.sample(temperature, torch.Generator().manual_seed(2))
    expected = reference(heated)
    error = (draws.mean(0) - expected.mean).abs()
    assert (error < 4 * (expected.variance / n).sqrt()).all()
    torch.testing.assert_close(draws.var(0), expected.variance, rtol=0.04, atol=0)
    # The whole distribution, by Kolmogorov's distance at 99.9 %.
    ordered = draws.sort(0).values
    steps = torch.arange(1, n + 1, dtype=torch.float64).unsqueeze(1) / n
    assert (expected.cdf(ordered) - steps).abs().max() < 1.95 / math.sqrt(n)


def test_temperature_zero_gives_the_heaviest_mean():
    mixture = random_mixture(6, 3, 5, seed=3)
    expected = torch.empty(6, 3, dtype=torch.float64)
    for i in range(6):
        for d in range(3):
            expected[i, d] = mixture.mu[i, d, mixture.log_pi[i, d].argmax()]
    assert torch.equal(mixture.sample(temperature=0), expected)
    almost = mixture.sample(1e-9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(almost, expected, rtol=0, atol=1e-3)


def test_draw_is_sample_with_its_noise_in_hand():
    mixture, zero = random_mixture(4, 3, 5, seed=4), torch.zeros(4, 3, dtype=torch.float64)
    gumbel = torch.full((4, 3, 5), -30.0, dtype=torch.float64)
    gumbel[..., 2] = 30.0  # decides for component 2
    torch.testing.assert_close(mixture.draw(gumbel, zero), mixture.mu[..., 2])
    expected = mixture.mu[..., 2] + 2 * mixture.log_std[..., 2].exp()
    torch.testing.assert_close(mixture.draw(gumbel, zero + 1, temperature=4), expected)


def test_samples_repeat_with_their_generator_and_carry_gradients():
    mixture = random_mixture(4, 3, 5)
    draws = [mixture.sample(1.0, torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    mu = mixture.mu.clone().requires_grad_()
    mixture._replace(mu=mu).sample().sum().backward()
    assert torch.equal(mu.grad.sum(-1), torch.ones(4, 3, dtype=torch.float64))  # one component each


def test_negative_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature is -1"):
        random_mixture(2, 3).sample(-1)


def test_extremes_stay_finite_and_exact():
    """Where pi * density under- or overflows, its logarithm must not."""
    log_pi = torch.tensor([[-200.0, 0.0]]).requires_grad_()
    mu = torch.tensor([[1e4, -1e4]]).requires_grad_()
    log_std = torch.tensor([[-7.0, -7.0]]).requires_grad_()
    log_prob = Mixture(log_pi, mu, log_std).log_prob(torch.tensor([1e4]))
    # At the first mean: the other component contributes nothing.
    assert log_prob.item() == pytest.approx(-200 + 7 - 0.5 * math.log(2 * math.pi))
    log_prob.sum().backward()
    assert all(x.grad.isfinite().all() for x in (log_pi, mu, log_std))
    far = Mixture(log_pi, mu, log_std).log_prob(torch.tensor([0.0]))
    assert far.item() == pytest.approx(-0.5 * (1e4 * math.exp(7)) ** 2, rel=1e-4)
    # Two components 1e4 from 0 and 1e-3 apart: a difference of squares would lose this variance.
    narrow = Mixture(
        torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1e4, 1e4]]), torch.tensor([[-5.0, -5.0]])
    )
    assert narrow.variance().item() == pytest.approx(math.exp(-10), rel=1e-3)


def test_head_normalises_and_clamps():
    torch.manual_seed(0)
    head = MixtureDensityHead(8, 3, num_mixtures=4)
    assert sum(p.numel() for p in head.parameters()) == (8 + 1) * 3 * 4 * 3
    mixture = head(1e4 * torch.randn(2, 6, 8))
    assert all(field.shape == (2, 6, 3, 4) for field in mixture)
    torch.testing.assert_close(mixture.log_pi.exp().sum(-1), torch.ones(2, 6, 3))
    assert mixture.log_std.min() == -7
    assert mixture.log_std.max() == 5
    log_prob = mixture.log_prob(torch.randn(2, 6, 3))
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_head_reads_its_outputs_in_order():
    """Weights, then means, then deviations, each (D, K): what a saved head means must not move."""
    head = MixtureDensityHead(1, 2, num_mixtures=3)
    nn.init.zeros_(head.linear.weight)
    with torch.no_grad():
        head.linear.bias.copy_(torch.arange(18.0) / 10)
    mixture = head(torch.zeros(1, 1))
    torch.testing.assert_close(mixture.mu[0], torch.tensor([[0.6, 0.7, 0.8], [0.9, 1.0, 1.1]]))
    torch.testing.assert_close(mixture.log_std[0], torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7]]))
    expected = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]).softmax(-1).log()
    torch.testing.assert_close(mixture.log_pi[0], expected)


def test_likelihood_is_float32_under_autocast():
    head = MixtureDensityHead(8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixture = head(torch.randn(4, 8))
        assert mixture.log_prob(torch.randn(4, 3)).dtype == torch.float32
    assert all(field.dtype == torch.float32 for field in mixture)


def learn_inverse_sinusoid(num_mixtures: int) -> float:
    """Bishop (1994), section 5: given x, find the t with x = t + 0.3 sin(2 pi t) + noise; nats."""
    torch.manual_seed(0)
    t = torch.rand(500, 1)
    x = t + 0.3 * torch.sin(2 * math.pi * t) + 0.2 * torch.rand(500, 1) - 0.1
    network = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), MixtureDensityHead(20, 1, num_mixtures))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(500):
        loss = -network(x).log_prob(t).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_learns_a_relation_with_several_answers():
    """A single Gaussian cannot cover three branches; three of them can."""
    one, three = learn_inverse_sinusoid(1), learn_inverse_sinusoid(3)
    assert one > -0.6
    assert three < one - 0.4
