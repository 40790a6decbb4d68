"""The densities against closed forms, SciPy's integrators, and the published floors."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from generative.known.densities import (
    Box,
    Boxes,
    Gaussian,
    GaussianMixture,
    Standardised,
    TwoMoons,
    WorldMap,
    checkerboard,
    eight_gaussians,
    grid_25,
    ring,
)
from generative.known.quadrature import Grid, divergence, log_likelihood, log_normaliser
from generative.known.two_samples import energy_test

torch.set_num_threads(1)
PLANE = {
    "moons": TwoMoons(0.1),
    "standardised moons": Standardised(TwoMoons(0.1)),
    "eight": eight_gaussians(),
    "grid": grid_25(),
    "ring": ring(),
    "checkerboard": checkerboard(),
    "standardised checkerboard": Standardised(checkerboard()),
}
ALL = {**PLANE, "box": Box((-1.0, 2.0), (3.0, 2.5)), "world": WorldMap()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("density", "floor"),
    [
        (TwoMoons(0.05), 0.2892),
        (TwoMoons(0.1), 1.0076),
        (TwoMoons(0.2), 1.6775),
        (Standardised(TwoMoons(0.05)), 1.1312),
        (Standardised(TwoMoons(0.1)), 1.8296),
        (Standardised(TwoMoons(0.2)), 2.4244),
        (eight_gaussians(), 2.8319),
        (grid_25(0.05), 0.0653),
        (ring(), 0.3121),
        (checkerboard(), math.log(32)),
        (Standardised(checkerboard()), math.log(32) - math.log(16 / 3)),
    ],
)
def test_known_entropies(density, floor):
    assert density.entropy() == pytest.approx(floor, abs=6e-5)


def test_separate_modes_have_their_own_entropies():
    assert grid_25(0.1).entropy() == pytest.approx(
        math.log(25) + 2 * stats.norm(scale=0.1).entropy(), abs=1e-9
    )


@pytest.mark.parametrize("name", PLANE)
def test_densities_integrate_to_one(name):
    density = PLANE[name]
    assert log_normaliser(density.log_prob, density.grid(2.0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_samples_have_the_moments_and_the_entropy(name):
    density, n = ALL[name], 20_000
    x = density.sample(n, generator())
    assert x.shape == (n, 2)
    assert x.dtype == torch.float32
    mean, std = torch.tensor([density.mean, density.std])
    assert ((x.mean(0) - mean).abs() < 4 * std / math.sqrt(n)).all()
    torch.testing.assert_close(x.std(0), std, rtol=0.02, atol=0)
    log_p = density.log_prob(x)
    assert log_p.shape == (n,)
    assert -float(log_p.mean()) == pytest.approx(
        density.entropy(), abs=4 * float(log_p.std()) / n**0.5 + 1e-9
    )
    torch.testing.assert_close(density.sample(5, generator(3)), density.sample(5, generator(3)))


@pytest.mark.parametrize("name", ALL)
def test_even_samples_have_the_same_distribution_and_less_noise(name):
    density, n = ALL[name], 512
    errors = {
        even: np.mean(
            [
                (density.sample(n, generator(i), even).mean(0) - torch.tensor(density.mean))
                .square()
                .numpy()
                for i in range(20)
            ],
            axis=0,
        )
        for even in (False, True)
    }
    np.testing.assert_allclose(errors[False], np.square(density.std) / n, rtol=0.75)
    assert (errors[True] < 0.1 * errors[False]).all()
    even = density.sample(300, generator(1), even=True)
    assert energy_test(even, density.sample(300, generator(2)), 199).p_value > 0.05
    assert torch.equal(even, density.sample(300, generator(1), even=True))


def test_moons_by_scipys_integrator():
    moons, noise = TwoMoons(0.05), 0.05
    points = [(0.9, 0.4), (0.5, 0.25), (1.02, 0.0), (-1.1, 0.1)]

    def along(angle, x, y, sign):
        cx, cy = (math.cos(angle), math.sin(angle))
        cx, cy = (cx, cy) if sign > 0 else (1 - cx, 0.5 - cy)
        return math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * noise**2)) / (
            2 * math.pi * noise**2 * math.pi
        )

    for x, y in points:
        parts = [
            integrate.quad(along, 0, math.pi, (x, y, sign), epsabs=0, epsrel=1e-11, limit=500)[0]
            for sign in (1, -1)
        ]
        found = float(moons.log_prob(torch.tensor([[x, y]], dtype=torch.float64)))
        assert found == pytest.approx(math.log(sum(parts) / 2), abs=1e-8)


def test_mixture_is_that_of_torch_distributions():
    mixture = eight_gaussians()
    centres = torch.tensor(mixture.centres)
    parts = Independent(Normal(centres, mixture.scale), 1)
    theirs = MixtureSameFamily(Categorical(torch.ones(8)), parts)
    x = 3 * torch.randn(50, 2, generator=generator())
    torch.testing.assert_close(mixture.log_prob(x).float(), theirs.log_prob(x))


def test_modes_found():
    grid = grid_25()
    modes, share = grid.modes_found(grid.sample(5000, generator()))
    assert modes == 25
    assert share == pytest.approx(stats.chi2(2).cdf(9), abs=0.006)  # 98.9 %
    assert grid.modes_found(torch.tensor([[0.0, 0.0], [0.1, 0.1], [1.0, 1.0]])) == (1, 2 / 3)


def test_standardised_is_a_change_of_variables():
    density = Standardised(GaussianMixture(((0.0, 0.0), (3.0, 1.0)), 0.5))
    shift, scale = torch.tensor(density.density.mean), torch.tensor(density.density.std)
    x = torch.randn(20, 2, generator=generator())
    expected = density.density.log_prob(x * scale + shift) + scale.log().sum()
    torch.testing.assert_close(density.log_prob(x), expected.double(), rtol=1e-5, atol=1e-5)


def test_divergence_of_gaussians_in_closed_form():
    narrow, wide = GaussianMixture(((0.0, 0.0),), 1.0), GaussianMixture(((1.0, -2.0),), 2.0)
    expected = 2 * (math.log(2) + (1 + 0) / (2 * 4) - 0.5) + (1 + 4) / (2 * 4)
    assert divergence(narrow, wide.log_prob) == pytest.approx(expected, abs=1e-10)
    assert divergence(narrow, narrow.log_prob) == pytest.approx(0, abs=1e-12)


def test_best_gaussian_for_the_moons():
    moons = Standardised(TwoMoons(0.05))
    best = Gaussian.fit(moons.sample(200_000, generator()))
    cost = moons.entropy() + divergence(moons, best.log_prob)
    # The arcs' centres lie 1 and 1/2 - 4/pi apart, and within an arc nothing is correlated.
    correlation = 0.25 * (0.5 - 4 / math.pi) / math.prod(TwoMoons(0.05).std)
    expected = math.log(2 * math.pi * math.e) + 0.5 * math.log1p(-(correlation**2))
    assert cost == pytest.approx(expected, abs=1e-4)
    assert cost == pytest.approx(2.7255, abs=1e-4)


def test_normaliser_of_an_unnormalised_density():
    def energy(x):
        return x[:, 0].square() / 2 + 2 * (x[:, 1] - 1).square()

    grid = Grid((-9.0, -4.0), (9.0, 6.0), (72, 80))
    assert log_normaliser(lambda x: -energy(x), grid) == pytest.approx(
        math.log(2 * math.pi * 0.5), abs=1e-10
    )


def test_change_of_variables_example_of_the_book():
    """x1 in [1, 4], x2 in [0, 2] with density (x1 - 1) x2 / 9; z = ((x1 - 1)/3, x2/2)."""
    unit = Grid((0.0, 0.0), (1.0, 1.0), (400, 400))

    def substituted(z):
        x1, x2 = 3 * z[:, 0] + 1, 2 * z[:, 1]
        return ((x1 - 1) * x2 / 9).log()

    determinant = 1 / 6
    assert log_normaliser(substituted, unit) == pytest.approx(math.log(1 / 6), abs=1e-5)
    assert log_normaliser(lambda z: substituted(z) - math.log(determinant), unit) == pytest.approx(
        0, abs=1e-5
    )


# ---------------------------------------------------------------------------------------------
# Maximum likelihood
# ---------------------------------------------------------------------------------------------


def test_fitted_gaussian_is_scipys_and_no_other_is_likelier():
    x = torch.randn(200, 3, generator=generator()) @ torch.randn(3, 3, generator=generator(1))
    best = Gaussian.fit(x)
    theirs = stats.multivariate_normal(*stats.multivariate_normal.fit(x.double().numpy()))
    np.testing.assert_allclose(best.log_prob(x), theirs.logpdf(x.double().numpy()), rtol=1e-9)
    assert best.entropy() == pytest.approx(theirs.entropy())
    most = log_likelihood(best.log_prob, x)
    assert most == pytest.approx(-len(x) * best.entropy())
    for i in range(3):
        moved = Gaussian(
            tuple(m + 0.1 * (i == j) for j, m in enumerate(best.mean)), best.covariance
        )
        assert log_likelihood(moved.log_prob, x) < most
    again = Gaussian.fit(best.sample(50_000, generator(2)))
    np.testing.assert_allclose(again.covariance, best.covariance, rtol=0.05, atol=0.05)


def test_no_gaussian_for_points_on_a_line():
    line = torch.linspace(0, 1, 9)[:, None] * torch.tensor([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"9 points do not span their 2 dimensions"):
        Gaussian.fit(line)


def test_box_model_of_the_book():
    world = WorldMap()
    new_york, deep_sea = (40.7306, -73.9352), (11.3493, 142.1996)
    assert world.is_land(torch.tensor([new_york, deep_sea])).tolist() == [True, False]

    x = world.sample(500, generator())
    assert world.is_land(x).all()
    box = Box.fit(x)
    assert log_likelihood(box.log_prob, x) == pytest.approx(-500 * math.log(box.area))
    larger = Box(tuple(v - 1 for v in box.low), box.high)
    assert log_likelihood(larger.log_prob, x) < log_likelihood(box.log_prob, x)
    left_half = Box(box.low, (box.high[0], 0.0))
    assert log_likelihood(left_half.log_prob, x) == -math.inf

    accuracy, coverage = world.accuracy_and_coverage(box)
    drawn = box.sample(20_000, generator(1))
    assert float(world.is_land(drawn).double().mean()) == pytest.approx(accuracy, abs=0.015)
    land = world.sample(20_000, generator(2))
    assert float(box.contains(land).double().mean()) == pytest.approx(coverage, abs=0.01)
    assert 0.3 < accuracy < 0.6
    assert coverage > 0.95


def test_checkerboard_is_every_second_square():
    board = checkerboard()
    at = torch.tensor(
        [[-3.0, -3.0], [-3.0, -1.0], [-1.0, -1.0], [3.0, 3.0], [3.0, 1.0], [5.0, 5.0]]
    )
    assert board.contains(at).tolist() == [True, False, True, True, False, False]
    assert len(board.boxes) == 8
    assert board.area == 32
    np.testing.assert_allclose(board.std, 4 / math.sqrt(3))  # each axis alone is uniform
    x = board.sample(8000, generator())
    counts = torch.stack([box.contains(x).sum() for box in board.boxes])
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_excess_over_a_checkerboard_is_the_cross_entropy_less_the_entropy():
    """A Gaussian of its moments, in closed form; and one uniform over all sixteen squares."""
    board = checkerboard()
    normal = MixtureSameFamily(
        Categorical(torch.ones(1)),
        Independent(Normal(torch.zeros(1, 2), torch.full((1, 2), 4 / math.sqrt(3))), 1),
    )
    expected = math.log(2 * math.pi * 16 / 3) + 1 - math.log(32)
    assert divergence(board, normal.log_prob, 1.0) == pytest.approx(expected, abs=1e-4)
    whole = Box((-4.0, -4.0), (4.0, 4.0))
    assert divergence(board, whole.log_prob, 0.1) == pytest.approx(math.log(2), abs=1e-12)


def test_ring_has_eight_modes_apart():
    narrow = stats.norm(scale=0.1).entropy()
    assert ring().entropy() == pytest.approx(math.log(8) + 2 * narrow, abs=1e-9)
    assert {round(math.hypot(*c), 9) for c in ring().centres} == {2.0}


# ---------------------------------------------------------------------------------------------
# Two samples
# ---------------------------------------------------------------------------------------------


def test_energy_distance_by_loops():
    x = torch.randn(7, 2, generator=generator())
    y = torch.randn(5, 2, generator=generator(1)) + 0.5
    between = np.mean([[math.dist(a, b) for b in y.tolist()] for a in x.tolist()])
    within_x = np.mean([[math.dist(a, b) for b in x.tolist()] for a in x.tolist()])
    within_y = np.mean([[math.dist(a, b) for b in y.tolist()] for a in y.tolist()])
    found = energy_test(x, y, permutations=9).distance
    assert found == pytest.approx(2 * between - within_x - within_y, rel=1e-6)


def test_energy_distance_is_scipys_in_one_dimension():
    x, y = torch.randn(40, 1, generator=generator()), torch.rand(30, 1, generator=generator(1))
    theirs = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())  # the root of ours
    assert energy_test(x, y, permutations=1).distance == pytest.approx(theirs**2, rel=1e-5)


def test_energy_test_tells_equal_from_different():
    moons = TwoMoons(0.1)
    gaussian = Gaussian.fit(moons.sample(4000, generator()))
    x = moons.sample(500, generator(1))
    assert energy_test(x, gaussian.sample(500, generator(2)), 199).p_value <= 0.01
    levels = [
        energy_test(
            moons.sample(40, generator(100 + i)), moons.sample(40, generator(200 + i)), 99
        ).p_value
        for i in range(60)
    ]
    # Uniform if the distributions are equal; 60 p-values have a mean within 0.5 +- 0.15.
    assert abs(np.mean(levels) - 0.5) < 0.15
    assert energy_test(x[:50], x[:50], 99).p_value == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoMoons(0.0), "noise is 0.0; it must be a positive"),
        (lambda: GaussianMixture((), 1.0), "at least one centre"),
        (lambda: Box((0.0, 1.0), (1.0, 1.0)), "each low must be below its high"),
        (lambda: Grid((0.0, 0.0), (1.0, 1.0), (3, 0)), "at least one point"),
        (lambda: Boxes((Box((0.0, 0.0), (2.0, 2.0)), Box((1.0, 1.0), (3.0, 3.0)))), "overlap"),
        (lambda: TwoMoons().log_prob(torch.zeros(4, 3)), r"\(4, 3\); pass \(N, 2\)"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
