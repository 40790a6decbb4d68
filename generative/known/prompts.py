"""Prompts that ask for what text-to-image models find hard, with an exact judge.

DrawBench (Saharia et al. 2022, section 4.2) has 200 prompts in eleven categories, judged by people.
Of these the micro-world can pose six, and judge them without error:

    counting    three red discs                       colours    a violet cross
    places      a red square left of a blue disc      binding    a red square and a blue disc
    long        a red square at the top left and ...  spelling   a sign that says cat

    scores = judge(sample, PROMPTS, num_samples=8)    # sample: captions -> images
    for score in scores:
        print(score.category, score.accuracy.satisfied)

Every pair of prompts of the category `binding` differs in which colour belongs to which shape, so
that a model which draws the right words without their connection is right in every other of its
samples at best. Conflicting prompts, another category, fit no picture and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from generative.known.captions import part_of
from generative.known.scene_scores import Accuracy, accuracy, satisfied
from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = ["CATEGORIES", "PROMPTS", "Category", "CategoryScore", "Prompt", "judge"]

Category = Literal["counting", "colours", "places", "binding", "long", "spelling"]
CATEGORIES: tuple[Category, ...] = get_args(Category)


class Prompt(NamedTuple):
    """A caption to be drawn."""

    category: Category
    caption: str

    @property
    def new(self) -> bool:
        """True if the caption names what no caption of the part `train` does."""
        return part_of(self.caption) != "train"


_CAPTIONS: dict[Category, tuple[str, ...]] = {
    "counting": (
        "two red discs", "three red discs", "four red discs", "2 blue crosses", "3 green triangles",
        "4 white squares", "two yellow squares", "three violet crosses", "4 blue triangles",
        "three green crosses",
    ),
    "colours": (
        "a red square", "a green disc", "a blue triangle", "a yellow cross", "a violet square",
        "a white disc", "one red triangle", "a green square", "a violet disc", "a white cross",
    ),
    "places": (
        "a red square left of a blue disc", "a blue disc left of a red square",
        "a green cross right of a white triangle", "a violet square on top of a yellow disc",
        "a yellow disc on top of a violet square", "a white square below a red cross",
        "a blue triangle below a green triangle", "a red disc right of a red cross",
        "a yellow cross left of a blue square", "a blue disc right of a yellow square",
    ),
    "binding": (
        "a red square and a blue disc", "a blue square and a red disc",
        "a green triangle and a violet cross", "a violet triangle and a green cross",
        "a yellow disc and a white square", "a white disc and a yellow square",
        "a red cross and a green disc", "a green cross and a red disc",
        "a blue triangle and a violet square", "a violet triangle and a blue square",
    ),
    "long": (
        "a red square at the top left and a blue disc at the bottom right",
        "a blue disc at the top left and a red square at the bottom right",
        "a green cross in the middle and a white triangle at the top",
        "a violet square at the left and a yellow disc at the right",
        "a yellow disc at the left and a violet square at the right",
        "a white square at the bottom and a red cross at the bottom left",
        "a blue triangle at the top right and a green triangle at the right",
        "a red disc at the bottom right and a red cross in the middle",
        "a green square at the top and a blue cross at the bottom left",
        "a violet disc at the top right and a white disc at the left",
    ),
    "spelling": tuple(
        f"a sign that says {word}"
        for word in ("cat", "dog", "sun", "fish", "moon", "clock", "queen", "bag", "tree", "rope")
    ),
}  # fmt: skip
PROMPTS: tuple[Prompt, ...] = tuple(
    Prompt(category, caption) for category in CATEGORIES for caption in _CAPTIONS[category]
)
"""Ten prompts of each category; some name what training leaves out, see `Prompt.new`."""


class CategoryScore(NamedTuple):
    """Result of `judge` in a category."""

    category: str
    """ "all" for the last one, over all prompts."""
    accuracy: Accuracy
    right: dict[str, int]
    """By caption, samples that satisfy it."""


@checked
def judge(
    sample: Callable[[list[str]], Tensor],
    prompts: Sequence[Prompt] = PROMPTS,
    num_samples: Count = 8,
    border: int = 0,
    rows: Count = 64,
) -> list[CategoryScore]:
    """Let a model draw prompts, and tell by category how often the pictures fit.

    Args:
        sample: n captions -> pictures (n, 3, 24 + 2 border, 24 + 2 border), in [0, 1].
        prompts: what to draw; a model that never saw signs should be spared "spelling".
        num_samples: pictures for each prompt.
        border: black pixels around a scene.
        rows: captions that `sample` gets at a time.
    Returns:
        A score for each category that occurs, in the order of `CATEGORIES`, then one for all.
    Raises:
        ValueError: there are no prompts, or the pictures are of another shape or number.
    """
    if not prompts:
        raise ValueError("there are no prompts to judge by; give some of PROMPTS")
    asked = [prompt.caption for prompt in prompts for _ in range(num_samples)]
    parts = [sample(asked[first : first + rows]) for first in range(0, len(asked), rows)]
    pictures = torch.cat([part.detach().cpu() for part in parts])
    of_category = [prompt.category for prompt in prompts for _ in range(num_samples)]
    scores = []
    for category in (*CATEGORIES, "all"):
        kept = [row for row, name in enumerate(of_category) if category in (name, "all")]
        if kept:
            captions = [asked[row] for row in kept]
            scores.append(_score(category, pictures[kept], captions, border))
    return scores


def _score(category: str, pictures: Tensor, captions: list[str], border: int) -> CategoryScore:
    hits = satisfied(pictures, captions, border)
    right = dict.fromkeys(captions, 0)
    for caption, hit in zip(captions, hits.tolist(), strict=True):
        right[caption] += hit
    return CategoryScore(category, accuracy(pictures, captions, border), right)
