"""What certificates measure, of models whose answers are known."""

import math
from typing import Any

import pytest
import torch

from generative.clip import CLIPConfig, TextEncoderConfig, clip_block, clip_vit
from generative.data.caption_tokens import CaptionTokeniser
from generative.known import scenes
from generative.known.captioned_scenes import CaptionedScenes, CaptionMix
from generative.known.captions import WORDS, entropy
from generative.known.scene_denoiser import small_posterior
from scripts.common.clip import scene_scores
from scripts.common.scene_codes import CellCodes, exact_muse, nats_by_fitting
from scripts.common.text_to_image import answers_by_rank, rank_distance

torch.set_num_threads(1)
WORLD = CaptionedScenes(CaptionMix(one=0, one_placed=0, two=1, two_placed=0, relation=0, count=1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_distance_of_ranks_by_hand():
    p = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    # Rank 1 has probability 0.8 and 0.6, a mean of 0.7; both answers are of it.
    assert rank_distance(torch.tensor([1, 0]), p) == pytest.approx(0.3)
    assert rank_distance(torch.tensor([0, 0]), p) == pytest.approx(0.2)
    assert rank_distance(torch.tensor([0, 1]), p) == pytest.approx(0.7)


class Upsampling:
    """Draws each cell by its exact posterior, or what is likeliest."""

    factor, device = 4, torch.device("cpu")

    def __init__(self, likeliest: bool):
        self.likeliest = likeliest

    def sample(self, n, random, low, noise):
        tiles = low.unflatten(3, (3, 2)).unflatten(2, (3, 2)).permute(0, 2, 4, 1, 3, 5)
        p = small_posterior(tiles.flatten(1, 2), noise, *WORLD.pictures())
        if self.likeliest:
            return scenes.draw(p.argmax(2))
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=random)
        return scenes.draw(drawn.view(n, 9))


def test_answers_of_the_posterior_are_no_distance_from_it():
    exact: Any = Upsampling(likeliest=False)
    found = answers_by_rank(exact, WORLD, 0.2, generator(), 300)
    assert max(found) < 0.08  # of 600 cells; chance alone
    sharp: Any = Upsampling(likeliest=True)
    away = answers_by_rank(sharp, WORLD, 0.2, generator(), 300)
    assert away.distance > 0.3
    assert away.of_exact == found.of_exact


class Written(torch.nn.Module):
    """A writer of scenes that is worse than the least by a share, and by as many nats."""

    def __init__(self, worse: float):
        super().__init__()
        self.one, self.worse = torch.nn.Parameter(torch.zeros(1)), worse

    def log_prob(self, texts, codes):
        least = torch.tensor([entropy(text) for text in texts.texts])
        return -(1 + self.worse) * least - self.worse


class Texts(list):
    """Captions in the place of their tokens."""

    texts = property(list)

    def to(self, device):
        return self


class Words:
    def encode(self, texts):
        return Texts(texts)


def test_nats_are_told_by_the_number_of_scenes_that_fit():
    words: Any = Words()
    of = (1, 27, 72, 84)
    least = nats_by_fitting(Written(0.0), CellCodes(), words, of, CaptionMix(), n=200)
    assert {number: floor for number, (_, floor) in least.items()} == {k: math.log(k) for k in of}
    for nll, floor in least.values():
        assert nll == pytest.approx(floor, rel=1e-6)
    worse = nats_by_fitting(Written(0.1), CellCodes(), words, of, CaptionMix(), n=200)
    for nll, floor in worse.values():
        assert nll == pytest.approx(1.1 * floor + 0.1, rel=1e-6)
    few = CaptionMix(one=0, one_placed=0, two=0, two_placed=0, relation=1, count=0)
    assert set(nats_by_fitting(Written(0.0), CellCodes(), words, of, few, n=20)) == {27}


def test_nats_of_hidden_codes_are_at_their_least_by_listing():
    few = CaptionMix(one=0, one_placed=0, two=0, two_placed=0, relation=1, count=0)
    texts, _ = CaptionedScenes(few).draw(50, generator(3))
    tokeniser = CaptionTokeniser.fit([" ".join(WORDS)], 24)
    found = nats_by_fitting(exact_muse(texts), CellCodes(), tokeniser, (27,), few, seed=3, n=50)
    assert found[27][0] == pytest.approx(found[27][1], rel=1e-5)
    assert 0 < found[27][1] < math.log(27)


def test_binding_is_asked_of_objects_that_no_training_caption_names():
    torch.manual_seed(0)
    model = CLIPConfig(
        clip_vit((3, 24, 24), 8, 1, 8, 2), TextEncoderConfig(64, 24, 1, clip_block(8, 2)), 8
    ).build()
    tokeniser = CaptionTokeniser.fit([" ".join(WORDS)], 24)
    found = scene_scores(model, tokeniser, generator(), n=2)
    # Two of four objects that share neither colour nor shape: equal, or each word of two.
    assert found["new_object_at_place_of_words"] == pytest.approx(1 / 4 + 3 / 4 / 4)
    assert found["new_colour_at_place_of_words"] == pytest.approx(1 / 4 + 3 / 4 / 2)
    assert 0 <= found["new_object_at_place"] <= found["new_shape_at_place"] <= 1
