"""Redrawn digits: what stays as it was, and what moves how far."""

import math

import torch

from generative.pixelcnn.augment import redraw

torch.set_num_threads(1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(x: torch.Tensor) -> torch.Tensor:
    """Where the ink of each image lies on average, (N, 2): row, column."""
    rows, columns = (torch.arange(side, dtype=x.dtype) for side in x.shape[-2:])
    ink = x.sum((1, 2, 3))
    down, right = (x.sum((1, 3)) * rows).sum(1) / ink, (x.sum((1, 2)) * columns).sum(1) / ink
    return torch.stack([down, right], 1)


def bar(rows: slice, columns: slice) -> torch.Tensor:
    x = torch.zeros(1, 1, 16, 16)
    x[:, :, rows, columns] = 1
    return x


def test_nothing_moves_when_nothing_may():
    """Only corners lose a little: the smooth image is below one half in their outermost points."""
    x = bar(slice(3, 12), slice(5, 9))
    change = redraw(x, 17, turn=0, stretch=0, shift=0) - x
    assert {tuple(place) for place in change[0, 0].nonzero().tolist()} <= {
        (3, 5), (3, 8), (11, 5), (11, 8),
    }  # fmt: skip
    assert float(change.abs().max()) <= 1 / 16


def test_pixels_are_levels_and_a_seed_repeats_them():
    x = bar(slice(3, 12), slice(5, 9)).expand(50, -1, -1, -1)
    drawn = redraw(x, 17, generator=generator(0))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    torch.testing.assert_close(16 * drawn, (16 * drawn).round())
    assert torch.equal(drawn, redraw(x, 17, generator=generator(0)))
    assert len(drawn.unique(dim=0)) == 50  # each in its own way


def test_moves_are_as_long_as_they_may_be():
    """Uniform from -2 to 2 on either axis: deviation 4 / sqrt(12)."""
    x = bar(slice(5, 11), slice(6, 10)).expand(2000, -1, -1, -1)
    moved = centre(redraw(x, 17, 0, 0, 2.0, generator(0))) - centre(x)
    assert float(moved.abs().max()) < 2.2
    torch.testing.assert_close(moved.std(0), torch.full((2,), 4 / math.sqrt(12)), rtol=0.05, atol=0)
    torch.testing.assert_close(moved.mean(0), torch.zeros(2), rtol=0, atol=0.1)


def test_stretching_changes_the_sides_and_keeps_the_middle():
    x = bar(slice(4, 12), slice(4, 12)).expand(500, -1, -1, -1)
    drawn = redraw(x, 17, 0, 0.25, 0, generator(0))
    height, width = drawn[:, 0, :, 8].sum(1), drawn[:, 0, 8].sum(1)
    for side in (height, width):  # 8 / (1 + u) with u from -1/4 to 1/4
        assert 6 < float(side.min()) < 6.9
        assert 10 < float(side.max()) < 11
    assert abs(float(torch.corrcoef(torch.stack([height, width]))[0, 1])) < 0.15
    torch.testing.assert_close(centre(drawn), centre(x), rtol=0, atol=0.1)


def test_turning_keeps_the_ink():
    """A bar that is turned and sheared leans, and has as much ink as before."""
    x = bar(slice(3, 13), slice(7, 9)).expand(500, -1, -1, -1)
    drawn = redraw(x, 17, 0.3, 0, 0, generator(0))
    torch.testing.assert_close(drawn.sum((1, 2, 3)), x.sum((1, 2, 3)), rtol=0.15, atol=0)
    upper = centre(drawn[:, :, :8])[:, 1] - centre(drawn[:, :, 8:])[:, 1]
    assert float(upper.std()) > 0.5
    assert abs(float(upper.mean())) < 0.3
