"""One U-Net told in further ways: an image embedding, a small image, a T5's text, edges."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from generative.nets.conditional_unet import ConditionalUNet
from generative.nets.config import ConditionalUNetConfig
from generative.text.config import T5Config, t5_block
from generative.text.t5 import T5
from generative.text_to_image import (
    ControlledUNet,
    ControlNet,
    ControlNetConfig,
    GLIDEConfig,
    ImageDecoder,
    ImageDecoderConfig,
    ImagenConfig,
    T5Text,
    TextToImage,
    TextToImageLearner,
    TextToImageLossConfig,
    Upsampler,
    UpsamplerConfig,
    edges,
    palette,
    shrink,
)
from generative.text_to_image.control import PUBLISHED, HintEncoder
from generative.training.settings import from_json, to_json
from tests.tiny_text_to_image import SCHEDULE, TEXT, WORDS, shaken

torch.set_num_threads(1)

NETWORK = ConditionalUNetConfig(8, (1, 2), head_dim=4, context_dim=8, vector_dim=8)
BASE = GLIDEConfig((3, 8, 8), WORDS, TEXT, NETWORK, SCHEDULE, steps=4)
DECODER = ImageDecoderConfig(
    (3, 8, 8), WORDS, TEXT, replace(NETWORK, vector_dim=13), SCHEDULE, steps=4, embedding_dim=5,
    num_tokens=2,
)  # fmt: skip
UPSAMPLER = UpsamplerConfig(
    (3, 8, 8), WORDS, TEXT, replace(NETWORK, told_level=True), SCHEDULE, steps=4
)
T5_CONFIG = T5Config(8, 2, 1, t5_block(8, 2, 0.0), max_len=6)
IMAGEN = ImagenConfig(
    (3, 8, 8), WORDS, T5_CONFIG, replace(NETWORK, efficient=True, scale_skips=True), SCHEDULE,
    steps=4,
)  # fmt: skip
TEXTS = ["red square", "blue disc", ""]
LOSS = TextToImageLossConfig(drop=0.0, lr=1e-2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(config):
    return shaken(config, 0.1)


X = torch.rand(3, 3, 8, 8, generator=generator(5))
EMBEDDING = torch.randn(3, 5, generator=generator(6))


# ---------------------------------------------------------------------------------------------
# DALL.E 2's decoder
# ---------------------------------------------------------------------------------------------


def test_the_decoder_sees_the_embedding_in_both_ways():
    model = make(DECODER)
    assert isinstance(model, ImageDecoder)
    told: Any = model.told(model.tokens(TEXTS), EMBEDDING)
    assert told.tokens.shape == (3, 2 + 6, 8)
    assert told.mask.sum(1).tolist() == [6, 6, 2]
    torch.testing.assert_close(told.vector[:, 8:].norm(dim=1), torch.full((3,), 5**0.5))
    directions = torch.cosine_similarity(told.vector[:, 8:], EMBEDDING)
    torch.testing.assert_close(directions, torch.ones(3))
    plain = model.sample(TEXTS, generator())
    seen = model.sample(TEXTS, generator(), embedding=EMBEDDING)
    assert not torch.allclose(seen, plain)
    zeros = torch.zeros_like(EMBEDDING)
    assert torch.equal(model.sample(TEXTS, generator(), embedding=zeros), plain)
    longer = model.sample(TEXTS, generator(), embedding=9 * EMBEDDING)
    torch.testing.assert_close(longer, seen, rtol=1e-3, atol=1e-4)


def test_guidance_of_the_decoder_goes_away_from_neither_text_nor_embedding():
    model = make(DECODER)
    nothing = model.sample(3, generator(), scale=1.0)
    assert torch.equal(model.sample(TEXTS, generator(), scale=0.0, embedding=EMBEDDING), nothing)
    # An embedding alone is something to be guided by.
    one, three = (model.sample(3, generator(), scale=s, embedding=EMBEDDING) for s in (1.0, 3.0))
    assert not torch.allclose(one, three)


def test_embeddings_are_left_out_in_training():
    model = make(replace(DECODER, drop_embedding=0.999999))
    dropped = model.loss(X, TEXTS, LOSS, generator(1), embedding=EMBEDDING).loss
    same = generator(1)
    torch.rand(3, generator=same)
    zeros = make(replace(DECODER, drop_embedding=0.0))
    assert torch.equal(dropped, zeros.loss(X, TEXTS, LOSS, same).loss)


# ---------------------------------------------------------------------------------------------
# Upsamplers
# ---------------------------------------------------------------------------------------------


def test_the_upsampler_sees_the_small_image_and_how_noisy_it_is():
    model = make(UPSAMPLER)
    assert isinstance(model, Upsampler)
    low = shrink(X, 2)
    told = model.told(model.tokens(TEXTS), low, 0.1)
    torch.testing.assert_close(
        told.image, torch.nn.functional.interpolate(2 * low - 1, scale_factor=2, mode="bilinear")
    )
    torch.testing.assert_close(told.level, torch.full((3,), 4.6052), rtol=1e-4, atol=0)
    clean: Any = model.told(model.tokens(TEXTS), low, 0.0).level
    assert clean.isfinite().all()
    plain = model.sample(TEXTS, generator(), low=low)
    assert plain.shape == X.shape
    assert not torch.allclose(model.sample(TEXTS, generator(), low=1 - low), plain)
    assert not torch.allclose(model.sample(TEXTS, generator(), low=low, noise=0.3), plain)


def test_small_images_get_noise_of_random_strength_in_training(monkeypatch):
    model, seen = make(UPSAMPLER), []
    assert isinstance(model, Upsampler)
    told = model.told

    def remember(tokens, low, noise):
        seen.append((low, noise))
        return told(tokens, low, noise)

    monkeypatch.setattr(model, "told", remember)
    x = torch.full((200, 3, 8, 8), 0.5)
    model.loss(x, 200, LOSS, generator())
    low, noise = seen[0]
    assert noise.min() >= 0
    assert noise.max() <= 0.3
    assert float(noise.mean()) == pytest.approx(0.15, abs=0.02)
    found = (low - 0.5).flatten(1).std(1) / noise.clamp(min=1e-3)
    assert float(found.median()) == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match=r"\(3, 3, 8, 8\).*3, 4, 4"):
        told(model.tokens(TEXTS), X)


# ---------------------------------------------------------------------------------------------
# Imagen
# ---------------------------------------------------------------------------------------------


def test_the_text_of_imagen_is_what_the_t5_reads():
    torch.manual_seed(0)
    t5 = T5(T5_CONFIG).eval()
    text = T5Text.of(t5).eval()
    tokens = torch.tensor([[2, 4, 6, 3, 0, 0], [2, 5, 5, 5, 5, 3]])
    outputs, vector = text(tokens)
    there = tokens != 0
    torch.testing.assert_close(outputs[there], t5.encode(tokens)[there])
    assert outputs[~there].abs().max() == 0
    torch.testing.assert_close(vector[0], outputs[0, :4].mean(0))
    empty = text(torch.zeros(1, 6, dtype=torch.int64))
    assert empty.outputs.abs().max() == 0
    assert empty.vector.abs().max() == 0


def test_imagen_trains_its_u_net_alone_and_clips_dynamically():
    model = make(IMAGEN)
    learner = TextToImageLearner(model.train(), LOSS, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner.update((X, TEXTS))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("diffusion.network"), name
    model.eval()
    own = model.sample(TEXTS, generator(), scale=9.0)
    assert torch.equal(own, model.sample(TEXTS, generator(), scale=9.0, quantile=0.995))
    assert not torch.allclose(own, model.sample(TEXTS, generator(), scale=9.0, quantile=0.5))


# ---------------------------------------------------------------------------------------------
# ControlNet
# ---------------------------------------------------------------------------------------------

HINT = torch.rand(3, 1, 8, 8, generator=generator(7))


def around() -> tuple[TextToImage, ControlNet]:
    """A model that stays, and a ControlNet around a copy of it."""
    base, other = make(BASE), make(BASE)
    torch.manual_seed(1)
    return base, ControlNet.around(other, 1, (4, 8)).eval()


def test_the_published_control_net_has_its_size():
    sd = ConditionalUNetConfig(
        320, (1, 2, 4, 4), (2,), (0, 1, 2), num_heads=8, context_dim=768, scale_shift=False,
        transformer=True,
    )  # fmt: skip
    with torch.device("meta"):
        network = ControlledUNet(ConditionalUNet(4, sd), HintEncoder(3, 320, 3, PUBLISHED))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 361_279_120


def test_a_new_control_net_has_no_effect():
    base, model = around()
    z = torch.randn(3, 3, 8, 8, generator=generator())
    for step, other in zip(base.path(TEXTS, z=z), model.path(TEXTS, z=z, hint=HINT), strict=True):
        assert torch.equal(step.x, other.x)
    assert torch.equal(
        base.loss(X, TEXTS, LOSS, generator()).loss,
        model.loss(X, TEXTS, LOSS, generator(), hint=HINT).loss,
    )


def test_at_first_only_the_outer_zeros_have_a_gradient():
    """Two layers of zeros in series: the reader of hints moves when the outer ones have moved."""
    _, model = around()
    learner = TextToImageLearner(model.train(), LOSS, 4)
    network = model.diffusion.network
    assert isinstance(network, ControlledUNet)
    before = {name: value.clone() for name, value in network.base.state_dict().items()}

    def moving(part) -> bool:
        return any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())

    learner.update((X, TEXTS, {"hint": HINT}))
    assert all(moving(out) for out in (*network.outs, network.middle_out))
    assert not moving(network.hint)
    assert not moving(network.copied)
    learner.update((X, TEXTS, {"hint": HINT}))
    assert moving(network.copied)
    learner.update((X, TEXTS, {"hint": HINT}))
    assert moving(network.hint)
    for name, value in network.base.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.base.parameters())
    # Without strength it is the model that stayed, with it something else.
    model.eval()
    base = make(BASE)
    plain = base.sample(TEXTS, generator())
    assert torch.equal(model.sample(TEXTS, generator(), hint=HINT, strength=0.0), plain)
    assert not torch.allclose(model.sample(TEXTS, generator(), hint=HINT), plain)


def test_edges_are_where_neighbours_differ():
    x = torch.zeros(1, 3, 4, 4)
    x[0, 1, 1:3, 1:3] = 0.5
    wanted = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert edges(x)[0, 0].int().tolist() == wanted
    assert torch.equal(around()[1].seen(X)["hint"], edges(X))


def test_a_palette_has_the_colours_of_blocks_and_not_their_shapes():
    x = torch.rand(2, 3, 8, 8, generator=generator(8))
    x[0, :, :4, 4:] = 0
    found = palette(x, 4)
    for image, seen in zip(x, found, strict=True):
        for i, j in ((0, 0), (0, 4), (4, 0), (4, 4)):
            pixels = image[:, i : i + 4, j : j + 4].flatten(1).T.tolist()
            total = sum(max(pixel) for pixel in pixels)
            mean = [sum(max(p) * p[c] for p in pixels) / total if total else 0.0 for c in range(3)]
            expected = torch.tensor(mean)[:, None, None].expand(3, 4, 4)
            torch.testing.assert_close(seen[:, i : i + 4, j : j + 4], expected)
    # A colour on black is that colour, however many pixels have it.
    colour = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    for num in (1, 5, 16):
        there = (torch.arange(16) < num).view(1, 4, 4)
        torch.testing.assert_close(palette((colour * there)[None], 4)[0], colour.expand(3, 4, 4))
    with pytest.raises(ValueError, match="block is 3, and images have sides of 8 and 8"):
        palette(x, 3)


def test_a_control_net_of_palettes(tmp_path):
    base, other = make(BASE), make(BASE)
    torch.manual_seed(1)
    model = ControlNet.around(other, None, (4, 8), "palette", 4).eval()
    assert model.hint_shape == (3, 8, 8)
    seen = model.seen(X)
    assert torch.equal(seen["hint"], palette(X, 4))
    plain = base.sample(TEXTS, generator())
    assert torch.equal(model.sample(TEXTS, generator(), **seen), plain)
    learner = TextToImageLearner(model.train(), LOSS, 3)
    for _ in range(3):
        learner.update((X, TEXTS, seen))
    model.eval()
    assert not torch.allclose(model.sample(TEXTS, generator(), **seen), plain)
    # Without strength it is the model that stayed, to the last bit.
    assert torch.equal(model.sample(TEXTS, generator(), **seen, strength=0.0), plain)
    model.save_pretrained(tmp_path / "model")
    again = ControlNet.from_pretrained(tmp_path / "model")
    assert again.hint == "palette"
    assert torch.equal(again.seen(X)["hint"], seen["hint"])


def test_an_older_control_net_is_told_edges_where_it_has_one_channel():
    _, model = around()
    settings = to_json(model.config)
    assert (settings.pop("hint"), settings.pop("block")) == ("edges", 8)
    assert from_json(ControlNetConfig, settings) == model.config
    other = from_json(ControlNetConfig, {**settings, "hint_channels": 2})
    assert other.hint == "other"
    assert other.build().seen(X) == {}


def test_a_control_net_walks_from_one_caption_to_another():
    base, model = around()
    z = base.noise(2, generator())
    hint = HINT[:1].expand(4, -1, -1, -1)
    way = base.walk("red square", "blue disc", 4, z)
    assert torch.equal(model.walk("red square", "blue disc", 4, z, hint=hint), way)
    network = model.diffusion.network
    assert isinstance(network, ControlledUNet)
    assert network.middle_out.bias is not None
    with torch.no_grad():
        network.middle_out.bias.add_(1.0)
    assert not torch.allclose(model.walk("red square", "blue disc", 4, z, hint=hint), way)
    same = model.walk("red square", "blue disc", 4, z, hint=hint, strength=0.0)
    assert torch.equal(same, way)


def test_a_control_net_is_saved_with_the_model_that_stays(tmp_path):
    _, model = around()
    model.save_pretrained(tmp_path / "model")
    again = ControlNet.from_pretrained(tmp_path / "model")
    assert torch.equal(
        again.sample(TEXTS, generator(), hint=HINT), model.sample(TEXTS, generator(), hint=HINT)
    )


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: replace(DECODER, network=NETWORK), "width 8.*is told 8 and 13"),
        (lambda: replace(UPSAMPLER, network=NETWORK), "told_level is off"),
        (lambda: replace(UPSAMPLER, factor=3), "multiples of the factor, 3"),
        (lambda: make(DECODER).sample(TEXTS, embedding=EMBEDDING[:2]), "2 embeddings and 3"),
        (lambda: make(UPSAMPLER).sample(TEXTS, low=shrink(X, 2)[:2]), "2 small images and 3"),
        (lambda: around()[1].sample(TEXTS, hint=HINT[:2]), "2 hints and 3"),
        (lambda: around()[1].sample(TEXTS), r"got no hint; pass hint with one \(1, 8, 8\).*edges"),
        (
            lambda: around()[1].walk("red disc", "blue disc", 3, around()[0].noise(2)),
            r"got no hint; pass hint with one \(1, 8, 8\)",
        ),
        (lambda: ControlNet.around(make(BASE), 1, hint="palette"), "palette.*have 3; give 3"),
        (lambda: ControlNet.around(make(BASE), hint="palette", block=3), "block is 3"),
        (lambda: around()[1].sample(TEXTS, hint=HINT[..., :4]), r"\(3, 1, 8, 4\)"),
        (lambda: ControlNet.around(make(DECODER)), "got ImageDecoder"),
    ],
)
def test_what_cannot_be_is_explained(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
