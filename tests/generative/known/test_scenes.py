"""The micro-world: counts by combinatorics, every scene read back, margins as they are derived."""

from __future__ import annotations

import math

import pytest
import torch

from generative.known import scenes


def test_the_numbers_of_scenes_are_those_of_combinatorics():
    counted = [len(scenes.one_object()), len(scenes.pairs()), len(scenes.equal_objects())]
    assert counted == [9 * 24, math.comb(9, 2) * 24**2, 24 * (9 + 36 + 84 + 126)]
    for listed in (scenes.pairs(), scenes.equal_objects()):
        assert len(listed.unique(dim=0)) == len(listed)
    assert ((scenes.pairs() != scenes.EMPTY).sum(1) == 2).all()


def test_equal_objects_are_equal():
    cells = scenes.equal_objects((2, 3))
    for scene in cells[:: len(cells) // 20].tolist():
        assert len({cell for cell in scene if cell != scenes.EMPTY}) == 1


def test_templates_have_the_areas_and_the_margin_of_the_world():
    known = scenes.templates()
    assert known.shape == (25, 3, 8, 8)
    areas = (known.amax(1) > 0).flatten(1).sum(1)
    assert areas.tolist() == [36] * 6 + [32] * 6 + [24] * 6 + [20] * 6 + [0]
    distance = torch.pdist(known.flatten(1).double())
    assert distance.min().item() == pytest.approx(1.7076, abs=5e-5)
    assert distance.min().item() / 2 / math.sqrt(192) == pytest.approx(0.0616, abs=5e-5)
    assert scenes.OBJECTS[7] == "green disc"
    torch.testing.assert_close(known[7].amax((1, 2)), torch.tensor([70, 190, 80]) / 255)


@pytest.mark.parametrize("border", [0, 4])
def test_every_pair_is_read_back_exactly(border):
    cells = scenes.pairs()[::7]
    pictures = scenes.draw(cells, border)
    assert pictures.shape == (len(cells), 3, 24 + 2 * border, 24 + 2 * border)
    reading = scenes.read(pictures, border)
    assert torch.equal(reading.cells, cells)
    assert reading.residual.max() == 0
    assert scenes.valid(pictures, border).all()


def test_a_cell_stands_where_its_index_says():
    cells = torch.full((1, 9), scenes.EMPTY)
    cells[0, 5] = 0
    picture = scenes.draw(cells)[0]
    assert (picture[:, 9:15, 17:23] > 0).all()
    assert (picture > 0).sum() == 3 * 36


def test_cells_are_read_up_to_the_margin_and_noise_is_no_scene():
    cells = scenes.pairs()[::311]
    random = torch.Generator().manual_seed(1)
    pictures = scenes.draw(cells)
    noise = torch.randn(pictures.shape, generator=random)
    noisy = scenes.read(pictures + 0.15 * noise)
    assert torch.equal(noisy.cells, cells)
    torch.testing.assert_close(noisy.residual.mean(), torch.tensor(0.15), atol=0.005, rtol=0)
    assert not scenes.valid(pictures + 0.15 * noise).any()
    assert scenes.valid(pictures + 0.01 * noise).all()
    # Half of the way between the two closest templates and a little more is read as the other.
    square, disc = scenes.templates()[1], scenes.templates()[7]
    for share, read in ((0.49, 1), (0.51, 7)):
        picture = scenes.draw(torch.full((1, 9), 1))
        picture[0, :, :8, :8] = torch.lerp(square, disc, share)
        assert scenes.read(picture).cells[0, 0] == read


def test_dirt_on_the_border_is_no_scene():
    pictures = scenes.draw(scenes.one_object()[:2], 4)
    pictures[1, :, :2] = 0.5
    assert scenes.valid(pictures, 4).tolist() == [True, False]


def test_letters_are_read_as_safely_as_objects():
    known = scenes.templates(letters=True)
    assert known.shape == (51, 3, 8, 8)
    assert torch.equal(known[:25], scenes.templates())
    distance = torch.cdist(known.flatten(1).double(), known.flatten(1).double())
    distance.fill_diagonal_(torch.inf)
    assert distance[scenes.LETTER :].min().item() > 2.3  # two white pixels
    cells = torch.arange(25, 52).clamp(max=50).view(3, 9)
    pictures = scenes.draw(cells, 4)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scenes.read(pictures + 0.1 * noise, 4, letters=True).cells, cells)
    assert scenes.valid(pictures, 4, letters=True).all()
    assert not scenes.valid(pictures, 4).any()


def test_a_letter_is_drawn_upright():
    lit = scenes.templates(letters=True)[scenes.LETTER + ord("f") - ord("a")].amax(0) > 0
    rows = ["".join(".#"[pixel] for pixel in row) for row in lit.tolist()]
    assert rows == [
        ".#####..",
        ".#......",
        ".#......",
        ".####...",
        ".#......",
        ".#......",
        ".#......",
        "........",
    ]


def test_agreement_by_hand():
    red_disc, red_cross, green_disc, empty = 6, 18, 7, 24
    rows = [
        [red_disc, red_disc, *[empty] * 7],  # as asked for
        [red_disc, red_cross, red_disc, *[empty] * 6],  # of one colour, but three
        [red_disc, green_disc, *[empty] * 7],  # of one shape
        [red_disc, *[empty] * 8],  # one object agrees with none
        [empty] * 9,
    ]
    pictures = scenes.draw(torch.tensor(rows))
    pictures[4] += 0.05
    found = scenes.agreement(pictures, torch.full((5,), 2))
    assert found == pytest.approx((2 / 5, 2 / 5, 2 / 5, 4 / 5))
    assert scenes.agreement(pictures, torch.tensor([2, 3, 2, 1, 0])).count == 1


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ValueError, match="row of 9"):
        scenes.draw(torch.zeros(2, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="from 0 to 51"):
        scenes.draw(torch.tensor([[0, 51, 0, 0, 0, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match=r"\(n, 3, 32, 32\)"):
        scenes.read(torch.zeros(1, 3, 24, 24), border=4)
    with pytest.raises(ValueError, match="cannot hold 10"):
        scenes.equal_objects((10,))
    assert scenes.draw(torch.empty(0, 9, dtype=torch.int64)).shape == (0, 3, 24, 24)
    assert scenes.valid(torch.empty(0, 3, 32, 32), 4).shape == (0,)
