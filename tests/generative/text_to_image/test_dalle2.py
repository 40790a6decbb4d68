"""A CLIP, a prior and a decoder as one: who is told which embedding, and ways between them."""

import math
from dataclasses import replace

import pytest
import torch

from generative.clip import CLIPConfig
from generative.clip.config import clip_vit
from generative.data.caption_tokens import CaptionTokeniser
from generative.nets.config import ConditionalUNetConfig, gpt2_block
from generative.priors import AutoregressivePriorConfig, DiffusionPriorConfig
from generative.text_to_image import (
    DallE2,
    ImageDecoderConfig,
    UpsamplerConfig,
)
from tests.tiny_text_to_image import SCHEDULE, TEXT, WORDS, shaken

torch.set_num_threads(1)

NETWORK = ConditionalUNetConfig(8, (1,), attention=(0,), head_dim=4, context_dim=8, vector_dim=14)
CLIP = CLIPConfig(clip_vit((3, 8, 8), 4, 1, 8, 2), replace(TEXT, causal=True), 6)
BLOCK = gpt2_block(8, 2, dropout=0.0)
DECODER = ImageDecoderConfig(
    (3, 8, 8), WORDS, TEXT, NETWORK, SCHEDULE, steps=2, embedding_dim=6, num_tokens=2
)
PRIORS = {
    "diffusion": DiffusionPriorConfig(6, 6, 8, 6, 1, BLOCK, steps=3),
    "diffusion without tokens": DiffusionPriorConfig(6, 6, 0, 6, 1, BLOCK, steps=3),
    "buckets": AutoregressivePriorConfig(6, 6, 8, 6, 4, 5, 2, 1, 1, BLOCK),
}
TOKENISER = CaptionTokeniser(WORDS, 6)
TEXTS = ["red square", "blue disc"]
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=PRIORS)
def model(request) -> DallE2:
    return DallE2(shaken(CLIP), shaken(PRIORS[request.param]), shaken(DECODER), TOKENISER)


@pytest.fixture(scope="module")
def one() -> DallE2:
    return DallE2(shaken(CLIP), shaken(PRIORS["diffusion"]), shaken(DECODER), TOKENISER)


@pytest.fixture
def told(one, monkeypatch):
    """What the decoder is told at each call: tokens, noise, embedding."""
    seen = []
    path = one.decoder.path

    def spy(texts, generator=None, steps=None, scale=None, *, z, embedding):
        seen.append((list(texts), z, embedding))
        return path(texts, generator, steps, scale, z=z, embedding=embedding)

    monkeypatch.setattr(one.decoder, "path", spy)
    return seen


def test_each_column_is_told_its_own_embedding(one, told):
    drawn = one.columns(TEXTS, generator())
    (texts, noise, alone), (_, z2, text), (_, z3, prior) = told
    assert texts == TEXTS
    assert alone is None
    torch.testing.assert_close(text, one.clip.encode_text(TOKENISER.encode(TEXTS)))
    # The prior by hand, with the random numbers in the same order.
    random = generator()
    tokens = TOKENISER.encode(TEXTS)
    outputs = one.clip.text.encoder(tokens).outputs
    by_hand = one.prior.sample(
        one.clip.encode_text(tokens), outputs, tokens != 0, draws=2, generator=random
    )
    assert torch.equal(prior, by_hand)
    assert torch.equal(noise, one.decoder.noise(2, random))
    assert torch.equal(noise, z2)
    assert torch.equal(noise, z3)
    assert all(images.shape == (2, 3, 8, 8) for images in drawn)
    assert not torch.equal(drawn.caption, drawn.text)
    assert not torch.equal(drawn.text, drawn.prior)
    # The last column is what a sample is; the first what the decoder draws by itself.
    assert torch.equal(drawn.prior, one.sample(TEXTS, generator()))


def test_a_zero_embedding_is_none(one):
    """The decoder's first column is that of a decoder without an embedding."""
    alone = one.columns(TEXTS, generator()).caption
    random = generator()
    one.predict(TEXTS, random)
    assert torch.equal(alone, one.decoder.sample(TEXTS, random))


def test_variations_share_their_embedding_and_no_noise(one, told):
    drawn = one.variations(X, 3, generator())
    assert drawn.shape == (2, 3, 3, 8, 8)
    ((texts, noise, embedding),) = told
    assert texts == [""] * 6
    expected = one.clip.encode_image(X)
    for i, row in enumerate(embedding):
        torch.testing.assert_close(row, expected[i // 3])
    assert len({tuple(z.flatten().tolist()) for z in noise}) == 6
    captioned = one.variations(X, 2, generator(), TEXTS)
    assert told[-1][0] == ["red square"] * 2 + ["blue disc"] * 2
    assert captioned.shape == (2, 2, 3, 8, 8)


def test_a_way_between_two_images_is_an_arc_of_even_steps(one, told):
    """Closed form: at share u of the angle w it is sin((1 - u) w) a + sin(u w) b over sin w."""
    drawn = one.interpolate(X[0], X[1], 5, generator())
    ((texts, noise, embedding),) = told
    assert texts == [""] * 5
    assert all(torch.equal(z, noise[0]) for z in noise)
    a, b = one.clip.encode_image(X).detach()
    torch.testing.assert_close(embedding[0], a)
    torch.testing.assert_close(embedding[-1], b)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(5))
    w = math.acos(float(a @ b))
    u = 0.25
    by_hand = (math.sin((1 - u) * w) * a + math.sin(u * w) * b) / math.sin(w)
    torch.testing.assert_close(embedding[1], by_hand, atol=1e-5, rtol=1e-4)
    angles = (embedding[:-1] * embedding[1:]).sum(1).clamp(-1, 1).arccos()
    torch.testing.assert_close(angles, torch.full((4,), w / 4), atol=1e-3, rtol=1e-2)
    assert drawn.shape == (5, 3, 8, 8)


def test_an_edit_turns_towards_the_difference_of_two_captions(one, told):
    drawn = one.edit(X[0], *TEXTS, num=3, most=0.5, generator=generator())
    embedding = told[0][2]
    start = one.clip.encode_image(X[:1])[0].detach()
    before, after = one.embed_texts(TEXTS)
    way = (after - before) / (after - before).norm()
    torch.testing.assert_close(embedding[0], start)
    torch.testing.assert_close(
        embedding[2], (start + way) / (start + way).norm(), atol=1e-5, rtol=1e-4
    )  # halfway on the arc
    assert drawn.shape == (3, 3, 8, 8)
    with pytest.raises(ValueError, match="whose embeddings are equal"):
        one.edit(X[0], "red disc", "red disc")


def test_the_same_seed_draws_the_same(model):
    for draw in (
        lambda: model.sample(TEXTS, generator()),
        lambda: model.variations(X, 2, generator()),
        lambda: model.interpolate(X[0], X[1], 2, generator()),
    ):
        assert torch.equal(draw(), draw())
    other = model.sample(TEXTS, generator(4))
    assert not torch.equal(model.sample(TEXTS, generator()), other)


def test_nothing_in_nothing_out(model):
    assert model.sample([], generator()).shape == (0, 3, 8, 8)
    assert all(images.shape == (0, 3, 8, 8) for images in model.columns([]))
    assert model.variations(X[:0], 3).shape == (0, 3, 3, 8, 8)
    assert model.predict([]).shape == model.embed_texts([]).shape == (0, 6)


def test_a_saved_one_draws_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "dalle2")
    again = DallE2.from_pretrained(tmp_path / "dalle2")
    assert type(again.prior) is type(model.prior)
    assert again.tokeniser == TOKENISER
    assert torch.equal(again.sample(TEXTS, generator()), model.sample(TEXTS, generator()))
    with pytest.raises(FileNotFoundError, match="pass one with the prior"):
        DallE2.from_pretrained(tmp_path / "nothing")


NARROW = replace(PRIORS["diffusion"], embed_dim=5, text_dim=5)
OTHER_TOKENS = replace(PRIORS["diffusion"], context_dim=7)
WIDE = replace(DECODER, embedding_dim=7, network=replace(NETWORK, vector_dim=15))
LARGE = replace(DECODER, image_shape=(3, 16, 16))
LONG = CaptionTokeniser(WORDS, 9)
MANY = CaptionTokeniser((*WORDS, "green"), 6)


@pytest.mark.parametrize(
    ("prior", "decoder", "tokeniser", "message"),
    [
        (NARROW, DECODER, TOKENISER, "embeddings of 6 numbers, and the prior makes 5 of 5; give"),
        (OTHER_TOKENS, DECODER, TOKENISER, "tokens as 8 numbers, and the prior reads 7; give"),
        (PRIORS["buckets"], WIDE, TOKENISER, "of 6 numbers, and the decoder takes 7; give a dec"),
        (PRIORS["buckets"], LARGE, TOKENISER, r"images \(3, 8, 8\), and the decoder draws \(3, 16"),
        (PRIORS["buckets"], DECODER, LONG, "rows of 9 tokens, and CLIP and prior read 6; give"),
        (PRIORS["buckets"], DECODER, MANY, "has 9 tokens, and the CLIP vectors for 8; give"),
    ],
)
def test_parts_that_do_not_fit_are_refused(prior, decoder, tokeniser, message):
    clip = shaken(CLIP)
    with pytest.raises(ValueError, match=message):
        DallE2(clip, prior.build(), decoder.build(), tokeniser)
    clip.config = None
    with pytest.raises(ValueError, match="put together by hand"):
        DallE2(clip, prior.build(), decoder.build(), tokeniser)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m.sample("red disc"), r"give a list of captions, \['red disc'\]"),
        (lambda m: m.variations(X, texts="red disc"), "give a list of captions"),
        (lambda m: m.variations(X, texts=["red disc"]), "got 2 images and 1 captions"),
        (lambda m: m.variations(X[:, :, 1:]), r"needs float \(B, 3, 8, 8\)"),
        (lambda m: m.interpolate(X, X), r"needs float \(B, 3, 8, 8\)"),
        (lambda m: m.interpolate(X[0], X[1], 0), "num is 0"),
        (lambda m: m.sample(TEXTS, draws=0), "draws is 0"),
        (lambda m: m.edit(X[0], *TEXTS, most=2.0), "most is 2"),
    ],
)
def test_errors_say_what_is_needed(one, act, message):
    with pytest.raises(ValueError, match=message):
        act(one)


def test_upsamplers_that_are_told_no_caption_enlarge_what_is_drawn(one):
    network = replace(NETWORK, vector_dim=8, told_level=True)
    sizes = ((3, 16, 16), 2), ((3, 64, 64), 4)
    images = one.sample(TEXTS, generator())
    for shape, factor in sizes:
        config = UpsamplerConfig(shape, WORDS, TEXT, network, SCHEDULE, steps=2, factor=factor)
        upsampler = shaken(config)
        large = upsampler.sample(2, generator(), low=images, noise=0.1)
        assert large.shape == (2, *shape)
        assert 0 <= large.min() <= large.max() <= 1
        # Each is made of its own small image.
        other = upsampler.sample(2, generator(), low=images.flip(0), noise=0.1)
        assert not torch.allclose(large, other)
        images = large
