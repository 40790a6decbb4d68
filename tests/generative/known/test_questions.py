"""Questions about scenes: answers by hand, and by a second reading of every question."""

from __future__ import annotations

import re

import pytest
import torch

from generative.known import questions as known
from generative.known import scenes
from generative.known.captions import NUMBERS, PLACES, PLURALS, fitting
from generative.known.questions import KINDS, answer, ask, blind_accuracy, questions

torch.set_num_threads(1)


def scene(**things: int) -> torch.Tensor:
    """A scene by names such as red_disc and their cells."""
    cells = torch.full((9,), scenes.EMPTY)
    for name, place in things.items():
        cells[place] = scenes.OBJECTS.index(name.replace("_", " "))
    return cells


def test_answers_by_hand():
    cells = scene(red_square=3, blue_cross=5)
    for question, right in {
        "how many objects ?": "two",
        "how many crosses ?": "one",
        "how many red objects ?": "one",
        "how many green triangles ?": "zero",
        "what is left of the blue cross ?": "a red square",
        "what is right of the blue cross ?": "nothing",
        "what is on top of the red square ?": "nothing",
        "what is at the right ?": "a blue cross",
        "what is in the middle ?": "nothing",
        "where is the red square ?": "at the left",
        "what colour is the cross ?": "blue",
        "what shape is the red object ?": "square",
        "is there a blue cross ?": "yes",
        "is there a red cross ?": "no",
        "is the red square left of the blue cross ?": "yes",
        "is the red square below the blue cross ?": "no",
    }.items():
        assert answer(question, cells) == right, question
    three = fitting("three red discs")[0]
    assert answer("how many discs ?", three) == "three"
    assert answer("is there a red disc ?", three) == "yes"


def test_what_has_no_one_answer_is_not_asked():
    three = fitting("three red discs")[0]
    for question in ("where is the red disc ?", "what colour is the disc ?",
                     "what is left of the red disc ?", "how many dogs ?"):  # fmt: skip
        with pytest.raises(ValueError, match="no one answer in a scene of red disc, red disc"):
            answer(question, three)
    crowded = scene(red_square=0, green_disc=3, blue_cross=5)
    with pytest.raises(ValueError, match="no one answer"):
        answer("what is left of the blue cross ?", crowded)
    assert answer("what is on top of the blue cross ?", crowded) == "a red square"


def test_every_question_of_some_scenes_is_answered_as_a_second_reading_does():
    """Written the other way round: the words of the question are looked up in the grid."""
    for cells in (*scenes.pairs()[::4001], fitting("four white crosses")[77], scene()):
        grid = {place: scenes.OBJECTS[thing] for place, thing in enumerate(cells.tolist())
                if thing != scenes.EMPTY}  # fmt: skip
        listed = questions(cells)
        assert len({each.question for each in listed}) == len(listed)
        for each in listed:
            assert each.answer == second(each.question, grid), each
            assert each.answer in known.ANSWERS
            assert {*each.question.split(), *each.answer.split()} <= {*known.QUESTION_WORDS}


def second(question: str, grid: dict[int, str]) -> str:
    def those(words: str) -> list[int]:
        one = {many: shape for shape, many in PLURALS.items()} | {"objects": "object"}
        wanted = {one.get(word, word) for word in words.split()} - {"object"}
        return [place for place, name in grid.items() if wanted <= set(name.split())]

    def stands(relation: str, one: int, other: int) -> bool:
        row, column = divmod(one, 3)
        return {"left of": column < other % 3, "right of": column > other % 3,
                "on top of": row < other // 3, "below": row > other // 3}[relation]  # fmt: skip

    relations = "left of|right of|on top of|below"
    text = question.removesuffix(" ?")
    if found := re.fullmatch(r"how many (.*)", text):
        return ("zero", *NUMBERS)[len(those(found[1]))]
    if found := re.fullmatch(rf"is the (.*) ({relations}) the (.*)", text):
        [one], [other] = those(found[1]), those(found[3])
        return "yes" if stands(found[2], one, other) else "no"
    if found := re.fullmatch(r"is there a (.*)", text):
        return "yes" if those(found[1]) else "no"
    if found := re.fullmatch(r"where is the (.*)", text):
        [place] = those(found[1])
        return PLACES[place]
    if found := re.fullmatch(r"what (colour|shape) is the (.*)", text):
        [place] = those(found[2])
        return grid[place].split()[found[1] == "shape"]
    if found := re.fullmatch(rf"what is ({relations}) the (.*)", text):
        [other] = those(found[2])
        names = {grid[place] for place in grid if stands(found[1], place, other)}
    else:
        names = {grid[place] for place in grid if PLACES[place] == text.removeprefix("what is ")}
    return f"a {names.pop()}" if names else "nothing"


def test_asked_questions_are_of_every_kind_and_follow_the_seed():
    cells = scenes.pairs()[::97]
    drawn = ask(cells, torch.Generator().manual_seed(0))
    assert {each.kind for each in drawn} == set(KINDS)
    assert drawn == ask(cells, torch.Generator().manual_seed(0))
    assert drawn != ask(cells, torch.Generator().manual_seed(1))
    for each, row in list(zip(drawn, cells, strict=True))[::20]:
        assert answer(each.question, row) == each.answer
    counts = ask(cells[:20], torch.Generator().manual_seed(0), kinds=("how-many",))
    assert {each.kind for each in counts} == {"how-many"}
    with pytest.raises(ValueError, match="kinds are how-many"):
        ask(cells, kinds=("when",))
    with pytest.raises(ValueError, match="has no question of the kinds where"):
        ask(fitting("two red discs")[:1], kinds=("where",))


def test_guesses_without_the_scene_by_hand():
    left, right = scene(red_disc=3), scene(red_disc=5)
    # Of the places only those two differ; each scene has nine of "what is at", four relations.
    found = blind_accuracy(torch.stack([left, right]))
    assert found["where"] == 0.5
    assert found["colour"] == found["shape"] == found["how-many"] == found["yes-or-no"] == 1
    assert found["which-is"] == pytest.approx((13 - 2 + 2 * 0.5) / 13)
    assert found["all"] == pytest.approx((0.5 + 4 + found["which-is"]) / 6)
    one = blind_accuracy(left[None])
    assert set(one.values()) == {1.0}
    # The disc is always red, the cross of each of six colours; half of the questions ask of each.
    cells = torch.cat([fitting(f"a red disc and a {colour} cross") for colour in scenes.COLOURS])
    assert blind_accuracy(cells, ("colour",)) == pytest.approx({"colour": 7 / 12, "all": 7 / 12})


def test_signs_are_not_asked_about():
    with pytest.raises(ValueError, match="one scene of objects"):
        questions(fitting("a sign that says cat")[0])
