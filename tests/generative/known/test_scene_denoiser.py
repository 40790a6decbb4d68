"""The exact denoiser against a sum over pictures, against a mixture of points, and its floors."""

from __future__ import annotations

import math

import pytest
import torch

from generative.diffusion.exact import MixtureDenoiser
from generative.diffusion.samplers import denoising_path
from generative.known import scenes
from generative.known.captions import fitting
from generative.known.scene_denoiser import (
    SceneDenoiser,
    cell_posterior,
    floor,
    small_objects,
    small_posterior,
)
from generative.known.scene_scores import evenness

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(exact: SceneDenoiser, n: int, log_snr: float, seed: int = 0):
    rows = torch.randint(len(exact.cells), (n,), generator=generator(seed))
    x = exact.pictures(rows).double()
    signal, noise = (math.sqrt(1 / (1 + math.exp(side * log_snr))) for side in (-1, 1))
    eps = torch.randn(x.shape, generator=generator(seed + 1), dtype=torch.float64)
    return signal * x + noise * eps, torch.full((n,), log_snr, dtype=torch.float64), rows


@pytest.mark.parametrize("border", [0, 4])
def test_estimates_are_those_of_a_mixture_of_points(border):
    """A picture without spread is a part of a mixture; `MixtureDenoiser` sums over whole ones."""
    weights = torch.rand(126, generator=generator(), dtype=torch.float64).log().log_softmax(0)
    exact = SceneDenoiser(fitting("four red discs"), weights, 2.0, -1.0, border)
    means = exact.pictures(torch.arange(126)).flatten(1).double()
    points = MixtureDenoiser(means, torch.zeros(means.shape[1], dtype=torch.float64), weights)
    for log_snr in (-6.0, -2.0):
        x, level, _ = noisy(exact, 2, log_snr)
        noise, data = exact(x, level)
        wanted_noise, wanted = points(x.flatten(1), level)
        torch.testing.assert_close(data.flatten(1), wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(noise.flatten(1), wanted_noise, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            exact.data_variance(x, level),
            points.data_variance(x.flatten(1), level),
            atol=1e-4,
            rtol=1e-5,
        )
        p = exact.posterior(x, level)
        torch.testing.assert_close((p @ means).view_as(data), data, atol=1e-6, rtol=0)


def test_chunks_change_nothing(monkeypatch):
    exact = SceneDenoiser.of_caption("a red square and a blue disc")
    x, level, _ = noisy(exact, 5, -3.0)
    whole = exact(x, level)
    monkeypatch.setattr("generative.known.scene_denoiser.CHUNK", 144)
    for found, wanted in zip(exact(x, level), whole, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_without_noise_the_picture_is_known():
    exact = SceneDenoiser.pairs()
    x, level, rows = noisy(exact, 3, 4.0)
    assert torch.equal(exact.posterior(x, level).argmax(1), rows)
    data = exact(x.float(), level)[1]
    assert data.dtype == torch.float32
    torch.testing.assert_close(data, exact.pictures(rows), atol=1e-5, rtol=0)
    cells = exact.cell_posterior(x, level).argmax(2)
    assert torch.equal(cells, exact.cells[rows])


@pytest.mark.parametrize(
    ("caption", "table"),
    [
        ("", {-8: 0.1312, -6: 0.1272, -5: 0.1257, -4: 0.1012, -3: 0.0646, -2: 0.0185}),
        (
            "a red square and a blue disc",
            {-8: 0.1276, -6: 0.1245, -5: 0.1154, -4: 0.0895, -3: 0.0354, -2: 0.0016},
        ),
        (
            "a red square left of a blue disc",
            {-8: 0.1211, -6: 0.1139, -5: 0.1008, -4: 0.0657, -3: 0.0274, -2: 0.0010},
        ),
    ],
)
def test_floors_are_those_that_were_measured(caption, table):
    """The table holds squared errors of 48 pictures (400 with a caption), which vary by picture."""
    exact = SceneDenoiser.pairs().told(caption)
    measured, n = (48, 16) if not caption else (400, 100)
    for log_snr, wanted in table.items():
        found = floor(exact, log_snr, n, generator(1))
        x, level, rows = noisy(exact, n, log_snr, seed=2)
        errors = (exact(x, level)[1] - exact.pictures(rows)).square().mean((1, 2, 3))
        spread = float(errors.std()) / math.sqrt(measured)
        assert found.data == pytest.approx(wanted, abs=4 * (found.error + spread))
        # The exact variance and the squared error have one mean.
        assert found.data == pytest.approx(
            float(errors.mean()), abs=4 * float(errors.std()) / n**0.5
        )
        assert found.noise == pytest.approx(found.data * math.exp(log_snr))


def test_the_floor_without_signal_is_the_variance_of_the_data():
    cells = scenes.pairs()[::7]
    exact = SceneDenoiser.evenly(cells)
    variance = float(exact.pictures(torch.arange(len(cells))).double().var(0, correction=0).mean())
    assert floor(exact, -30.0, 2, generator()).data == pytest.approx(variance, rel=1e-4)
    every = SceneDenoiser.pairs()
    assert floor(every, -30.0, 1, generator()).data == pytest.approx(0.1501, abs=5e-5)


def test_a_caption_for_each_row():
    exact = SceneDenoiser.evenly(scenes.one_object())
    captions = ["a red square", "", "three red discs", "a red square"]
    x, level, _ = noisy(exact, 4, -3.0)
    level[1] = -1.0
    noise, data = exact.given(captions)(x, level)
    for row, caption in enumerate(captions):
        one = exact.told(caption)(x[row : row + 1], level[row : row + 1])
        torch.testing.assert_close(noise[row], one[0][0])
        torch.testing.assert_close(data[row], one[1][0])
    with pytest.raises(ValueError, match="3 pictures for 4 captions"):
        exact.given(captions)(x[:3], level[:3])


def test_small_cells_tell_as_much_as_was_measured():
    for side, noise, accuracy, entropy in (
        (2, 0.05, 0.952, 0.107), (2, 0.1, 0.810, 0.479), (2, 0.2, 0.459, 1.501),
        (1, 0.05, 0.692, None), (1, 0.1, 0.375, None), (1, 0.2, 0.175, None),
    ):  # fmt: skip
        things = torch.arange(24).repeat(200)
        cells = small_objects(side)[things]
        cells = cells + noise * torch.randn(cells.shape, generator=generator(2)).double()
        found = cell_posterior(cells, noise)
        assert float(found.accuracy.mean()) == pytest.approx(accuracy, abs=0.015)
        right = (found.probability.argmax(1) == things).double().mean()
        assert float(right) == pytest.approx(accuracy, abs=0.02)  # it is calibrated
        if entropy is not None:
            assert float(found.entropy.mean()) == pytest.approx(entropy, abs=0.02)
        torch.testing.assert_close(found.probability.sum(1), torch.ones(len(cells)).double())


def test_small_cells_of_some_objects_are_none_of_the_others():
    there = torch.arange(24) % 2 == 0
    cells = small_objects(2)[::2] + 0.1 * torch.randn(12, 3, 2, 2, generator=generator(3)).double()
    every, some = cell_posterior(cells, 0.1), cell_posterior(cells, 0.1, there)
    assert not some.probability[:, ~there].any()
    known = every.probability[:, there]
    torch.testing.assert_close(some.probability[:, there], known / known.sum(1, keepdim=True))


def test_samples_of_the_exact_denoiser_spread_over_all_pictures_that_fit():
    """Its errors are those of the steps alone, which are many near the levels that decide."""
    caption = "a red square left of a blue disc"
    exact = SceneDenoiser.of_caption(caption)
    noise = torch.randn(150, 3, 24, 24, generator=generator(5))
    levels = [*torch.linspace(-12, 6, 40).tolist(), math.inf]
    path = denoising_path(exact, noise, levels, eta=1.0, generator=generator(6))
    pictures = (list(path)[-1].x + 1) / 2
    found = evenness(pictures, caption)
    assert found.outside == 0
    assert found.reached == 27
    assert found.p_value > 0.001


def test_wrong_shapes_are_refused():
    exact = SceneDenoiser.evenly(scenes.one_object())
    with pytest.raises(ValueError, match=r"\(B, 3, 24, 24\)"):
        exact(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    with pytest.raises(ValueError, match="at least one scene"):
        SceneDenoiser.evenly(torch.empty(0, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="a weight for each"):
        SceneDenoiser(scenes.one_object(), torch.zeros(3))
    with pytest.raises(ValueError, match="give 1, 2, 4 or 8"):
        small_objects(3)
    with pytest.raises(ValueError, match=r"\(n, 3, side, side\)"):
        cell_posterior(torch.zeros(2, 1, 2, 2), 0.1)


def test_a_whole_small_picture_tells_what_each_cell_holds():
    """Against the density of every small picture, one by one."""
    some = scenes.pairs()[torch.randperm(20_736, generator=generator(4))[:40]]
    weights = torch.rand(40, generator=generator(5), dtype=torch.float64).log_softmax(0)
    small = torch.nn.functional.avg_pool2d(scenes.draw(some).double(), 4)
    noisy = small[:6] + 0.3 * torch.randn(6, 3, 6, 6, generator=generator(6)).double()
    tiles = noisy.unflatten(3, (3, 2)).unflatten(2, (3, 2)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    found = small_posterior(tiles, 0.3, some, weights)
    assert found.shape == (6, 9, 25)
    for row in range(6):
        wanted = torch.zeros(9, 25, dtype=torch.float64)
        for scene, picture, weight in zip(some, small, weights, strict=True):
            p = math.exp(float(weight) - float((noisy[row] - picture).square().sum()) / 2 / 0.3**2)
            for place in range(9):
                wanted[place, scene[place]] += p
        torch.testing.assert_close(found[row], wanted / wanted.sum(1, keepdim=True))


def test_one_cell_that_says_nothing_of_the_others_has_the_posterior_of_a_cell():
    row = torch.full((24, 9), scenes.EMPTY)
    row[:, 4] = torch.arange(24)
    even = torch.full((24,), -math.log(24), dtype=torch.float64)
    tiles = torch.zeros(5, 9, 3, 2, 2, dtype=torch.float64)
    tiles[:, 4] = small_objects(2)[:5] + 0.1 * torch.randn(5, 3, 2, 2, generator=generator(7))
    found = small_posterior(tiles, 0.1, row, even)
    torch.testing.assert_close(found[:, 4, :24], cell_posterior(tiles[:, 4], 0.1).probability)
    assert bool((found[:, 0, scenes.EMPTY] > 1 - 1e-12).all())
    with pytest.raises(ValueError, match=r"tiles are \(5, 3, 2, 2\)"):
        small_posterior(tiles[:, 4], 0.1, row, even)
