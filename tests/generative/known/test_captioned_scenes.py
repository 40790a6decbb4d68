"""Pairs of captions and pictures: probabilities by listing every pair there is."""

from __future__ import annotations

import collections
import math

import pytest
import torch

from generative.known import captions as words
from generative.known import scenes
from generative.known.captioned_scenes import (
    HIDDEN,
    CaptionedScenes,
    CaptionMix,
    hidden_cells,
)
from generative.known.captions import captions_of, count, fits, fitting
from generative.known.scenes import CONTENTS, EMPTY, LETTER

torch.set_num_threads(1)

UNEVEN = CaptionMix(1, 2, 3, 1, 5, 2, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_listing(world: CaptionedScenes, row: torch.Tensor) -> float:
    """p(picture) by the captions of a scene, each with its probability."""
    known = captions_of(row, world.part)
    return sum(math.exp(world.log_prior(text)) / count(text) for text in known)


@pytest.mark.parametrize("part", words.PARTS)
def test_probabilities_of_pictures_and_of_captions_sum_to_one(part):
    world = CaptionedScenes(UNEVEN, part)
    _, log_prob = world.pictures()
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-9)
    prior = sum(world.weights[kind] for kind in world.weights)
    assert prior == pytest.approx(1)
    first, last = world.captions[0], world.captions[-1]
    assert words.part_of(first) == part or part == "all"
    assert world.log_prior(last) > -math.inf


@pytest.mark.parametrize("part", ["all", "train", "new-objects"])
def test_probability_of_a_picture_is_the_sum_over_its_captions(part):
    world = CaptionedScenes(UNEVEN, part)
    cells, log_prob = CaptionedScenes(UNEVEN, "all").pictures()
    rows = torch.linspace(0, len(cells) - 1, 30).long()
    found = world.log_prob(cells[rows]).exp()
    wanted = torch.tensor([by_listing(world, row) for row in cells[rows]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    assert world.log_prob(torch.full((1, 9), scenes.EMPTY)).item() == -math.inf
    assert len(log_prob) == len(cells)


def test_drawn_pictures_fit_their_captions_and_have_their_probabilities():
    world = CaptionedScenes(CaptionMix(1, 0, 0, 0, 0, 2), "train")
    texts, cells = world.draw(6000, generator())
    assert bool(torch.stack([fits(text, row[None]) for text, row in
                             zip(texts[:300], cells, strict=False)]).all())  # fmt: skip
    share = collections.Counter(words.parse(text).kind for text in texts)
    assert share["one"] / 6000 == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 6000))
    found = collections.Counter(texts)
    assert found["three red discs"] == pytest.approx(6000 * 2 / 3 / 120, abs=4 * math.sqrt(33))
    squares = [tuple(row) for text, row in zip(texts, cells.tolist(), strict=True)
               if text == "a red square"]  # fmt: skip
    assert len(set(squares)) == 9


def test_a_seed_gives_the_same_batch_and_a_border_its_frame():
    world = CaptionedScenes(border=4)
    images, texts = world.batch(5, generator(3))
    again, same = world.batch(5, generator(3))
    assert torch.equal(images, again)
    assert texts == same
    assert images.shape == (5, *world.image_shape) == (5, 3, 32, 32)
    cells = scenes.read(images, 4).cells
    assert words.matches(texts, cells).diagonal().all()
    assert world.batch(0)[0].shape == (0, 3, 32, 32)


def test_describing_draws_by_the_probability_of_the_caption_given_the_picture():
    world = CaptionedScenes(CaptionMix(0, 0, 1, 1, 4, 0), "train")
    row = fitting("a red square at the top left and a blue disc in the middle")
    known = captions_of(row[0], "train")
    texts = world.describe(row.expand(4000, 9), generator())
    p = world.log_likelihood(known, row)[:, 0].exp()
    assert float(p.sum()) == pytest.approx(1)
    shares = torch.tensor([texts.count(text) / 4000 for text in known]).double()
    torch.testing.assert_close(shares, p, rtol=0, atol=0.03)
    with pytest.raises(ValueError, match="no caption of part 'train'"):
        world.describe(torch.full((1, 9), scenes.EMPTY))


def test_scenes_of_given_captions_spread_over_all_that_fit():
    world = CaptionedScenes()
    cells = world.scenes(["two green squares"] * 500, generator())
    assert fits("two green squares", cells).all()
    assert len(cells.unique(dim=0)) == 36


def test_pointwise_is_what_bayes_says():
    world = CaptionedScenes(UNEVEN, "train")
    texts, cells = world.draw(30, generator(1))
    prior = torch.tensor([world.log_prior(text) for text in texts])[:, None]
    joint = torch.tensor([
        [math.exp(world.log_prior(text)) / count(text) * float(fits(text, row[None])[0])
         for row in cells] for text in texts
    ]).double()  # fmt: skip
    wanted = (joint / world.log_prob(cells).exp()).log()
    torch.testing.assert_close(world.log_likelihood(texts, cells), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(world.pointwise(texts, cells), wanted - prior, rtol=1e-6, atol=1e-6)


def test_a_mix_without_captions_is_refused():
    with pytest.raises(ValueError, match="no captions of the kinds with a weight"):
        CaptionedScenes(CaptionMix(), "new-words")
    with pytest.raises(ValueError, match="parts are all"):
        CaptionedScenes(part="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every weight is 0"):
        CaptionMix(0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="two is -1"):
        CaptionMix(two=-1)
    with pytest.raises(ValueError, match="0 or more pixels"):
        CaptionedScenes(border=-1)


def test_hidden_cells_by_counting():
    """Each row of its own caption; one that nothing fits is as if no cell were seen."""
    texts = ["a red square left of a blue disc", "two red discs", "two red discs"]
    scenes = [fitting(text) for text in texts]
    cells = torch.stack([rows[5] for rows in scenes])
    cells[0, 3:], cells[1, :5], cells[2] = HIDDEN, HIDDEN, 0
    found = hidden_cells(texts, cells)
    assert found.shape == (3, 9, 25)
    for row, seen, p in zip(scenes, cells.tolist(), found, strict=True):
        fit = [
            scene for scene in row.tolist()
            if all(a in (b, HIDDEN) for a, b in zip(seen, scene, strict=True))
        ] or row.tolist()  # fmt: skip
        for place in range(9):
            counts = [sum(scene[place] == thing for scene in fit) for thing in range(25)]
            expected = torch.tensor(counts, dtype=torch.float64) / len(fit)
            torch.testing.assert_close(p[place], expected)
    assert hidden_cells([], torch.empty(0, 9, dtype=torch.int64)).shape == (0, 9, 25)


def test_hidden_letters_of_a_sign():
    """A word of three letters stands in one of three rows: what is seen of one tells the rest."""
    text = "a sign that says cat"
    cells = torch.full((2, 9), CONTENTS)
    c, a, t = (LETTER + ord(letter) - ord("a") for letter in "cat")
    cells[1, 3] = c
    nothing, first = hidden_cells([text] * 2, cells, CONTENTS)
    for place in range(9):
        letter = (c, a, t)[place % 3]
        assert nothing[place, letter] == pytest.approx(1 / 3)
        assert nothing[place, EMPTY] == pytest.approx(2 / 3)
        assert first[place, letter if place // 3 == 1 else EMPTY] == 1
    with pytest.raises(ValueError, match="contents is 25, without letters; give 51"):
        hidden_cells([text], cells[:1])
