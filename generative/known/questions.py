"""Questions about scenes of the micro-world, each with its one right answer.

    answer("how many discs ?", cells)                  # "two"
    answer("what is left of the blue cross ?", cells)  # "a red square"
    questions(cells)                                   # every question with one answer, with it
    ask(scenes, generator)                             # a question and its answer for each scene
    blind_accuracy(scenes)                             # of the best guesses, without the scene

Kinds of questions, by example, with what they answer:

    how-many      how many objects ?  how many red discs ?                       zero to nine
    which-is      what is left of the blue cross ?  what is at the top left ?    a red disc, nothing
    where         where is the red disc ?                                        at the top left
    colour        what colour is the disc ?                                      red
    shape         what shape is the red object ?                                 disc
    yes-or-no     is there a red disc ?  is the red disc below the blue cross ?  yes, no

"the disc" asks for exactly one disc in the scene. Without it the question has no answer, and is not
asked.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from generative.known.captions import NUMBERS, PLACES, PLURALS, RELATIONS, WORDS
from generative.known.scenes import CELLS, EMPTY, OBJECTS, SIDE
from generative.known.sprites import COLOURS, SHAPES

__all__ = [
    "ANSWERS",
    "KINDS",
    "QUESTION_WORDS",
    "Question",
    "answer",
    "ask",
    "blind_accuracy",
    "questions",
]

KINDS = ("how-many", "which-is", "where", "colour", "shape", "yes-or-no")
NONE = "zero"
NOTHING = "nothing"
ANSWERS = (
    *(NONE, *NUMBERS),
    *(f"a {thing}" for thing in OBJECTS),
    *(NOTHING, *PLACES, *COLOURS, *SHAPES, "yes", "no"),
)
"""Every answer to any question."""
QUESTION_WORDS = tuple(
    dict.fromkeys(
        (
            *WORDS,
            *("how", "many", "object", "objects", "what", "is", "the", "where", "there", "colour"),
            *("shape", "?", NONE, NOTHING, "yes", "no"),
        )
    )
)
"""Every word of captions, questions and answers, besides what a sign says."""


class Question(NamedTuple):
    """A question about a scene and its answer."""

    kind: str
    """One of `KINDS`."""
    question: str
    answer: str


def answer(question: str, cells: Tensor) -> str:
    """Answer a question about one scene.

    Args:
        question: words between spaces, as `questions` writes them.
        cells: int64 (9,).
    Raises:
        ValueError: the question has no one answer in this scene, or is of no known form.
    """
    for known in questions(cells):
        if known.question == question:
            return known.answer
    raise ValueError(
        f'{question!r} has no one answer in a scene of {_told(cells)}: what it calls "the ..." '
        "must be there exactly once; see generative.known.questions for the forms"
    )


def ask(
    cells: Tensor, generator: torch.Generator | None = None, kinds: Sequence[str] = KINDS
) -> list[Question]:
    """Draw a question for each scene (n, 9): its kind evenly, then evenly among those of the kind.

    Raises:
        ValueError: there is no such kind, or a scene has no question of any of them.
    """
    chance = torch.rand(len(cells), 2, generator=generator).tolist()
    drawn = []
    for row, (u, v) in zip(cells, chance, strict=True):
        by_kind = _by_kind(row, kinds)
        those = by_kind[min(int(u * len(by_kind)), len(by_kind) - 1)]
        drawn.append(those[min(int(v * len(those)), len(those) - 1)])
    return drawn


def blind_accuracy(cells: Tensor, kinds: Sequence[str] = KINDS) -> dict[str, float]:
    """Accuracy of the best guesses without the scene, by the kind of question, and of all.

    A model that looks must be better. Scenes (n, 9) are equally likely, and asked about as `ask`
    does; the guess is the likeliest answer to each question. Takes about a millisecond a scene.

    Raises:
        ValueError: there is no such kind, or a scene has no question of any of them.
    """
    weights: dict[tuple[str, str], Counter[str]] = {}
    for row in cells:
        by_kind = _by_kind(row, kinds)
        for those in by_kind:
            for each in those:
                answers = weights.setdefault((each.kind, each.question), Counter())
                answers[each.answer] += 1 / len(by_kind) / len(those)  # type: ignore[assignment]
    right, asked = Counter(), Counter()
    for (kind, _), answers in weights.items():
        for name in (kind, "all"):
            right[name] += max(answers.values())
            asked[name] += answers.total()
    return {name: right[name] / asked[name] for name in asked}


def _by_kind(row: Tensor, kinds: Sequence[str]) -> list[list[Question]]:
    """Questions about a scene, in a list for each kind that has some."""
    unknown = set(kinds) - set(KINDS)
    if unknown or not kinds:
        raise ValueError(f"there is no kind {sorted(unknown)}; kinds are {', '.join(KINDS)}")
    known = questions(row)
    held = [[each for each in known if each.kind == kind] for kind in kinds]
    held = [those for those in held if those]
    if not held:
        raise ValueError(f"a scene of {_told(row)} has no question of the kinds {', '.join(kinds)}")
    return held


def questions(cells: Tensor) -> list[Question]:
    """List the questions that have one answer in a scene of objects, int64 (9,).

    Raises:
        ValueError: the scene holds letters, or is none.
    """
    if cells.shape != (CELLS,) or not 0 <= int(cells.min()) <= int(cells.max()) <= EMPTY:
        raise ValueError(f"cells are {cells.tolist()}; give one scene of objects, ({CELLS},)")
    places = {place: OBJECTS[thing] for place, thing in enumerate(cells.tolist()) if thing != EMPTY}
    return [
        *_how_many(places), *_which_is(places), *_where(places), *_looks(places),
        *_yes_or_no(places),
    ]  # fmt: skip


def _how_many(places: dict[int, str]) -> list[Question]:
    names = list(places.values())
    asked = {"objects": len(names)}
    asked |= {PLURALS[shape]: sum(shape in name for name in names) for shape in SHAPES}
    asked |= {f"{colour} objects": sum(colour in name for name in names) for colour in COLOURS}
    asked |= {
        f"{colour} {PLURALS[shape]}": names.count(f"{colour} {shape}")
        for colour, shape in itertools.product(COLOURS, SHAPES)
    }
    number = (NONE, *NUMBERS)
    return [Question("how-many", f"how many {what} ?", number[n]) for what, n in asked.items()]


def _which_is(places: dict[int, str]) -> list[Question]:
    found = [
        Question("which-is", f"what is {where} ?", _article(places.get(place)))
        for place, where in enumerate(PLACES)
    ]
    for relation, (place, name) in itertools.product(RELATIONS, _alone(places)):
        others = {other for at, other in places.items() if _stands(at, relation, place)}
        if len(others) < 2:
            text = f"what is {relation} the {name} ?"
            found.append(Question("which-is", text, _article(next(iter(others), None))))
    return found


def _where(places: dict[int, str]) -> list[Question]:
    return [
        Question("where", f"where is the {name} ?", PLACES[place]) for place, name in _alone(places)
    ]


def _looks(places: dict[int, str]) -> list[Question]:
    """Colours of shapes that occur once, shapes of colours that do."""
    found = []
    looks = [name.split() for name in places.values()]
    for colour, shape in looks:
        if sum(shape == other for _, other in looks) == 1:
            found.append(Question("colour", f"what colour is the {shape} ?", colour))
        if sum(colour == other for other, _ in looks) == 1:
            found.append(Question("shape", f"what shape is the {colour} object ?", shape))
    return found


def _yes_or_no(places: dict[int, str]) -> list[Question]:
    names = set(places.values())
    found = [Question("yes-or-no", f"is there a {name} ?", _yes(name in names)) for name in OBJECTS]
    for relation in RELATIONS:
        for (place, name), (other, second) in itertools.permutations(_alone(places), 2):
            text = f"is the {name} {relation} the {second} ?"
            found.append(Question("yes-or-no", text, _yes(_stands(place, relation, other))))
    return found


def _alone(places: dict[int, str]) -> list[tuple[int, str]]:
    """Places and names of the objects that occur once."""
    names = list(places.values())
    return [(place, name) for place, name in places.items() if names.count(name) == 1]


def _stands(place: int, relation: str, other: int) -> bool:
    rows, columns = place // SIDE - other // SIDE, place % SIDE - other % SIDE
    return {
        "left of": columns < 0, "right of": columns > 0, "on top of": rows < 0, "below": rows > 0,
    }[relation]  # fmt: skip


def _article(name: str | None) -> str:
    return f"a {name}" if name else NOTHING


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _told(cells: Tensor) -> str:
    names = [OBJECTS[thing] for thing in cells.tolist() if 0 <= thing < EMPTY]
    return ", ".join(names) or "nothing"
