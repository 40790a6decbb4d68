"""Flamingo's command: its stages, its scores, its pictures."""

import json
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from generative.flamingo import Flamingo, NFNet
from generative.known.picture_talk import PictureTalk, Talk
from generative.text.gpt import GPT
from generative.training.run import read_result
from scripts import explore, train_flamingo
from scripts.explored import flamingo as explored
from tests.commands import run_script

torch.set_num_threads(1)
SMOKE = train_flamingo.PRESETS["smoke"]
TALK = PictureTalk()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, by command line."""
    folder = tmp_path_factory.mktemp("flamingo") / "a run"
    done = run_script("train_flamingo", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_vision_of_other_pictures_is_refused_before_anything_is_trained(tmp_path):
    vision = replace(SMOKE.model.vision, image_shape=(3, 48, 48))
    args = replace(SMOKE, out=tmp_path / "run", model=replace(SMOKE.model, vision=vision))
    with pytest.raises(ValueError, match=r"give --model\.vision\.image-shape 3 24 24"):
        train_flamingo.main(args)
    assert not (tmp_path / "run" / "language").exists()


def test_gpt_and_vision_are_those_of_the_stages_before(run):
    model = Flamingo.from_pretrained(run / "model")
    language = GPT.from_pretrained(run / "language" / "model")
    vision = NFNet.from_pretrained(run / "vision" / "model")
    for ours, theirs in ((model.language, language), (model.vision, vision)):
        for name, weight in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], weight), name
    assert model.config.image_token == TALK.image_token
    found = read_result(run)
    assert found["attention_gates"] > 0
    assert {"right_names_one_shot", "right_films", "right_counts", "right_places"} <= set(found)


def test_a_vision_that_learns_from_captions(run, tmp_path):
    """Its GPT stays as it was, and the vision is another than that of a contrast."""
    args = replace(SMOKE, out=tmp_path / "run", vision_by="captions", threads=1)
    model = Flamingo.from_pretrained(train_flamingo.main(args))
    other = Flamingo.from_pretrained(run / "model")
    for name, weight in model.language.state_dict().items():
        assert torch.equal(weight, other.language.state_dict()[name]), name
    assert not torch.equal(model.vision.stem[0].weight, other.vision.stem[0].weight)


class Knows(nn.Module):
    """Answers rightly, or like the first example; in the form of a Flamingo."""

    __class__ = Flamingo  # what `answers` asks for

    def __init__(self, texts):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.known = {text.prompt: text.answer for text in texts}
        self.shown = []

    def generate(self, prompt, images, num_tokens, **_options):
        self.shown.append(images.shape)
        words = [self.known[TALK.tokeniser.decode(row)] for row in prompt]
        return torch.cat([prompt, TALK.tokens(words, num_tokens)], 1)


def test_answers_are_compared_word_by_word():
    rng = random.Random(0)
    drawn = [Talk("questions", (TALK.questions(rng, 1),)) for _ in range(30)]
    texts = list({text.prompt: text for text in drawn}.values())  # one answer to each
    model = Knows(texts)
    assert all(train_flamingo.answers(model, TALK, texts))
    assert all(shape[1:3] == (1, 1) for shape in model.shown)
    wrong = texts[0].answer
    model.known = dict.fromkeys(model.known, wrong)
    right = train_flamingo.answers(model, TALK, texts)
    assert right == [text.answer == wrong for text in texts]
    assert train_flamingo.share([True, False, True, True]) == 0.75
    assert train_flamingo.share([]) == 0


def test_words_of_a_chunk_are_taken_apart():
    words = "how many discs ? two where is the disc ? at the top left what is below it ? a red disc"
    assert explored.split_turns(words) == [
        ("how many discs", "two"), ("where is the disc", "at the top left"),
        ("what is below it", "a red disc"),
    ]  # fmt: skip


def test_exploring(run, tmp_path):
    args = replace(explore.PRESETS["smoke"], folder=run, pictures=tmp_path / "pictures")
    explore.main(args)
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"dialogues", "examples", "gates", "curves"}
    found = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    assert set(found["examples"]) == {"no example", "one of each", "their pictures exchanged"}
    assert len(found["dialogues"]) == 2
    assert set(found["dialogues"][0][0]) == {"question", "right", "answer", "without"}


def test_a_words_attention_on_the_picture_is_a_share_of_it(run):
    """The rest goes to the latents themselves."""
    model = Flamingo.from_pretrained(run / "model")
    chunk = TALK.questions(random.Random(1), 2)
    _, turns = explored.dialogue(model, TALK, chunk)
    for turn in turns:
        places = torch.tensor(turn["map"])
        assert places.shape == (3, 3)
        assert 0 < float(places.sum()) < 1
