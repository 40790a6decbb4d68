"""Score matching against Gaussians, mixtures, and autograd."""

import math

import pytest
import torch

from generative.known.densities import GaussianMixture, eight_gaussians
from generative.score_matching import (
    ScoreConfig,
    ScoreLearner,
    ScoreLossConfig,
    annealed_langevin,
    annealed_langevin_path,
    denoising_score_matching,
    noise_levels,
    sliced_score_matching,
)

torch.set_num_threads(1)
MEAN, STD = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 2.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(n: int) -> torch.Tensor:
    return MEAN + STD * torch.randn(n, 2, generator=generator())


def gaussian_score(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Of N(MEAN, STD^2 + sigma^2), in closed form."""
    return (MEAN - x) / (STD.square() + sigma[:, None].square())


def mixture_score(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Of eight Gaussians with noise, which are eight wider Gaussians, by autograd."""
    plain = eight_gaussians()
    noisy = GaussianMixture(plain.centres, math.hypot(plain.scale, float(sigma[0])))
    with torch.enable_grad():
        x = x.detach().double().requires_grad_()
        (score,) = torch.autograd.grad(noisy.log_prob(x).sum(), x)
    return score.float()


@pytest.mark.parametrize("loss", ["denoising", "sliced"])
def test_best_linear_score_of_gaussian_data_is_the_closed_form(loss):
    """s(x) = a x + b per axis; both losses are quadratic in it, so least squares finds the best."""
    x, sigma = gaussian(100_000), torch.full((100_000,), 0.7)
    eps = torch.randn(x.shape, generator=generator(1))
    a, b = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)

    def score(y, _):
        return a * y + b

    def value() -> torch.Tensor:
        if loss == "denoising":
            return denoising_score_matching(score, x, sigma, eps).mean()
        signs = torch.randint(2, x.shape, generator=generator(2)).float() * 2 - 1
        return sliced_score_matching(score, x + 0.7 * eps, sigma, signs).mean()

    optimizer = torch.optim.LBFGS([a, b], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        found = value()
        found.backward()
        return found

    optimizer.step(closure)
    variance = STD.square() + 0.7**2
    torch.testing.assert_close(a.detach(), -1 / variance, rtol=0.02, atol=0)
    torch.testing.assert_close(b.detach(), MEAN / variance, rtol=0.05, atol=0.01)


def test_losses_differ_by_a_constant_in_expectation():
    """Denoising and sliced loss of two different scores have the same difference (Vincent 2011)."""
    n = 200_000
    x, sigma = gaussian(n), torch.full((n,), 0.7)
    eps = torch.randn(x.shape, generator=generator(1))
    signs = torch.randint(2, x.shape, generator=generator(2)).float() * 2 - 1
    scores = gaussian_score, lambda y, s: torch.tanh(y) - 0.3 * y
    denoising, sliced = (
        [float(f(score).mean().detach()) for score in scores]
        for f in (
            lambda score: denoising_score_matching(score, x, sigma, eps),
            lambda score: sliced_score_matching(score, x + 0.7 * eps, sigma, signs),
        )
    )
    assert denoising[1] - denoising[0] == pytest.approx(sliced[1] - sliced[0], abs=0.02)
    assert denoising[1] - denoising[0] > 0.3


def test_losses_by_hand():
    x, eps = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]])
    sigma, signs = torch.tensor([2.0]), torch.tensor([[1.0, -1.0]])
    matrix = torch.tensor([[1.0, 3.0], [0.5, -2.0]])

    def score(y, _):
        return y @ matrix.T

    noisy = x + 2 * eps
    error = 2 * score(noisy, sigma) + eps
    expected = error.square().sum() / 2
    assert float(denoising_score_matching(score, x, sigma, eps)) == pytest.approx(float(expected))
    along = float(signs[0] @ matrix @ signs[0])
    expected = 4 * (along + float(score(noisy, sigma).square().sum()) / 2)
    found = sliced_score_matching(score, noisy, sigma, signs)
    assert float(found.detach()) == pytest.approx(expected)


def test_levels_are_the_papers():
    levels = noise_levels(ScoreConfig())
    assert len(levels) == 10
    assert levels[[0, -1]].tolist() == pytest.approx([1.0, 0.01])
    ratios = levels[1:] / levels[:-1]
    torch.testing.assert_close(ratios, torch.full((9,), 0.01 ** (1 / 9)))


def test_annealed_langevin_with_the_exact_score_samples_a_gaussian():
    """With the bias in closed form of the last level's steps: variance v gives v / (1 - a / 4v)."""
    n, levels = 20_000, torch.tensor([2.0, 1.0, 0.5])
    x = 3 * torch.randn(n, 2, generator=generator())
    x = annealed_langevin(gaussian_score, x, levels, 150, 0.05, generator(1))
    v = STD.square() + 0.25
    expected = v / (1 - 0.05 / (4 * v))
    torch.testing.assert_close(x.mean(0), MEAN, rtol=0, atol=0.1)
    torch.testing.assert_close(x.var(0), expected, rtol=0.06, atol=0)


def test_annealed_langevin_with_the_exact_score_finds_all_modes():
    levels = noise_levels(ScoreConfig(sigma_max=3.0, sigma_min=0.1, num_levels=6))
    x = 3 * torch.randn(2000, 2, generator=generator())
    *_, x = annealed_langevin_path(mixture_score, x, levels, 40, 2e-3, generator(1))
    modes, share = eight_gaussians().modes_found(x)
    assert modes == 8
    assert share > 0.93  # 0.984 in the limit of many small steps
    nearest = torch.cdist(x.double(), torch.tensor(eight_gaussians().centres).double()).argmin(1)
    counts = torch.bincount(nearest, minlength=8).double()
    assert float((counts - 250).square().sum() / 250) < 24.3  # 7 degrees of freedom, 1 in 1,000


def test_network_divides_by_the_noise_and_denoises_by_tweedie():
    torch.manual_seed(0)
    model = ScoreConfig(hidden_dim=8, num_hidden=1).build()
    x, sigma = torch.randn(3, 2), torch.tensor([0.1, 0.5, 1.0])
    inner = model.network(x / (1 + sigma[:, None] ** 2).sqrt(), sigma.log())
    torch.testing.assert_close(model.score(x, sigma), inner / sigma[:, None])
    torch.testing.assert_close(model.denoise(x, sigma), x + sigma[:, None] * inner)
    torch.testing.assert_close(model.score(x, 0.5)[1], model.score(x, sigma)[1])


def test_exact_score_denoises_to_the_posterior_mean():
    """Of Gaussian data: (noisy * var + mean * sigma^2) / (var + sigma^2)."""
    x, sigma = torch.randn(5, 2), torch.full((5,), 0.7)
    var = STD.square()
    found = x + 0.49 * gaussian_score(x, sigma)
    torch.testing.assert_close(found, (x * var + MEAN * 0.49) / (var + 0.49))


@pytest.mark.parametrize("method", ["denoising", "sliced"])
def test_learns_the_score_of_a_gaussian(method):
    torch.manual_seed(0)
    config = ScoreConfig(sigma_min=0.3, num_levels=3, hidden_dim=32, num_hidden=1)
    model = config.build()
    learner = ScoreLearner(model, ScoreLossConfig(method, lr=2e-2, final_lr=1e-3, ema=0.97), 300)
    x = gaussian(300 * 256).view(300, 256, 2)
    for batch in x:
        learner.update(batch)
    for sigma in (0.3, 1.0):
        noisy = x[0] + sigma * torch.randn(x[0].shape, generator=generator(1))
        wanted = gaussian_score(noisy, torch.full((256,), sigma))
        error = (learner.kept.score(noisy, sigma) - wanted).square().mean().detach()
        assert float(error) < 0.1 * float(wanted.square().mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoreConfig((2, 2)), r"shape is \(2, 2\)"),
        (lambda: ScoreConfig((1, 6, 6)), "that 4 divides"),
        (lambda: ScoreConfig(sigma_min=2.0), "sigma_min is 2.0"),
        (lambda: ScoreConfig(num_levels=1), "num_levels is 1"),
        (lambda: ScoreConfig(hidden_dim=0), "hidden_dim is 0"),
        (lambda: ScoreLossConfig(lr=0.0), "lr is 0.0"),
        (
            lambda: ScoreConfig().build().loss(torch.zeros(2, 2), "exact"),
            "'exact'; give 'denoising' or",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
