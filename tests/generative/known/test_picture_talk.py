"""Talk about pictures: the answers are those of the pictures, read back."""

import itertools
import random
from collections import Counter

import pytest
import torch

from generative.known.picture_talk import (
    CHUNK,
    FRAMES,
    IMAGE,
    Chunk,
    PictureTalk,
    Talk,
    caption_of,
)
from generative.known.questions import answer
from generative.known.scenes import EMPTY, OBJECTS, read

torch.set_num_threads(1)
TALK = PictureTalk()


def seen(chunk: Chunk) -> list[list[int]]:
    """Scenes of the frames of a chunk, read from its pictures."""
    pictures = TALK.images([Talk("", (chunk,))])[0, 0]
    return read(pictures).cells.tolist()


def test_answers_are_those_of_the_picture():
    rng = random.Random(0)
    kinds, zeros = set(), 0
    for _ in range(200):
        chunk = TALK.questions(rng, 1)
        (scene,) = seen(chunk)
        mark = chunk.words.index("?") + 1
        question, found = chunk.words[:mark], chunk.words[mark + 1 :]
        assert found == chunk.answer == answer(question, torch.tensor(scene))
        kinds.add(" ".join(question.split()[:2]))
        zeros += found in ("zero", "nothing")
    assert kinds == {"how many", "what colour", "where is", "what is"}
    assert zeros < 60


def test_captions_and_films():
    rng = random.Random(1)
    for _ in range(50):
        chunk = TALK.caption(rng)
        assert [caption_of(tuple(scene)) for scene in seen(chunk)] == [chunk.words]
        chunk = TALK.film(rng)
        frames = seen(chunk)
        cells = [next(k for k, t in enumerate(scene) if t != EMPTY) for scene in frames]
        assert len(cells) == FRAMES
        step = {"right": 1, "left": -1, "down": 3, "up": -3}[chunk.answer]
        moves = [after - before for before, after in itertools.pairwise(cells)]
        assert sorted(moves, key=abs) == [0, step, step]
        thing = OBJECTS[max(set(frames[0]) - {EMPTY})]
        assert chunk.words == f"the {thing.split()[1]} moves {chunk.answer}"


def test_names_belong_to_objects_within_a_text():
    rng = random.Random(2)
    for _ in range(50):
        talk = TALK.names(rng)
        known: dict[int, str] = {}
        for chunk in talk.chunks:
            thing = min(seen(chunk)[0])
            assert known.setdefault(thing, chunk.answer) == chunk.answer
        assert set(known.values()) == set(talk.names)
        assert len(set(known.values())) == len(known)
    numbers = Counter(len(TALK.names(rng).names) for _ in range(400))
    assert sorted(numbers) == [1, 2, 3, 4]
    assert min(numbers.values()) > 70


def test_a_question_after_one_example_of_each_name_and_exchanged_pictures():
    """Exchanged, the name of the picture that is asked for is right once in four times."""
    rng = random.Random(3)
    right = 0
    for _ in range(400):
        talk = TALK.naming(4, rng)
        assert len(talk.chunks) == 5
        assert len(set(talk.names)) == 4
        exchanged = TALK.exchanged(talk, rng)
        assert exchanged.text == talk.text
        assert exchanged.chunks[-1] == talk.chunks[-1]
        things = {min(chunk.frames[0]): chunk.answer for chunk in exchanged.chunks[:-1]}
        assert len(things) == 4
        right += things[min(talk.chunks[-1].frames[0])] == talk.answer
    assert right / 400 == pytest.approx(0.25, abs=0.07)
    assert len(TALK.naming(2, rng, shots=0).chunks) == 1


def test_half_of_the_texts_of_names_need_both_words_of_an_object():
    rng, alike = random.Random(7), []
    for _ in range(600):
        chunks = TALK.names(rng, 3).chunks
        things = {min(chunk.frames[0]) for chunk in chunks}
        words = zip(*(OBJECTS[thing].split() for thing in things), strict=True)
        alike.append([len(set(each)) == 1 for each in words])
    colour, shape = (sum(each) / 600 for each in zip(*alike, strict=True))
    # Besides the half: of three objects by chance, 6 (4 choose 3) and 4 (6 choose 3) of 2,024.
    assert colour == pytest.approx(0.25 + 0.5 * 24 / 2024, abs=0.05)
    assert shape == pytest.approx(0.25 + 0.5 * 80 / 2024, abs=0.05)
    assert len(PictureTalk(num_names=12).names(rng, 12).names) == 12  # no colour has as many


def test_texts_with_pictures_in_words():
    rng = random.Random(4)
    for kind in ("names", "questions", "caption", "film"):
        talk = TALK.talk(kind, rng)
        told = TALK.in_words(talk)
        if kind == "names":  # without the two words of each object
            plain = [word for word in told.split() if word not in " ".join(OBJECTS).split()]
            assert plain == talk.text.split()
            assert len(told.split()) == len(plain) + 2 * len(talk.chunks)
        else:
            left = " ".join(part.partition(" ) ")[2] for part in told.split(f"{IMAGE} ( ")[1:])
            assert left.split() == talk.text.replace(f"{IMAGE} ", "").split()
        assert 1 not in TALK.tokeniser.encode(told)
        assert talk.text.endswith(f"{talk.answer} {CHUNK}")
        assert talk.text == f"{talk.prompt} {talk.answer} {CHUNK}"
    scene = [EMPTY] * 9
    scene[4] = OBJECTS.index("red disc")
    one = Talk("names", (Chunk((tuple(scene),), "this is dax", "dax"),), ("dax",))
    assert TALK.in_words(one) == "image this is red disc dax eoc"


def test_tensors():
    rng = random.Random(5)
    texts = [TALK.talk("names", rng), TALK.talk("film", rng)]
    tokens = TALK.tokens(texts, 60)
    assert TALK.tokeniser.decode(tokens[0]) == texts[0].text
    assert int((tokens[0] == TALK.image_token).sum()) == 10
    pictures = TALK.images(texts)
    assert pictures.shape == (2, 10, FRAMES, 3, 24, 24)
    assert not pictures[1, 1:].any()
    assert torch.equal(pictures[0, 0, 0], pictures[0, 0, 3])
    with pytest.raises(ValueError, match="more than 10; give it more room"):
        TALK.tokens(texts, 10)
    with pytest.raises(ValueError, match="there is no kind"):
        TALK.talk("song", rng)
    with pytest.raises(ValueError, match="give 1 to 12 names"):
        PictureTalk(num_names=13)
