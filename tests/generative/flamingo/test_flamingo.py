"""Flamingo's claims: nothing changes at the start, a token sees its image alone, frozen stays."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from generative.flamingo import (
    Flamingo,
    FlamingoConfig,
    FlamingoLearner,
    FlamingoLossConfig,
    GatedCrossAttention,
    NFNet,
    NFNetConfig,
    PerceiverResampler,
    ResamplerConfig,
    flamingo_of,
    image_indices,
)
from generative.flamingo.model import FlamingoBatch
from generative.text.config import GPTConfig, gpt2_block
from generative.text.gpt import GPT
from generative.text.tokens import with_start

torch.set_num_threads(1)
IMAGE, CHUNK = 2, 3
CONFIG = FlamingoConfig(
    GPTConfig(12, 16, 3, gpt2_block(16, 2, dropout=0.1), tied=True, init="normal"),
    NFNetConfig((3, 8, 8), (4,), (1,), (8, 8), (1, 1), (2, 2)),
    ResamplerConfig(3, 2, 2, max_frames=9),
    every=2,
    num_heads=2,
)
TEXT = torch.tensor([[5, IMAGE, 6, 7, CHUNK, IMAGE, 8, 9, CHUNK, 10]])


def model(open_gates: bool = True) -> Flamingo:
    torch.manual_seed(0)
    made = CONFIG.build().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for layer in made.gated:
            for gate in (layer.attention_gate, layer.feed_forward_gate):
                gate.fill_(0.7 if open_gates else 0.0)
    return made


def images(n: int = 2, frames: int | None = None) -> torch.Tensor:
    shape = (1, n, 3, 8, 8) if frames is None else (1, n, frames, 3, 8, 8)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------
# Which image a token sees
# ---------------------------------------------------------------------------------------------


def test_a_token_sees_the_last_image_of_its_chunk():
    assert image_indices(TEXT, IMAGE, CHUNK).tolist() == [[0, 1, 1, 1, 1, 2, 2, 2, 2, 0]]


def test_every_order_of_tags_against_a_loop():
    texts = torch.tensor(list(itertools.product((IMAGE, CHUNK, 5), repeat=6)))
    expected = []
    for row in texts.tolist():
        number, sees, line = 0, 0, []
        for token in row:
            if token == IMAGE:
                number += 1
                sees = number
            line.append(sees)
            if token == CHUNK:
                sees = 0
        expected.append(line)
    assert image_indices(texts, IMAGE, CHUNK).tolist() == expected


# ---------------------------------------------------------------------------------------------
# The start
# ---------------------------------------------------------------------------------------------


def test_it_begins_as_the_gpt_to_the_bit():
    flamingo = model(open_gates=False)
    tokens = with_start(TEXT)
    assert torch.equal(flamingo.logits(tokens, images()), flamingo.language.logits(tokens))
    fresh = CONFIG.build().eval()
    assert torch.equal(fresh.logits(tokens, images()), fresh.language.logits(tokens))
    assert torch.equal(fresh.gates(), torch.zeros(2, 2))


def test_tokens_without_an_image_are_the_gpts_with_open_gates_too():
    flamingo = model()
    tokens = with_start(TEXT)
    plain = flamingo.language.logits(tokens)
    found = flamingo.logits(tokens, images())
    assert torch.equal(found[:, :2], plain[:, :2])
    assert not torch.equal(found[:, 2], plain[:, 2])
    assert torch.equal(flamingo.logits(tokens), plain)
    # A text without tags, though there are images.
    text = torch.tensor([[0, 5, 6, 7]])
    assert torch.equal(flamingo.logits(text, images()), flamingo.language.logits(text))


def test_a_gated_layer_adds_exactly_nothing_where_there_is_no_image():
    torch.manual_seed(0)
    layer = GatedCrossAttention(8, 6, 2)
    with torch.no_grad():
        layer.attention_gate.fill_(1.0)
        layer.feed_forward_gate.fill_(1.0)
    y, media = torch.randn(2, 5, 8), torch.randn(2, 4, 6)
    looks = torch.zeros(2, 5, 4, dtype=torch.bool)
    looks[:, 2:, 1:3] = True
    maps: list[torch.Tensor] = []
    found = layer(y, media, looks, maps)
    assert torch.equal(found[:, :2], y[:, :2])
    assert found.isfinite().all()
    assert torch.equal(maps[0][:, :, :2], torch.zeros(2, 2, 2, 4))
    torch.testing.assert_close(maps[0][:, :, 2:].sum(3), torch.ones(2, 2, 3))
    assert not maps[0][:, :, 2:, [0, 3]].any()


def test_the_size_of_a_gated_layer():
    """Without biases on projections and feed-forward network; two scalars are the gates."""
    with torch.device("meta"):
        layer = GatedCrossAttention(256, 256, 4)
    assert sum(p.numel() for p in layer.parameters()) == 787_458
    assert sum(p.numel() == 1 for p in layer.parameters()) == 2


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def test_a_later_image_changes_no_earlier_word():
    flamingo = model()
    tokens, first, second = with_start(TEXT), images(), images()
    second[:, 1] = 1 - second[:, 1]
    a, b = flamingo.logits(tokens, first), flamingo.logits(tokens, second)
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.equal(a[:, 6:], b[:, 6:])


def test_an_earlier_image_reaches_a_later_chunk_through_the_text_alone():
    """The gated layers' own output in chunk 2 does not see image 1."""
    flamingo = model()
    tokens, first, second = with_start(TEXT), images(), images()
    second[:, 0] = 1 - second[:, 0]
    layer, y = flamingo.gated[0], torch.randn(1, 11, 16)
    looks = flamingo._looks(tokens, 6)
    a, b = (layer(y, flamingo.look(x), looks) for x in (first, second))
    assert torch.equal(a[:, 6:], b[:, 6:])
    assert not torch.equal(a[:, 2:6], b[:, 2:6])
    maps = flamingo.attention_maps(tokens, first)
    assert len(maps) == 2  # in front of blocks 1 and 3
    shares = torch.stack(maps).unflatten(4, (2, 3)).sum(5)[:, 0, 0]
    torch.testing.assert_close(shares[:, 2:6, 0], torch.ones(2, 4))
    assert not shares[:, 6:, 0].any()
    assert not shares[:, [0, 1, 10]].any()
    assert not torch.equal(
        flamingo.logits(tokens, first)[:, 6:], flamingo.logits(tokens, second)[:, 6:]
    )


@pytest.mark.parametrize(("frames", "places"), [(1, 4), (4, 9), (9, 25)])
def test_the_resampler_gives_as_many_vectors_whatever_it_reads(frames, places):
    torch.manual_seed(0)
    resampler = PerceiverResampler(8, ResamplerConfig(5, 2, 2, max_frames=9))
    x = torch.randn(3, frames, places, 8)
    maps: list[torch.Tensor] = []
    found = resampler(x, maps)
    assert found.shape == (3, 5, 8)
    assert maps[0].shape == (3, 2, 5, frames * places + 5)
    # The order of the places is nothing; that of the frames is.
    shuffled = resampler(x[:, :, torch.randperm(places)])
    torch.testing.assert_close(shuffled, found, rtol=1e-4, atol=1e-5)
    if frames > 1:
        assert (resampler(x.flip(1)) - found).abs().max() > 1e-4


def test_a_resampler_layer_against_its_formula():
    torch.manual_seed(0)
    resampler = PerceiverResampler(8, ResamplerConfig(2, 1, 1))
    x, z = torch.randn(1, 1, 3, 8), resampler.latents[None]
    layer = resampler.layers[0]
    media = x[:, 0] + resampler.times[0]
    both = torch.cat([layer.norm_features(media), layer.norm_latents(z)], 1)
    q, k, v = (
        f(y) for f, y in (
            (layer.attention.query, layer.norm_latents(z)), (layer.attention.key, both),
            (layer.attention.value, both),
        )
    )  # fmt: skip
    z = z + layer.attention.out((q @ k.transpose(1, 2) / 8**0.5).softmax(2) @ v)
    z = resampler.norm(z + layer.feed_forward(layer.norm(z)))
    torch.testing.assert_close(resampler(x), z)


def test_latents_that_begin_with_a_place_each_look_at_it():
    """Features are something in each place, and the vector of the place, in every frame."""
    torch.manual_seed(0)
    resampler = PerceiverResampler(64, ResamplerConfig(9, 1, 4))
    places = torch.randn(9, 64)
    x, maps = places + 0.3 * torch.randn(20, 2, 9, 64), []
    resampler.look_at(places)
    with torch.no_grad():
        before = resampler(x, maps)
    seen = maps[0][..., :18].unflatten(3, (2, 9)).sum(3)  # over frames: (B, heads, latents, places)
    assert torch.equal(seen.mean((0, 1)).argmax(1), torch.arange(9))
    own = seen.diagonal(dim1=2, dim2=3)
    assert float(own.mean()) > 5 * float((seen.sum(3) - own).mean() / 8)
    # What is in a place moves its own latent most.
    changed = x.clone()
    changed[:, :, 4] += 0.3 * torch.randn(20, 1, 64)
    with torch.no_grad():
        moved = (resampler(changed) - before).square().mean((0, 2))
    assert int(moved.argmax()) == 4
    assert float(moved[4]) > 3 * float(moved[[0, 1, 2, 3, 5, 6, 7, 8]].max())
    with pytest.raises(ValueError, match=r"got places \(4, 64\) for 9 latents of 64"):
        resampler.look_at(places[:4])
    with pytest.raises(ValueError, match=r"keys of 12 numbers in all; .*key_dim 0"):
        PerceiverResampler(64, ResamplerConfig(9, 1, 4, key_dim=3)).look_at(places)


def test_latents_may_be_narrower_than_the_features():
    """Features go through a linear map first; gated layers look at vectors of the new width."""
    torch.manual_seed(0)
    config = ResamplerConfig(5, 2, 2, 3, latent_dim=6)
    resampler, x = PerceiverResampler(8, config), torch.randn(3, 2, 4, 8)
    assert resampler(x).shape == (3, 5, 6)
    same = PerceiverResampler(6, replace(config, latent_dim=0))
    same.load_state_dict({k: p for k, p in resampler.state_dict().items() if "narrow" not in k})
    assert torch.equal(resampler(x), same(x @ resampler.narrow.weight.T))
    narrow = replace(model().config, resampler=config).build()
    assert narrow.look(images(2)).shape == (1, 10, 6)
    assert narrow.logits(with_start(TEXT), images()).isfinite().all()


def test_films_and_too_many_frames():
    flamingo = model()
    assert flamingo.look(images(2, 4)).shape == (1, 6, 8)
    still = images(2)[:, :, None]
    assert torch.equal(flamingo.look(still), flamingo.look(images(2)))
    with pytest.raises(ValueError, match="got 10 frames; the resampler takes 1 to 9"):
        flamingo.look(images(1, 10))
    with pytest.raises(ValueError, match=r"give \(B, N, C, H, W\)"):
        flamingo.look(torch.rand(1, 3, 8, 8))


# ---------------------------------------------------------------------------------------------
# Training and writing
# ---------------------------------------------------------------------------------------------


def test_frozen_weights_get_no_gradient_and_stay():
    flamingo = model().train()
    before = copy.deepcopy(flamingo.state_dict())
    learner = FlamingoLearner(flamingo, FlamingoLossConfig(warmup=0, weight_decay=0.1), 3)
    for _ in range(3):
        learner.update(FlamingoBatch(TEXT, images()))
    for name, p in flamingo.named_parameters():
        learns = not name.startswith(("language.", "vision."))
        assert (p.grad is not None) == learns, name
        assert torch.equal(p, before[name]) != learns, name
    assert not flamingo.language.training
    assert {n.split(".")[0] for n, _ in flamingo.learning.named_parameters()} == {
        "resampler", "gated",
    }  # fmt: skip
    with_vision = FlamingoLearner(model(), FlamingoLossConfig(warmup=0), 1, vision=True)
    with_vision.update(FlamingoBatch(TEXT, images()))
    assert all(p.grad is not None for p in with_vision.model.vision.parameters())


def test_muon_moves_the_resampler_and_the_gated_layers_and_nothing_frozen():
    flamingo = model().train()
    learner = FlamingoLearner(flamingo, FlamingoLossConfig(optimizer="muon"), 3)
    _, muon = learner.optimisation.optimizers
    moved = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in flamingo.named_parameters() if id(p) in moved}
    matrices = {
        name for name, p in flamingo.named_parameters()
        if name.startswith(("gated.", "resampler.layers.")) and p.dim() == 2
    }  # fmt: skip
    assert names == matrices
    assert len(names) > 6


def test_the_loss_counts_the_words_behind_the_first_image():
    flamingo = model()
    text = torch.cat([TEXT, torch.zeros(1, 3, dtype=torch.int64)], 1)
    learned = flamingo.learned(text)[0].tolist()
    #          5  im 6  7  eoc im 8  9  eoc 10 end
    assert learned == [
        False,
        False,
        True,
        True,
        True,
        False,
        True,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    log_p = flamingo.logits(with_start(text)[:, :-1], images()).log_softmax(-1)
    each = log_p.gather(2, text[:, :, None])[0, :, 0]
    expected = -each[torch.tensor(learned)].mean()
    torch.testing.assert_close(flamingo.loss(text, images()).loss, expected)
    counted = torch.zeros_like(text, dtype=torch.bool)
    counted[0, :4] = True
    torch.testing.assert_close(flamingo.loss(text, images(), counted).loss, -each[2:4].mean())


def test_writing_with_caches_is_writing_without():
    flamingo = model()
    prompt, shown = TEXT[:, :7], images()
    found = flamingo.generate(prompt, shown, 6, temperature=0.0, ends=False)
    tokens = prompt
    for _ in range(6):
        logits = flamingo.logits(with_start(tokens), shown)[:, -1]
        logits[:, IMAGE] = -torch.inf
        tokens = torch.cat([tokens, logits.argmax(-1)[:, None]], 1)
    assert torch.equal(found, tokens)
    # No tag is written, even where it is the most probable by far.
    with torch.no_grad():
        flamingo.language.embedding.weight[IMAGE] += 30 * flamingo.language.norm.bias
    drawn = flamingo.generate(prompt, shown, 9, generator=torch.Generator().manual_seed(0))
    assert not (drawn[:, 7:] == IMAGE).any()
    with pytest.raises(ValueError, match="window of 16; ask for fewer"):
        flamingo.generate(prompt, shown, 10)


def test_more_tags_than_images_are_refused():
    with pytest.raises(ValueError, match="2 image tags and there are 1 images"):
        model().logits(TEXT, images(1))
    with pytest.raises(ValueError, match="give two different ones below"):
        FlamingoConfig(image_token=3)
    with pytest.raises(ValueError, match="give one with from_start"):
        Flamingo(GPT(GPTConfig(12, 8, from_start=False)), NFNet(CONFIG.vision))


def test_a_saved_model_is_the_same(tmp_path):
    flamingo = model()
    flamingo.save_pretrained(tmp_path / "model")
    loaded = Flamingo.from_pretrained(tmp_path / "model")
    tokens = with_start(TEXT)
    assert torch.equal(loaded.logits(tokens, images()), flamingo.logits(tokens, images()))


def test_the_published_layout():
    """Chinchilla's 80 blocks of 8,192, a gated layer in front of every seventh: 12 of them."""
    with torch.device("meta"):
        flamingo = flamingo_of("80b").build()
    assert len(flamingo.gated) == 12
    d, v = 8192, 1536
    layer = sum(p.numel() for p in flamingo.gated[0].parameters())
    assert layer == 2 * d * d + 2 * v * d + 8 * d * d + 4 * d + 2
    assert sum(p.numel() for p in flamingo.vision.parameters()) == 435_286_116
    language = sum(p.numel() for p in flamingo.language.parameters())
    assert language == 80 * (12 * d * d + 13 * d) + (32_000 + 2048) * d + 2 * d
