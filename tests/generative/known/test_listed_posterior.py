"""Posteriors by listing, against sums over pictures by hand and another implementation."""

import math

import pytest
import torch

from generative.diffusion.exact import ListDenoiser
from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import count, fits, fitting
from generative.known.config import CaptionMix
from generative.known.listed_posterior import ListedCaptions, ListedPosterior

torch.set_num_threads(1)
SEVERAL = CaptionMix(one=1, one_placed=0, two=2, two_placed=0, relation=2, count=2)


@pytest.fixture(scope="module")
def world() -> ListedCaptions:
    return ListedCaptions(CaptionedScenes(SEVERAL))


def some_points(generator: torch.Generator) -> ListedPosterior:
    points = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return ListedPosterior(points, torch.tensor([[0, 1, 2], [3, 4, -1], [2, -1, -1]]))


def test_means_and_variances_are_sums_by_hand():
    generator = torch.Generator().manual_seed(0)
    exact = some_points(generator)
    assert exact.counts.tolist() == [3, 2, 1]
    x = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    log_snr = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    means, variances = exact.denoise(x, log_snr), exact.variance(x, log_snr)
    for row in range(3):
        signal = math.sqrt(1 / (1 + math.exp(-log_snr[row])))
        square = 1 / (1 + math.exp(log_snr[row]))
        those = [exact.points[k] for k in exact.rows[row].tolist() if k >= 0]
        weights = [
            math.exp(-float((x[row] - signal * z).square().sum()) / 2 / square) for z in those
        ]
        p = [weight / sum(weights) for weight in weights]
        mean = sum(share * z for share, z in zip(p, those, strict=True))
        spread = sum(
            share * float((z - mean).square().sum()) for share, z in zip(p, those, strict=True)
        )
        torch.testing.assert_close(means[row], mean)
        assert float(variances[row]) == pytest.approx(spread, abs=1e-12)
    assert float(variances[2]) == 0.0


def test_it_is_the_denoiser_of_a_list(world: ListedCaptions):
    """More captions than are in memory at a time, of lists of different lengths."""
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(len(world.cells), 4, generator=generator)
    which, picture = world.draw(300, generator)
    exact, log_snr = world.posterior(which, points), torch.full((300,), -0.5)
    x = points[picture] + torch.randn(300, 4, generator=generator)
    found = exact.denoise(x, log_snr)
    assert found.dtype == torch.float64
    for row in (0, 255, 256, 299):
        rows = fits(world.captions[which[row]], world.cells)
        even = torch.full((int(rows.sum()),), -math.log(int(rows.sum())), dtype=torch.float64)
        _, data = ListDenoiser(points[rows], even)(x[row : row + 1], log_snr[:1])
        torch.testing.assert_close(found[row], data[0].double(), rtol=1e-5, atol=1e-5)


def test_the_least_error_is_that_of_draws():
    generator = torch.Generator().manual_seed(2)
    few = some_points(generator)
    exact = ListedPosterior(few.points, few.rows[[0, 1]].repeat_interleave(20_000, 0))
    log_snr = torch.zeros(40_000, dtype=torch.float64)
    z, rate = exact.draw(generator), math.sqrt(0.5)
    x = rate * z + rate * torch.randn(z.shape, generator=generator, dtype=torch.float64)
    error = (exact.denoise(x, log_snr) - z).square().sum(1)
    # The difference has mean 0; the bound is five standard errors.
    gap = error - exact.variance(x, log_snr)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(len(gap))


def test_rows_are_the_pictures_that_fit(world: ListedCaptions):
    for number in range(0, len(world.captions), 211):
        text, rows = world.captions[number], world.rows[number]
        listed = world.cells[rows[rows >= 0]]
        assert len(listed) == count(text)
        torch.testing.assert_close(listed.unique(dim=0), fitting(text).unique(dim=0))
    assert world.rows.shape[1] == 126


def test_pairs_are_drawn_by_their_probabilities(world: ListedCaptions):
    generator = torch.Generator().manual_seed(3)
    assert float(world.probabilities.sum()) == pytest.approx(1)
    which, picture = world.draw(20_000, generator)
    assert bool((world.rows[which] == picture[:, None]).any(1).all())
    counts = (world.rows >= 0).sum(1)
    for number in (9, 27, 72, 84):
        wanted = float(world.probabilities[counts == number].sum())
        found = float((counts[which] == number).float().mean())
        assert abs(found - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / 20_000)
    pictures = world.pictures(picture[:3])
    assert pictures.shape == (3, 3, 24, 24)


def test_draws_are_even_over_a_list(world: ListedCaptions):
    generator = torch.Generator().manual_seed(4)
    number = world.captions.index("a red square left of a blue disc")
    points = torch.arange(len(world.cells), dtype=torch.float64)[:, None]
    drawn = world.posterior(torch.full((2700,), number), points).draw(generator)[:, 0].long()
    counts = torch.bincount(drawn, minlength=len(world.cells))[world.rows[number][:27]]
    assert int(counts.sum()) == 2700
    assert float(((counts - 100.0).square() / 100).sum()) < 26 + 5 * math.sqrt(2 * 26)


def test_what_cannot_be_listed_is_refused(world: ListedCaptions):
    points = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"got points \(2,\)"):
        ListedPosterior(torch.zeros(2), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="a list has no points"):
        ListedPosterior(points, torch.tensor([[0, 1], [-1, -1]]))
    with pytest.raises(ValueError, match="names point 2, and there are 2"):
        ListedPosterior(points, torch.tensor([[2]]))
    with pytest.raises(ValueError, match=r"give \(1, 3\) and \(1,\)"):
        ListedPosterior(points, torch.tensor([[0]])).denoise(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="got 2 points for"):
        world.posterior(torch.tensor([0]), points)
    with pytest.raises(ValueError, match="the mix has signs"):
        ListedCaptions(CaptionedScenes(CaptionMix(sign=1)))
