"""DALL.E, Parti and MUSE against brute force, and against exact answers of the micro-world."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.known.captioned_scenes import hidden_cells
from generative.known.captions import fits, fitting
from generative.known.scenes import EMPTY
from generative.nets.config import TextEncoderConfig, clip_block, gpt2_block
from generative.text_to_codes import DALLE, MUSE, DALLEConfig, MUSEConfig, Parti, PartiConfig
from generative.text_to_codes.masked import hidden_at

torch.set_num_threads(1)
BLOCK = gpt2_block(16, 2, dropout=0.0)
TEXT = TextEncoderConfig(20, 8, 1, clip_block(16, 2), causal=False)
SMALL = {
    "DALLE": (DALLE, DALLEConfig(20, 8, (1, 3), 3, 1, BLOCK)),
    "Parti": (Parti, PartiConfig(TEXT, (1, 3), 3, 1, BLOCK)),
    "MUSE": (MUSE, MUSEConfig(TEXT, (1, 3), 3, 1, BLOCK)),
}
WRITERS = ("DALLE", "Parti")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str):
    """A model in which everything matters."""
    torch.manual_seed(0)
    kind, config = SMALL[name]
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def caption(*words: int, length: int = 6) -> torch.Tensor:
    row = [2, *words, 3]
    return torch.tensor([row + [0] * (length - len(row))])


@pytest.mark.parametrize("name", WRITERS)
def test_probabilities_of_all_pictures_sum_to_one_and_samples_follow_them(name):
    model, every = make(name), torch.tensor(list(product(range(3), repeat=3)))[:, None]
    tokens = caption(5, 6)
    with torch.no_grad():
        log_p = model.log_prob(tokens.expand(27, -1), every)
        assert log_p.exp().sum() == pytest.approx(1, abs=1e-5)
        drawn = model.sample(tokens.expand(4000, -1), generator())
        other = model.log_prob(caption(7).expand(27, -1), every)
    assert (other - log_p).abs().max() > 0.01  # the caption matters
    index = drawn.flatten(1) @ torch.tensor([9, 3, 1])
    frequency, p = torch.bincount(index, minlength=27) / 4000, log_p.exp()
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()


@pytest.mark.parametrize("name", SMALL)
def test_padding_of_captions_has_no_influence(name):
    model, codes = make(name).double(), torch.tensor([[[0, 2, 1]]])
    short, long = caption(5, 6, length=4), caption(5, 6, length=8)
    measure = model.fill if name == "MUSE" else model.log_prob
    with torch.no_grad():
        torch.testing.assert_close(measure(short, codes), measure(long, codes))


def test_loss_of_dalle_is_a_weighted_mean():
    model = make("DALLE")
    tokens = torch.cat([caption(5, 6), caption(7)])
    codes = torch.tensor([[[0, 2, 1]], [[1, 1, 0]]])
    with torch.no_grad():
        found = model.loss(tokens, codes)
        words, pictures = model.logits(tokens, codes.flatten(1))
        image = -model.log_prob(tokens, codes).mean()
    text = []
    for row, logits in zip(tokens, words.log_softmax(-1), strict=True):
        text += [-logits[i, row[i + 1]] for i in range(5) if row[i + 1] != 0]
    wanted = torch.stack(text).mean() / 8 + 7 / 8 * image / 3
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(found.image, image)
    assert pictures.shape == (2, 3, 3)


def test_guidance_goes_away_from_the_empty_caption():
    """Of logits, against a loop over the places without a cache."""
    model, tokens = make("Parti"), caption(5, 6).expand(64, -1)
    found = model.sample(tokens, generator(), temperature=0.0, guidance=3.0)
    line = torch.zeros(1, 0, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(3):
            whole = F.pad(line, (0, 3 - line.shape[1]))
            given, empty = (model.logits(t, whole) for t in (tokens[:1], 0 * tokens[:1]))
            logits = (empty + 3 * (given - empty))[0, line.shape[1]]
            line = torch.cat([line, logits.argmax().view(1, 1)], 1)
    assert (found.flatten(1) == line).all()


# ---------------------------------------------------------------------------------------------
# MUSE
# ---------------------------------------------------------------------------------------------


def test_hidden_places_follow_the_cosine():
    muse = MUSE(replace(SMALL["MUSE"][1], grid=(4, 4)))
    hidden = muse.hide(torch.zeros(20_000, 4, 4, dtype=torch.int64), generator())
    counts = hidden.flatten(1).sum(1)
    assert counts.min() >= 1
    u = (torch.arange(100_000) + 0.5) / 100_000
    wanted = (16 * (math.pi / 2 * u).cos()).ceil().clamp(1, 16)
    assert counts.double().mean() == pytest.approx(float(wanted.double().mean()), rel=0.01)
    share = hidden.double().mean(0)
    assert (share - share.mean()).abs().max() < 0.02


def test_the_schedule_of_decoding():
    assert [hidden_at(step, 4, 16) for step in range(5)] == [16, 14, 11, 6, 0]
    assert hidden_at(1, 1, 9) == 0


def exact_muse(text: str) -> MUSE:
    """A MUSE that knows the probability of every hidden cell of scenes of this caption."""

    class Exact(nn.Module):
        def forward(self, line, memory):
            return hidden_cells([text] * len(line), line).log()

    encoder = TextEncoderConfig(64, 24, 1, clip_block(8, 2))
    muse = MUSE(MUSEConfig(encoder, block=gpt2_block(8, 2)))
    muse.decoder = Exact()
    return muse.eval()


def test_one_code_a_step_in_random_order_is_exact():
    """Every sample fits the caption, and all 27 scenes are drawn alike (chi-squared)."""
    text = "a red square left of a blue disc"
    drawn = exact_muse(text).sample(caption(5).expand(2700, -1), generator(), noise=1e6)
    cells = drawn.flatten(1)
    assert fits(text, cells).all()
    scenes = fitting(text)
    counts = (cells[:, None] == scenes).all(2).sum(0)
    chi = ((counts - 100).square() / 100).sum()
    assert chi < 26 + 4 * math.sqrt(52)


def test_fewer_steps_contradict_themselves_more_often():
    text = "a red square left of a blue disc"
    shares = []
    for steps in (1, 3, 9):
        tokens = caption(5).expand(500, -1)
        drawn = exact_muse(text).sample(tokens, generator(), steps=steps, noise=1e6)
        assert drawn.max() <= EMPTY
        shares.append(float(fits(text, drawn.flatten(1)).float().mean()))
    assert shares[0] < 0.3 < shares[1] < 0.95 < shares[2] == 1.0


def test_without_noise_the_surest_come_first():
    """Cells that are empty for sure are filled first, and the same scenes come out."""
    text = "two red discs"
    drawn = exact_muse(text).sample(caption(5).expand(300, -1), generator(), noise=0.0)
    assert fits(text, drawn.flatten(1)).all()


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("tokens", "codes", "message"),
    [
        (caption(5), torch.zeros(1, 3, 1, dtype=torch.int64), r"\(1, 3, 1\).*int64 \(B, 1, 3\)"),
        (caption(5), torch.full((1, 1, 3), 3), r"from 3 to 3.*0 to 2"),
        (caption(5).expand(2, -1), torch.zeros(1, 1, 3, dtype=torch.int64), r"1 pictures and 2"),
        (caption(30), torch.zeros(1, 1, 3, dtype=torch.int64), r"0 to 19"),
    ],
)
def test_errors_say_what_is_needed(name, tokens, codes, message: str):
    with pytest.raises(ValueError, match=message):
        make(name).loss(tokens, codes)


def test_encoder_and_decoder_have_one_width():
    with pytest.raises(ValueError, match="16 wide and the decoder 32; give both one width"):
        PartiConfig(TEXT, block=gpt2_block(32, 2))
