"""Captions of the micro-world, each with the exact list of the pictures that fit it.

A caption tells everything that its picture holds. Seven kinds are known, by example, with the
number of pictures that fit:

    one            a red square                                                            9
    one-placed     a red square at the top left                                            1
    two            a red square and a blue disc                                           72
    two-placed     a red square at the top left and a blue disc in the middle              1
    relation       a red square left of a blue disc; right of, on top of, below           27
    count          two red discs, three red discs, 4 red discs                   36, 84, 126
    sign           a sign that says cat                               3 of up to three letters

"left of" asks for a smaller column in any rows, "on top of" for a smaller row in any columns.

    cells = fitting("three red discs")           # (84, 9), scenes of generative.known.scenes
    fits("three red discs", cells).all()         # True
    entropy("three red discs")                   # ln 84 = 4.43 nats: no model's loss is lower
    captions_of(cells[0])                        # ("three red discs", "3 red discs")

Four of the 24 objects and one family of relations are held out, to be tested as new combinations of
known words: `captions("relation", "train")` leaves them out, `captions("relation", "new-objects")`
and `"new-relation"` hold nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Literal, NamedTuple, NoReturn, get_args

import torch
from torch import Tensor

from generative.known.letters import LETTERS, SIGN_WORDS
from generative.known.scenes import CELLS, EMPTY, LETTER, OBJECTS, SIDE
from generative.known.sprites import COLOURS, SHAPES

__all__ = [
    "HELD_OUT_OBJECTS",
    "HELD_OUT_RELATION",
    "HELD_OUT_WORDS",
    "KINDS",
    "NUMBERS",
    "PARTS",
    "PLACES",
    "PLURALS",
    "RELATIONS",
    "WORDS",
    "Caption",
    "Kind",
    "Part",
    "captions",
    "captions_of",
    "count",
    "entropy",
    "fits",
    "fitting",
    "matches",
    "paraphrases",
    "parse",
    "part_of",
]

Kind = Literal["one", "one-placed", "two", "two-placed", "relation", "count", "sign"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Part = Literal["all", "train", "new-objects", "new-relation", "new-words"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Parts of the captions: `train` has none of what is held out; the last three have nothing else,
and `new-relation` has no held-out object besides."""

PLACES = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
"""Names of the nine cells, row by row."""
RELATIONS = ("left of", "on top of", "right of", "below")
"""The last two say the same as the first two, with the objects exchanged."""
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
"""Plural of each shape."""
MOST = 4
"""Largest number in captions that are drawn; `parse` knows numbers up to nine."""

HELD_OUT_OBJECTS = ("green square", "violet disc", "yellow triangle", "white cross")
"""Objects that no caption of the part `train` names: each shape once, in four colours."""
HELD_OUT_RELATION = ("left of", "yellow", "blue")
"""Relation, colour, colour that no caption of the part `train` tells, in any shapes or wording."""
HELD_OUT_WORDS = SIGN_WORDS[4::10]
"""Words of signs that no caption of the part `train` spells."""

WORDS = tuple(
    dict.fromkeys(
        [
            *("a", "and", *COLOURS, *SHAPES, *PLURALS.values()),
            *(word for phrase in (*RELATIONS, *PLACES) for word in phrase.split()),
            *(*NUMBERS, *map(str, range(1, 1 + len(NUMBERS)))),
            *("sign", "that", "says"),
        ]
    )
)
"""Every word of a caption, besides what a sign says."""

_SIGN = ("a", "sign", "that", "says")


class Caption(NamedTuple):
    """Meaning of a caption, as `parse` reads it."""

    kind: Kind
    objects: tuple[int, ...]
    """Objects as cells hold them (letters of a sign), the one that is left of or on top of the
    other first."""
    places: tuple[tuple[int, ...], ...]
    """Cells in which these objects may stand: one row for each way, one cell for each object."""
    relation: str = ""
    """ "left of" or "on top of"."""


# ---------------------------------------------------------------------------------------------
# From a caption to its pictures
# ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=2**17)
def parse(caption: str) -> Caption:
    """Read a caption.

    Args:
        caption: words in any case, between spaces.
    Raises:
        ValueError: a word is unknown, or the words are no caption; says what could stand there.
    """
    words = tuple(caption.lower().split())
    if words[:4] == _SIGN and len(words) == 5:
        return _parse_sign(words[4])
    for word in words:
        if word not in WORDS:
            raise ValueError(
                f"{caption!r}: the micro-world has no word {word!r}; it knows {', '.join(WORDS)}"
            )
    return _Reader(caption, words).caption()


def fitting(caption: str) -> Tensor:
    """List all scenes that fit a caption, int64 (n, 9), each once.

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    return _fitting(caption).clone()


def fits(caption: str, cells: Tensor) -> Tensor:
    """Tell which scenes (n, 9) fit a caption, bool (n,).

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    wanted = parse(caption)
    found = torch.zeros(len(cells), dtype=torch.bool, device=cells.device)
    # A scene of so many objects is compared with each way to place them.
    rows = ((cells != EMPTY).sum(1) == len(wanted.objects)).nonzero()[:, 0]
    if len(rows):
        places = torch.tensor(wanted.places, device=cells.device)
        objects = torch.tensor(wanted.objects, device=cells.device)
        found[rows] = (cells[rows][:, places] == objects).all(2).any(1)
    return found


def matches(texts: Sequence[str], cells: Tensor) -> Tensor:
    """Tell which of n captions fit which of m scenes (m, 9), bool (n, m).

    Raises:
        ValueError: a text is no caption, see `parse`.
    """
    rows = {text: fits(text, cells) for text in dict.fromkeys(texts)}
    empty = torch.empty(0, len(cells), dtype=torch.bool, device=cells.device)
    return torch.stack([rows[text] for text in texts]) if len(texts) else empty


def count(caption: str) -> int:
    """Count the scenes that fit a caption, without listing them.

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    kind, objects, places, _ = parse(caption)
    # Two equal objects "a red disc and a red disc" can be exchanged, unless a relation tells them
    # apart. Places that are given are one way.
    halved = kind == "two" and objects[0] == objects[1]
    return len(places) // (2 if halved else 1)


def entropy(caption: str) -> float:
    """Entropy in nats of the scene, given a caption: ln of the number that fit.

    It is the least loss of any model of the scene's cells, or of codes that tell them apart.

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    return math.log(count(caption))


@lru_cache(maxsize=2**12)
def _fitting(caption: str) -> Tensor:
    wanted = parse(caption)
    places = torch.tensor(wanted.places)
    scenes = torch.full((len(places), CELLS), EMPTY)
    scenes.scatter_(1, places, torch.tensor(wanted.objects).expand_as(places))
    return scenes if count(caption) == len(scenes) else scenes.unique(dim=0)


class _Reader:
    """Reads the words of a caption from left to right."""

    def __init__(self, caption: str, words: tuple[str, ...]):
        self.text, self.words, self.at = caption, words, 0

    def caption(self) -> Caption:
        number = self.one_of(_COUNTS, "")
        if number:
            return self.equal_objects(_COUNTS[number])
        first, place = self.thing(), self.one_of(PLACES, "")
        if place:
            return self.placed(first, PLACES.index(place))
        if self.ends():
            return Caption("one", (first,), _ways("", 1))
        join = self.one_of(("and", *RELATIONS))
        both = first, self.thing()
        self.end()
        if join == "and":
            return Caption("two", both, _ways("", 2))
        if join in ("right of", "below"):
            join, both = _EXCHANGED[join], both[::-1]
        return Caption("relation", both, _ways(join, 2), join)

    def equal_objects(self, number: int) -> Caption:
        colour = self.one_of(COLOURS)
        shapes = {shape if number == 1 else PLURALS[shape]: shape for shape in SHAPES}
        thing = OBJECTS.index(f"{colour} {shapes[self.one_of(shapes)]}")
        self.end()
        places = tuple(itertools.combinations(range(CELLS), number))
        return Caption("one" if number == 1 else "count", (thing,) * number, places)

    def placed(self, first: int, place: int) -> Caption:
        if self.ends():
            return Caption("one-placed", (first,), ((place,),))
        self.one_of(("and",))
        second, other = self.thing(), PLACES.index(self.one_of(PLACES))
        self.end()
        if other == place:
            raise ValueError(f"{self.text!r} puts two objects {PLACES[place]}; give two places")
        return Caption("two-placed", (first, second), ((place, other),))

    def thing(self) -> int:
        self.one_of(("a",))
        return OBJECTS.index(f"{self.one_of(COLOURS)} {self.one_of(SHAPES)}")

    def one_of(self, phrases: Iterable[str], otherwise: str | None = None) -> str:
        """Read the longest of some phrases that stands here.

        Raises:
            ValueError: none does, and there is nothing to return otherwise.
        """
        for phrase, words in _longest_first(tuple(phrases)):
            if self.words[self.at : self.at + len(words)] == words:
                self.at += len(words)
                return phrase
        if otherwise is None:
            self.refuse(", ".join(phrases))
        return otherwise

    def ends(self) -> bool:
        return self.at == len(self.words)

    def end(self) -> None:
        if not self.ends():
            self.refuse("nothing more")

    def refuse(self, wanted: str) -> NoReturn:
        so_far = " ".join(self.words[: self.at]) or "the beginning"
        found = repr(self.words[self.at]) if not self.ends() else "the end"
        raise ValueError(
            f"{self.text!r} is no caption of the micro-world: after {so_far!r} stands {found}, and "
            f"what can stand there is: {wanted}"
        )


_COUNTS = {word: i + 1 for i, word in enumerate(NUMBERS)} | {
    str(i + 1): i + 1 for i in range(len(NUMBERS))
}
_EXCHANGED: dict[str, str] = dict(zip(RELATIONS, RELATIONS[2:] + RELATIONS[:2], strict=True))


@cache
def _longest_first(phrases: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(phrase, tuple(phrase.split())) for phrase in sorted(phrases, key=len, reverse=True)]


@cache
def _ways(relation: str, number: int) -> tuple[tuple[int, ...], ...]:
    """Cells of so many different objects, in relation "left of", "on top of" or none."""
    ways = itertools.permutations(range(CELLS), number)
    if not relation:
        return tuple(ways)
    axis = (lambda cell: cell % SIDE) if relation == "left of" else (lambda cell: cell // SIDE)
    return tuple(way for way in ways if axis(way[0]) < axis(way[1]))


def _parse_sign(word: str) -> Caption:
    """A word stands in neighbouring cells of one row; a longer one begins at the left and goes on
    in the next rows."""
    if len(word) > CELLS or not set(word) <= set(LETTERS):
        raise ValueError(
            f"a sign cannot say {word!r}; give a word of 1 to {CELLS} letters from a to z"
        )
    rows = math.ceil(len(word) / SIDE)
    columns = SIDE - len(word) + 1 if rows == 1 else 1
    starts = [row * SIDE + column for row in range(SIDE - rows + 1) for column in range(columns)]
    places = tuple(tuple(range(start, start + len(word))) for start in starts)
    return Caption("sign", tuple(LETTER + LETTERS.index(letter) for letter in word), places)


# ---------------------------------------------------------------------------------------------
# All captions
# ---------------------------------------------------------------------------------------------


def captions(kind: Kind, part: Part = "all") -> tuple[str, ...]:
    """List all captions of a kind, in every wording; of two objects, those of different ones.

    Args:
        part: see `PARTS`.
    Raises:
        ValueError: there is no such kind or part.
    """
    if kind not in KINDS or part not in PARTS:
        raise ValueError(
            f"got kind {kind!r} and part {part!r}; kinds are {', '.join(KINDS)}, parts are "
            f"{', '.join(PARTS)}"
        )
    return _captions(kind, part)


@cache
def _captions(kind: Kind, part: Part) -> tuple[str, ...]:
    if kind == "sign":
        words = [word for word in SIGN_WORDS if part in ("all", _part_of_word(word))]
        return tuple(f"{' '.join(_SIGN)} {word}" for word in words)

    def belongs(names: Sequence[str], relation: str = "") -> bool:
        return part == "all" or _part_of(names, relation) == part

    things = [name for name in OBJECTS if belongs((name,))]
    pairs = [pair for pair in itertools.permutations(OBJECTS, 2) if belongs(pair)]
    if kind == "one":
        return tuple(f"{a} {thing}" for thing in things for a in ("a", "one", "1"))
    if kind == "one-placed":
        return tuple(f"a {thing} {place}" for thing in things for place in PLACES)
    if kind == "two":
        return tuple(f"a {a} and a {b}" for a, b in pairs)
    if kind == "two-placed":
        places = list(itertools.permutations(PLACES, 2))
        return tuple(f"a {a} {here} and a {b} {there}" for a, b in pairs for here, there in places)
    if kind == "relation":
        return tuple(
            text
            for pair in itertools.permutations(OBJECTS, 2)
            for relation in RELATIONS[:2]
            if belongs(pair, relation)
            for text in _both_ways(pair, relation)
        )
    numbers = [word for n in range(2, MOST + 1) for word in (NUMBERS[n - 1], str(n))]
    return tuple(
        f"{number} {colour} {PLURALS[shape]}"
        for colour, shape in map(str.split, things)
        for number in numbers
    )


def part_of(caption: str) -> Part:
    """Name the part, besides "all", to which a caption belongs.

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    kind, objects, _, relation = parse(caption)
    if kind == "sign":
        return _part_of_word(caption.split()[-1].lower())
    return _part_of([OBJECTS[thing] for thing in objects], relation)


def _part_of_word(word: str) -> Part:
    return "new-words" if word in HELD_OUT_WORDS else "train"


def _part_of(names: Sequence[str], relation: str = "") -> Part:
    if any(name in HELD_OUT_OBJECTS for name in names):
        return "new-objects"
    told = (relation, *(name.split()[0] for name in names))
    return "new-relation" if told == HELD_OUT_RELATION else "train"


def _both_ways(names: Sequence[str], relation: str) -> list[str]:
    first, second = (f"a {name}" for name in names)
    return [f"{first} {relation} {second}", f"{second} {_EXCHANGED[relation]} {first}"]


def paraphrases(caption: str) -> tuple[str, ...]:
    """List the captions of the same kind that fit the same scenes, the caption included.

    The order of two objects with "and"; "left of" and "right of" exchanged; a number as a word or
    as a digit.

    Raises:
        ValueError: it is no caption, see `parse`.
    """
    kind, objects, places, relation = parse(caption)
    if kind == "sign":
        return (caption,)
    names = [OBJECTS[thing] for thing in objects]
    if kind == "one":
        found = [f"{a} {names[0]}" for a in ("a", "one", "1")]
    elif kind == "count":
        colour, shape = names[0].split()
        number = len(objects)
        found = [f"{n} {colour} {PLURALS[shape]}" for n in (NUMBERS[number - 1], number)]
    elif kind == "relation":
        found = _both_ways(names, relation)
    else:
        told = [f"a {name}" for name in names]
        if kind != "two":
            told = [f"{a} {PLACES[place]}" for a, place in zip(told, places[0], strict=True)]
        found = [" and ".join(order) for order in (told, told[::-1])]
    return tuple(dict.fromkeys(found))


def captions_of(cells: Tensor, part: Part = "all") -> tuple[str, ...]:
    """List the captions, in every wording, that fit one scene: equal objects are counted.

    Nothing describes an empty scene, or one of three different objects.

    Args:
        cells: int64 (9,).
        part: leaves out the captions of other parts.
    """
    return tuple(text for text in _of_scene(cells) if part in ("all", part_of(text)))


def _of_scene(cells: Tensor) -> list[str]:
    """All captions that fit one scene."""
    places = (cells != EMPTY).nonzero()[:, 0].tolist()
    objects = cells[places].tolist()
    if objects and min(objects) >= LETTER:
        text = f"{' '.join(_SIGN)} {''.join(LETTERS[letter - LETTER] for letter in objects)}"
        return [text] if tuple(places) in parse(text).places else []
    if not objects or max(objects) >= LETTER:
        return []
    names = [f"a {OBJECTS[thing]}" for thing in objects]
    if len(objects) == 1:
        return [*paraphrases(names[0]), f"{names[0]} {PLACES[places[0]]}"]
    if len(set(objects)) == 1:
        colour, shape = OBJECTS[objects[0]].split()
        return [*paraphrases(f"{NUMBERS[len(objects) - 1]} {colour} {PLURALS[shape]}")]
    if len(objects) > 2:
        return []
    told = [f"{a} {PLACES[place]}" for a, place in zip(names, places, strict=True)]
    found = [*paraphrases(" and ".join(names)), *paraphrases(" and ".join(told))]
    for relation in RELATIONS[:2]:
        for order in ((0, 1), (1, 0)):
            if (places[order[0]], places[order[1]]) in _ways(relation, 2):
                found += _both_ways([OBJECTS[objects[i]] for i in order], relation)
    return found
