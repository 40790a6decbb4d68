"""Scores of pictures: intervals and tests against SciPy, cases by hand."""

from __future__ import annotations

import pytest
import torch

from generative.known import scenes
from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import fitting
from generative.known.prompts import CATEGORIES, PROMPTS, judge
from generative.known.scene_scores import accuracy, evenness, satisfied, wilson

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 7), (480, 1000)])
def test_wilson_interval_is_scipys(hits, n):
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    found = wilson(hits, n)
    assert found.share == hits / n
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-7)


def test_wilson_refuses_what_is_no_share():
    for hits, n in ((3, 2), (0, 0)):
        with pytest.raises(ValueError, match="at least one trial"):
            wilson(hits, n)


def test_satisfied_by_hand():
    captions = ["a red square", "two red discs", "a red square", "a sign that says cat"]
    cells = torch.cat([fitting(text)[:1] for text in captions])
    pictures = scenes.draw(cells, 4)
    assert satisfied(pictures, captions, 4).all()
    swapped = [captions[i] for i in (1, 0, 2, 3)]
    assert satisfied(pictures, swapped, 4).tolist() == [False, False, True, True]
    pictures[0] += 0.1 * torch.rand(3, 32, 32, generator=generator())  # read, but no picture
    found = accuracy(pictures, captions, 4)
    assert (found.satisfied.share, found.rejected.share, found.n) == (0.75, 0.25, 4)
    assert not satisfied(pictures, captions, 4, letters=False)[3]
    with pytest.raises(ValueError, match="4 pictures and 1 captions"):
        satisfied(pictures, captions[:1], 4)


def test_even_samples_pass_and_others_do_not():
    stats = pytest.importorskip("scipy.stats")
    caption = "a red square left of a blue disc"
    cells = fitting(caption)
    even = cells[torch.randint(27, (400,), generator=generator())]
    pictures = torch.cat([scenes.draw(even), torch.rand(3, 3, 24, 24)])
    found = evenness(pictures, caption)
    counts = (even[:, None] == cells).all(2).sum(0).numpy()
    wanted = stats.chisquare(counts)
    assert found.chi_squared == pytest.approx(wanted.statistic)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert (found.degrees, found.reached, found.outside) == (26, 27, 3)
    assert found.p_value > 0.001
    # Two thirds of the samples are one third of the pictures.
    uneven = torch.cat([even[:130], cells[:9].repeat(30, 1)])
    assert evenness(scenes.draw(uneven), caption).p_value < 1e-6
    with pytest.raises(ValueError, match="at least 135 that fit: draw more"):
        evenness(pictures[:50], caption)


def test_prompts_are_captions_of_every_category():
    assert [sum(prompt.category == name for prompt in PROMPTS) for name in CATEGORIES] == [10] * 6
    assert len({prompt.caption for prompt in PROMPTS}) == 60
    assert all(len(fitting(prompt.caption)) for prompt in PROMPTS)
    new = {prompt.category for prompt in PROMPTS if prompt.new}
    assert new == {"colours", "places", "long", "spelling"}
    binding = [prompt.caption.split() for prompt in PROMPTS if prompt.category == "binding"]
    for one, other in zip(binding[::2], binding[1::2], strict=True):
        assert sorted(one) == sorted(other)


def test_the_judge_finds_the_right_pictures_and_no_others():
    world, asked = CaptionedScenes(border=4), []

    def sample(captions: list[str]) -> torch.Tensor:
        asked.append(len(captions))
        return scenes.draw(world.scenes(captions, generator()), 4)

    scores = judge(sample, num_samples=3, border=4, rows=50)
    assert asked == [50, 50, 50, 30]
    assert [score.category for score in scores] == [*CATEGORIES, "all"]
    assert all(score.accuracy.satisfied.share == 1 for score in scores)
    assert scores[-1].accuracy.n == 180
    assert set(scores[0].right.values()) == {3}

    binding = [prompt for prompt in PROMPTS if prompt.category == "binding"]
    first = [prompt.caption for prompt in binding[::2]]

    def words_without_connection(captions: list[str]) -> torch.Tensor:
        """Draws the first of two prompts that have the same words."""
        same = {tuple(sorted(text.split())): text for text in first}
        texts = [same[tuple(sorted(text.split()))] for text in captions]
        return scenes.draw(world.scenes(texts, generator()))

    scores = judge(words_without_connection, binding, num_samples=4)
    assert [score.category for score in scores] == ["binding", "all"]
    assert scores[0].accuracy.satisfied.share == 0.5
    assert scores[0].accuracy.rejected.share == 0
    with pytest.raises(ValueError, match="no prompts"):
        judge(sample, [])
