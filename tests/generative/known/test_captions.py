"""Captions of the micro-world: every list of pictures against a reading of each picture by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from generative.known import captions as words
from generative.known import scenes
from generative.known.captions import captions, captions_of, count, entropy, fits, fitting, parse
from generative.known.letters import SIGN_WORDS

torch.set_num_threads(1)

EVERY = torch.cat([scenes.equal_objects(range(1, 5)), scenes.pairs()]).unique(dim=0)


def found(row: list[int]) -> dict[int, str]:
    return {place: scenes.OBJECTS[cell] for place, cell in enumerate(row) if cell != scenes.EMPTY}


def placed(row: list[int], test) -> bool:
    """True if a scene of two objects passes a test of (name, row, column) in one of two orders."""
    things = [(name, place // 3, place % 3) for place, name in found(row).items()]
    return len(things) == 2 and any(test(*both) for both in itertools.permutations(things))


BY_HAND = {
    "a red square": (9, lambda row: [*found(row).values()] == ["red square"]),
    "1 red square": (9, lambda row: [*found(row).values()] == ["red square"]),
    "a red square at the bottom left": (1, lambda row: found(row) == {6: "red square"}),
    "a red square and a blue disc": (
        72,
        lambda row: sorted(found(row).values()) == ["blue disc", "red square"],
    ),
    "a red disc and a red disc": (36, lambda row: [*found(row).values()] == ["red disc"] * 2),
    "a red square in the middle and a blue disc at the right": (
        1,
        lambda row: found(row) == {4: "red square", 5: "blue disc"},
    ),
    "a red square left of a blue disc": (
        27,
        lambda row: placed(
            row, lambda a, b: (a[0], b[0]) == ("red square", "blue disc") and a[2] < b[2]
        ),
    ),
    "a red square right of a blue disc": (
        27,
        lambda row: placed(
            row, lambda a, b: (a[0], b[0]) == ("red square", "blue disc") and a[2] > b[2]
        ),
    ),
    "a red square on top of a blue disc": (
        27,
        lambda row: placed(
            row, lambda a, b: (a[0], b[0]) == ("red square", "blue disc") and a[1] < b[1]
        ),
    ),
    "a red square below a blue disc": (
        27,
        lambda row: placed(
            row, lambda a, b: (a[0], b[0]) == ("red square", "blue disc") and a[1] > b[1]
        ),
    ),
    "two white crosses": (36, lambda row: [*found(row).values()] == ["white cross"] * 2),
    "3 red discs": (84, lambda row: [*found(row).values()] == ["red disc"] * 3),
    "four red discs": (126, lambda row: [*found(row).values()] == ["red disc"] * 4),
}


@pytest.fixture(scope="module")
def every() -> list[list[int]]:
    return EVERY.tolist()


@pytest.mark.parametrize("caption", BY_HAND)
def test_fitting_pictures_by_looking_at_all_of_them(caption, every):
    number, looks = BY_HAND[caption]
    wanted = EVERY[torch.tensor([looks(row) for row in every])]
    cells = fitting(caption)
    assert torch.equal(cells.unique(dim=0), wanted)
    assert len(cells) == len(wanted) == number == count(caption)
    assert entropy(caption) == math.log(number)
    assert torch.equal(EVERY[fits(caption, EVERY)], wanted)


def test_entropies_are_those_of_the_table():
    captions = "a red square and a blue disc", "a red square left of a blue disc", "3 red discs"
    assert [round(entropy(caption), 3) for caption in captions] == [4.277, 3.296, 4.431]


def test_signs_say_their_word_wherever_it_has_room():
    drawn = scenes.draw(fitting("a sign that says cat"))
    assert len(drawn) == 3
    read = scenes.read(drawn, letters=True).cells
    letters = [scenes.LETTER + "abcdefghijklmnopqrstuvwxyz".index(letter) for letter in "cat"]
    for row, cells in enumerate(read.tolist()):
        assert cells[3 * row : 3 * row + 3] == letters
        assert cells.count(scenes.EMPTY) == 6
    assert [count(f"a sign that says {word}") for word in ("o", "ox", "tiger", "elephants")] == [
        9, 6, 2, 1,
    ]  # fmt: skip
    tiger = fitting("a sign that says tiger")[1].tolist()
    assert tiger[3:8] == [scenes.LETTER + ord(letter) - ord("a") for letter in "tiger"]
    assert len(SIGN_WORDS) == len(set(SIGN_WORDS)) == 100


def test_all_captions_are_counted_and_read():
    sizes = {kind: len(captions(kind)) for kind in words.KINDS}
    pairs = 24 * 23
    assert sizes == {
        "one": 3 * 24, "one-placed": 9 * 24, "two": pairs, "two-placed": pairs * 72,
        "relation": 4 * pairs, "count": 6 * 24, "sign": 100,
    }  # fmt: skip
    for kind in words.KINDS:
        assert len(set(captions(kind))) == sizes[kind]
        step = max(1, sizes[kind] // 100)
        assert {parse(caption).kind for caption in captions(kind)[::step]} == {kind}
        parts = [captions(kind, part) for part in words.PARTS[1:]]
        assert sorted(itertools.chain(*parts)) == sorted(captions(kind))


def test_what_is_held_out_is_said_nowhere_in_training():
    shapes, colours = zip(*(name.split() for name in words.HELD_OUT_OBJECTS), strict=True)
    assert len(set(shapes)) == len(set(colours)) == 4
    said = [caption for kind in words.KINDS for caption in captions(kind, "train")]
    assert "a red square and a blue disc" in said
    for name in words.HELD_OUT_OBJECTS:
        colour, shape = name.split()
        plain, many = f" {name}", f"{colour} {words.PLURALS[shape]}"
        assert not any(plain in caption or many in caption for caption in said)
    left = [caption for caption in said if caption.split()[3:4] in (["left"], ["right"])]
    for caption in left:
        colours = caption.split()[1], caption.split()[6]
        assert colours != ("yellow", "blue") or " left of " not in caption
        assert colours != ("blue", "yellow") or " right of " not in caption
    new = captions("relation", "new-relation")
    assert len(new) == 2 * 3 * 4  # the yellow triangle is held out as well
    assert "a yellow disc left of a blue cross" in new
    assert "a blue cross right of a yellow disc" in new
    assert len(captions("sign", "new-words")) == 10
    assert words.part_of("a yellow disc below a blue cross") == "train"
    assert words.part_of("two green squares") == "new-objects"


WORDINGS = {
    "a red square": 3, "1 red square": 3, "a red disc and a red disc": 1, "a sign that says ox": 1,
    "a red square at the bottom left": 1,
}  # fmt: skip
"""Number of wordings where it is not two."""


@pytest.mark.parametrize("caption", [*BY_HAND, "a sign that says ox"])
def test_paraphrases_fit_the_same_pictures(caption):
    same = words.paraphrases(caption)
    assert caption in same
    assert len(set(same)) == len(same) == WORDINGS.get(caption, 2)
    wanted = fitting(caption).unique(dim=0)
    for text in same:
        assert torch.equal(fitting(text).unique(dim=0), wanted)


def test_paraphrases_exchange_the_words_of_a_relation():
    assert words.paraphrases("a red disc below a blue cross") == (
        "a blue cross on top of a red disc",
        "a red disc below a blue cross",
    )


def test_captions_of_a_scene_are_all_that_fit_it():
    """Against the captions of every kind, on scenes of each number of objects."""
    kinds = [kind for kind in words.KINDS if kind != "two-placed"]
    said = [caption for kind in kinds for caption in captions(kind)]
    for row in EVERY[torch.linspace(0, len(EVERY) - 1, 5).long()]:
        # Captions of other colours, and of the 39,744 with both places those of other objects,
        # cannot fit and are left out.
        names = [scenes.OBJECTS[cell] for cell in row.tolist() if cell != scenes.EMPTY]
        placed = {
            f"a {a} {here} and a {b} {there}"
            for a, b in itertools.permutations(dict.fromkeys(names), 2)
            for here, there in itertools.permutations(words.PLACES, 2)
        }
        assert placed <= set(captions("two-placed"))
        near = [text for text in said if {name.split()[0] for name in names} <= {*text.split()}]
        slow = {caption for caption in [*near, *placed] if bool(fits(caption, row[None])[0])}
        assert set(captions_of(row)) == slow
        assert len(captions_of(row)) == len(slow) > 0
    sign = fitting("a sign that says zoo")[2]
    assert captions_of(sign) == ("a sign that says zoo",)
    sign[3] = scenes.LETTER
    assert captions_of(sign) == ()
    assert captions_of(torch.full((9,), scenes.EMPTY)) == ()
    assert captions_of(torch.tensor([0, 1, 2, *[scenes.EMPTY] * 6])) == ()
    both = torch.tensor([13, *[scenes.EMPTY] * 7, 6])
    assert captions_of(both, "train") == captions_of(both)
    assert captions_of(torch.tensor([1, *[scenes.EMPTY] * 8]), "train") == ()


def test_matches_are_a_table():
    said = ["a red square", "two red discs", "a red square", "a red square left of a blue disc"]
    cells = torch.cat([fitting(caption)[:1] for caption in said])
    table = words.matches(said, cells)
    assert table.tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]
    assert words.matches([], cells).shape == (0, 4)
    assert fits("a red square", cells[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a red cube", "no word 'cube'; it knows a, and, red"),
        ("a red", "after 'a red' stands the end.*square, disc"),
        ("red discs", "after 'the beginning' stands 'red'"),
        ("two red disc", "after 'two red' stands 'disc'"),
        ("a red disc left of", "what can stand there is: a"),
        ("a red disc a blue disc", "and, left of"),
        ("a red disc and a blue disc and", "nothing more"),
        ("a red disc at the top and a blue disc", "after .* stands the end.*in the middle"),
        ("a red disc at the top and a blue disc at the top", "two places"),
        ("a sign that says c-t", "cannot say 'c-t'"),
        ("a sign that says hippopotamus", "1 to 9 letters"),
        ("", "stands the end"),
    ],
)
def test_what_is_no_caption_is_refused_by_name(caption, message):
    with pytest.raises(ValueError, match=message):
        fitting(caption)


def test_unknown_kinds_and_parts_are_refused():
    with pytest.raises(ValueError, match="kinds are one, one-placed"):
        captions("three")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="parts are all, train"):
        captions("one", "test")  # type: ignore[arg-type]
