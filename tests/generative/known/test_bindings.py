"""Binding: exchanged captions by brute force, and what a bag of words answers."""

from collections import Counter

import pytest
import torch

from generative.known.bindings import bag_of_words, exchanged, object_at_place
from generative.known.captions import HELD_OUT_OBJECTS, captions, fits, fitting
from generative.known.scenes import EMPTY, OBJECTS, read
from generative.known.sprites import COLOURS, SHAPES

torch.set_num_threads(1)


def some(kind, step: int) -> tuple[str, ...]:
    return captions(kind, "train")[::step]


@pytest.mark.parametrize(("kind", "step"), [("two", 37), ("two-placed", 2731), ("relation", 131)])
def test_exchanged_captions_have_the_same_words_and_no_picture_in_common(kind, step):
    most = 0
    for text in some(kind, step):
        found = exchanged(text)
        most = max(most, len(found))
        for other in found:
            assert Counter(other.split()) == Counter(text.split())
            assert not fits(other, fitting(text)).any()
            assert not any(name in other for name in HELD_OUT_OBJECTS)
    assert most == (1 if kind == "two" else 3)


def test_examples():
    assert set(exchanged("a red square left of a blue disc")) == {
        "a blue square left of a red disc",
        "a red disc left of a blue square",
        "a blue disc left of a red square",
    }
    assert exchanged("a red square and a blue disc") == ("a blue square and a red disc",)
    assert exchanged("a red square and a red disc") == ()
    assert exchanged("three red discs") == ()
    held = exchanged("a green disc and a red square", "all")
    assert held == ("a red disc and a green square",)
    assert exchanged("a green disc and a red square") == ()


def test_a_bag_of_words_by_hand():
    found = bag_of_words()
    assert found.colours == pytest.approx(7 / 12)
    assert found.shapes == pytest.approx(5 / 8)
    assert found.objects == pytest.approx(7 / 12 * 5 / 8)
    assert found.objects == pytest.approx(0.365, abs=1e-3)
    assert 0.35 < bag_of_words("train").objects < 0.38


def test_who_sees_everything_answers_everything():
    def similarity(x, texts):
        cells = read(x).cells
        return torch.stack([fits(text, cells) for text in texts], 1).float()

    found = object_at_place(similarity, 10, torch.Generator().manual_seed(0), places=((0, 4),))
    assert found == (1.0, 1.0, 1.0)


def test_who_sees_only_words_answers_as_a_bag_of_words():
    generator, words = torch.Generator().manual_seed(0), (*COLOURS, *SHAPES)

    def counts(texts):
        return torch.tensor([[text.split().count(word) for word in words] for text in texts])

    def similarity(x, texts):
        told = [" ".join(OBJECTS[i] for i in row[row < EMPTY].tolist()) for row in read(x).cells]
        common = torch.minimum(counts(told)[:, None], counts(texts)).sum(2)
        return common + 0.1 * torch.rand(common.shape, generator=generator)

    found = object_at_place(similarity, 240, generator, places=((2, 7),))
    for ours, exact in zip(found, bag_of_words("train"), strict=True):
        assert abs(ours - exact) < 4 * (exact * (1 - exact) / 240) ** 0.5
