"""Binding in the micro-world: which colour belongs to which shape, and which object is where.

A model of words that knows which of them occur in a picture, and not which belong together, finds
the caption of a picture among most others. It fails where captions have the same words:

    exchanged("a red square left of a blue disc")
    # a blue square left of a red disc, a red disc left of a blue square, a blue disc left of ...
    object_at_place(similarity, 200, generator)       # shares of objects, colours, shapes
    bag_of_words()                                    # what a model of words reaches, 36.5 %
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from generative.known.captions import PLACES, Part, captions, parse, part_of
from generative.known.scenes import CELLS, EMPTY, OBJECTS, draw
from generative.known.sprites import COLOURS, SHAPES
from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = ["Binding", "bag_of_words", "exchanged", "object_at_place"]

PAIRS_OF_PLACES = ((0, 4), (2, 7), (5, 3), (8, 1))
"""Cells in question, and cells of the other object: every row and column is among them."""
Similarity = Callable[[Tensor, Sequence[str]], Tensor]
"""Pictures (n, 3, 24, 24) and m captions -> how well they fit, (n, m)."""


class Binding(NamedTuple):
    """Share of the answers that are right."""

    objects: float
    colours: float
    shapes: float


def exchanged(caption: str, part: Part = "train") -> tuple[str, ...]:
    """List the captions of two objects that have the same words and fit no picture in common.

    The colours, the shapes, or both are exchanged. Other kinds of captions have none.

    Args:
        part: captions of other parts are left out, so that none of what is held out is learnt.
    Raises:
        ValueError: it is no caption, see `generative.known.captions.parse`.
    """
    kind, words = parse(caption).kind, caption.lower().split()
    if kind not in ("two", "two-placed", "relation"):
        return ()
    colours, shapes = (
        [at for at, word in enumerate(words) if word in known] for known in (COLOURS, SHAPES)
    )
    changed = [_swap(words, colours)]
    if kind == "two" and words[shapes[0]] == words[shapes[1]]:
        return ()
    if kind != "two":  # where the places are free, exchanged shapes say what exchanged colours do
        changed += [_swap(words, shapes), _swap(_swap(words, colours), shapes)]
    found = dict.fromkeys(" ".join(each) for each in changed if each != words)
    return tuple(text for text in found if part in ("all", part_of(text)))


def _swap(words: Sequence[str], places: Sequence[int]) -> list[str]:
    """Words with those at two places exchanged."""
    first, second = places
    changed = list(words)
    changed[first], changed[second] = words[second], words[first]
    return changed


@checked
def object_at_place(
    similarity: Similarity,
    n: Count = 100,
    generator: torch.Generator | None = None,
    part: Part = "train",
    places: Sequence[tuple[int, int]] = PAIRS_OF_PLACES,
) -> Binding:
    """Ask which object stands at a place of pictures of two objects.

    The answer is the caption "a ... at the top left and a ... in the middle" that fits a picture
    best, of the 576 that name any two objects at its two places.

    Args:
        similarity: see `Similarity`.
        n: pictures for each pair of places.
        generator: of the objects.
        part: objects are those that captions of this part name.
        places: cell in question and cell of the other object.
    """
    named = _named(part)
    right = torch.zeros(3)
    for here, there in places:
        texts = [
            f"a {a} {PLACES[here]} and a {b} {PLACES[there]}" for a in OBJECTS for b in OBJECTS
        ]
        drawn = named[torch.randint(len(named), (n, 2), generator=generator)]
        cells = torch.full((n, CELLS), EMPTY)
        cells[:, here], cells[:, there] = drawn[:, 0], drawn[:, 1]
        answers = similarity(draw(cells), texts).argmax(1).cpu() // len(OBJECTS)
        right += _right(answers, drawn[:, 0]).float().sum(0)
    return Binding(*(right / (n * len(places))).tolist())


def _right(answers: Tensor, objects: Tensor) -> Tensor:
    """Tell where objects, their colours and their shapes are equal, bool (n, 3)."""
    colours = answers % len(COLOURS) == objects % len(COLOURS)
    shapes = answers // len(COLOURS) == objects // len(COLOURS)
    return torch.stack([colours & shapes, colours, shapes], 1)


def bag_of_words(part: Part = "all") -> Binding:
    """Answers of a model that knows the words of a picture and not which belong together.

    It guesses evenly among the captions of the same words. Of all objects a colour is then right in
    1/2 of the pictures, or always where both have it: 1/2 + 1/2 1/6 = 58.3 %; a shape in
    1/2 + 1/2 1/4 = 62.5 %; and both, which are independent, in 36.5 %.

    Args:
        part: objects are those that captions of this part name.
    """
    named = _named(part)
    first, second = torch.cartesian_prod(named, named).T
    colours, shapes = (
        1 / 2 + (kind(first) == kind(second)).double() / 2
        for kind in (lambda x: x % len(COLOURS), lambda x: x // len(COLOURS))
    )
    return Binding(*(float(x.mean()) for x in (colours * shapes, colours, shapes)))


def _named(part: Part) -> Tensor:
    """Objects that captions of a part name alone."""
    return torch.tensor([parse(text).objects[0] for text in captions("one", part)]).unique()
