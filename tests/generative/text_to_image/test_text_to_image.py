"""A diffusion model that is told a text: what it is told, what is left out, what is kept."""

import string
from dataclasses import replace

import pytest
import torch

from generative.diffusion import ScheduleConfig
from generative.loading import load_model
from generative.nets.config import clip_block
from generative.text_to_image import (
    ConditionalDiTConfig,
    ConditionalUNetConfig,
    ControlNetConfig,
    GLIDEConfig,
    TextEncoderConfig,
    TextToImage,
    TextToImageLearner,
    TextToImageLossConfig,
)
from generative.training.files import MAX_CONFIG_BYTES

torch.set_num_threads(1)

WORDS = ("red", "blue", "square", "disc")
CONFIG = GLIDEConfig(
    (3, 8, 8),
    WORDS,
    TextEncoderConfig(8, 6, 1, clip_block(8, 2), causal=False),
    ConditionalUNetConfig(8, (1, 2), head_dim=4, context_dim=8, vector_dim=8),
    ScheduleConfig(max_signal=0.999),
    steps=4,
)
TEXTS = ["red square", "blue disc", "", "red disc"]


def make(config: GLIDEConfig = CONFIG, noise: float = 0.2) -> TextToImage:
    """A model whose weights are anything, unless noise is 0."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=generator(5))


def test_captions_as_words_and_as_tokens_are_the_same():
    model = make()
    tokens = model.tokens(TEXTS)
    assert tokens.tolist() == [
        [2, 4, 6, 3, 0, 0], [2, 5, 7, 3, 0, 0], [0] * 6, [2, 4, 7, 3, 0, 0]
    ]  # fmt: skip
    assert torch.equal(model.sample(TEXTS, generator()), model.sample(tokens, generator()))
    # Each picture is of its own caption.
    other = model.sample(["blue square", *TEXTS[1:]], generator())
    assert not torch.allclose(other[0], model.sample(TEXTS, generator())[0])
    torch.testing.assert_close(other[1:], model.sample(TEXTS, generator())[1:])


DIT = replace(CONFIG, network=ConditionalDiTConfig(4, 8, 2, 2, 8, 8, 8))


def test_a_dit_takes_the_place_of_the_unet(tmp_path):
    """It reads captions, is guided, learns, is saved and loaded; no ControlNet copies it."""
    model = make(DIT)
    tokens = model.tokens(TEXTS)
    whole = model.sample(tokens, generator())
    torch.testing.assert_close(model.sample(tokens[:, :4], generator()), whole)
    other = model.sample(["blue square", *TEXTS[1:]], generator())
    assert not torch.allclose(other[0], whole[0])
    torch.testing.assert_close(other[1:], whole[1:])
    plain = model.sample(TEXTS, generator(), scale=1.0)
    assert not torch.allclose(plain[0], whole[0])
    torch.testing.assert_close(plain[2], whole[2])  # told nothing, nothing to be guided by
    learner = TextToImageLearner(model, TextToImageLossConfig(lr=1e-2), 60)
    losses = [float(learner.update((images(), TEXTS))["loss"]) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    learner.kept.save_pretrained(tmp_path)
    loaded = TextToImage.from_pretrained(tmp_path)
    assert loaded.config == learner.kept.config
    drawn = (m.eval().sample(TEXTS, generator()) for m in (loaded, learner.kept))
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="copies the way down of a U-Net"):
        ControlNetConfig(DIT)
    with pytest.raises(ValueError, match="give a patch that divides both"):
        replace(DIT, image_shape=(3, 8, 6))
    with pytest.raises(ValueError, match="the network takes tokens of width 8"):
        replace(DIT, text=replace(CONFIG.text, block=clip_block(12, 2)))


@pytest.mark.parametrize("prediction", ["flow", "edm"])
def test_networks_of_flow_matching_and_edm_draw_and_learn(prediction):
    config = replace(CONFIG, prediction=prediction, schedule=ScheduleConfig("rectified"))
    model = make(config, noise=0.0)
    loss = TextToImageLossConfig(weighting=prediction, lr=1e-2)
    learner = TextToImageLearner(model, loss, 60)
    losses = [float(learner.update((images(), TEXTS))["loss"]) for _ in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    drawn = learner.kept.sample(TEXTS, generator(), scale=2.0)
    assert drawn.shape == (4, 3, 8, 8)
    assert drawn.isfinite().all()


def test_the_network_of_edm_is_told_the_deviation_of_the_pixels():
    model = make(replace(CONFIG, prediction="edm", sigma_data=0.3))
    assert model.diffusion.sigma_data == 0.3


def test_signs_are_read_letter_by_letter():
    text = replace(CONFIG.text, vocab_size=32, max_len=8)
    words = ("says", "cat", *string.ascii_lowercase)
    spelled = make(replace(CONFIG, words=words, text=text, spelled=True))
    letter = {word: token for token, word in enumerate(words, 4)}
    assert spelled.tokens(["says cat"])[0].tolist() == [
        2, letter["says"], letter["c"], letter["a"], letter["t"], 3, 0, 0
    ]  # fmt: skip
    whole = make(replace(CONFIG, words=words, text=text))
    assert whole.tokens(["says cat"])[0].tolist() == [2, letter["says"], letter["cat"], 3, *[0] * 4]


def test_length_of_the_padding_has_no_influence():
    model, tokens = make(), make().tokens(TEXTS)
    assert torch.equal(model.sample(tokens, generator()), model.sample(tokens[:, :4], generator()))


def test_scale_one_is_plain_sampling_and_scale_zero_tells_nothing():
    model = make()
    told = model.diffusion.sample(4, generator(), context=model.told(model.tokens(TEXTS)))
    assert torch.equal(model.sample(TEXTS, generator(), scale=1.0), told)
    nothing = model.sample(4, generator())
    assert torch.equal(model.sample(TEXTS, generator(), scale=0.0), nothing)
    assert torch.equal(model.sample([""] * 4, generator()), nothing)
    strong = model.sample(TEXTS, generator(), scale=4.0)
    assert not torch.allclose(strong[0], told[0])
    # A picture that is told nothing has nothing to be guided by.
    torch.testing.assert_close(strong[2], told[2])
    assert torch.equal(
        model.sample(TEXTS, generator()), model.sample(TEXTS, generator(), scale=3.0)
    )


def test_guidance_counts_in_its_interval_alone():
    """Steps begin at log SNRs in the schedule's order: the first are guided, the rest are plain."""
    highest = -2.0
    model = make(replace(CONFIG, interval=(-30.0, highest), steps=8))
    everywhere, plain = make(replace(CONFIG, steps=8)), make(replace(CONFIG, steps=8, scale=1.0))
    z = torch.randn(4, 3, 8, 8, generator=generator())
    stations = model.diffusion.schedule.steps(8)
    guided_steps = sum(level <= highest for level in stations)
    assert 1 <= guided_steps < 8
    found, pushed = (list(m.path(TEXTS, z=z)) for m in (model, everywhere))
    for k in range(guided_steps):
        assert torch.equal(found[k].data, pushed[k].data)
    assert not torch.allclose(found[-1].data, pushed[-1].data)
    # Without guidance in any step, the plain picture.
    late = make(replace(CONFIG, interval=(50.0, 60.0), steps=8))
    assert torch.equal(late.sample(TEXTS, generator()), plain.sample(TEXTS, generator()))
    walks = [m.walk("red square", "blue disc", 3, z[:2]) for m in (late, plain)]
    assert torch.equal(*walks)


def test_the_last_of_the_path_is_the_sample():
    model = make()
    z = torch.randn(4, 3, 8, 8, generator=generator())
    steps = list(model.path(TEXTS, z=z, steps=7))
    assert len(steps) == 7
    sample = model.sample(TEXTS, generator(), steps=7)
    torch.testing.assert_close(model.images(steps[-1].x), sample)
    # Estimates of the picture are clipped to its range, also those of the first steps.
    for step in steps:
        assert step.data.abs().max() <= 1 + 1e-6


def test_loss_begins_at_the_mean_square_of_the_noise():
    model = make(replace(CONFIG, prediction="noise", schedule=ScheduleConfig()), noise=0.0)
    config = TextToImageLossConfig(weighting="noise", drop=0.0)
    x = images().repeat(25, 1, 1, 1)
    torch.testing.assert_close(
        model.loss(x, 100, config, generator()).loss, torch.tensor(1.0), atol=0.04, rtol=0
    )


def test_texts_are_left_out_in_training():
    """With nearly all of them left out the loss is that of images that are told nothing."""
    model, config = make(), TextToImageLossConfig(drop=0.999999)
    untold = replace(config, drop=0.0)
    dropped = model.loss(images(), TEXTS, config, generator(3)).loss
    state = generator(3)
    torch.rand(4, generator=state)  # which of them
    assert torch.equal(dropped, model.loss(images(), 4, untold, state).loss)
    assert not torch.allclose(dropped, model.loss(images(), TEXTS, untold, generator(3)).loss)


def test_filling_in_keeps_what_is_around():
    model, x = make(), images()
    hole = torch.zeros(1, 8, 8, dtype=torch.bool)
    hole[:, 2:5, 3:6] = True
    filled = model.inpaint(x, hole, TEXTS, generator())
    outside = ~hole.expand(4, 3, -1, -1)
    assert torch.equal(filled[outside], x[outside])
    assert not torch.allclose(filled[~outside], x[~outside])
    # What was in the hole has no influence.
    blank = model.inpaint(x.masked_fill(hole, 0.0), hole, TEXTS, generator())
    assert torch.equal(filled, blank)
    with pytest.raises(ValueError, match="bool"):
        model.inpaint(x, hole.float(), TEXTS)


def test_drawing_over_keeps_the_more_the_weaker_it_is():
    model, x = make(), images()
    distances = [
        float((model.redraw(x, TEXTS, strength, generator(), steps=20) - x).abs().mean())
        for strength in (0.0, 0.4, 1.0)
    ]
    assert distances[0] < distances[1] < distances[2]


def test_learns_what_the_words_mean():
    """Two pictures, one for each word: each is drawn when its word is said."""
    config = replace(
        CONFIG, image_shape=(1, 4, 4), network=replace(CONFIG.network, multipliers=(1,),
        attention=(0,), width=16), prediction="data", steps=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = config.build()
    x = torch.stack([torch.full((1, 4, 4), 0.9), torch.full((1, 4, 4), 0.1)]).repeat(8, 1, 1, 1)
    loss = TextToImageLossConfig(weighting="data", lr=1e-2, final_lr=1e-4, ema=0.9, level_mean=-3.0)
    learner = TextToImageLearner(model, loss, 50)
    for step in range(50):
        torch.manual_seed(step)
        learner.update((x, ["red", "blue"] * 8))
    drawn = learner.kept.sample(["red", "blue"] * 4, generator(), scale=1.0).mean((1, 2, 3))
    assert drawn[::2].min() > 0.7
    assert drawn[1::2].max() < 0.3


def test_reads_no_caption_without_words():
    model = make(replace(CONFIG, words=()))
    assert model.sample(2, generator()).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"has no words.*pass tokens"):
        model.sample(["red square"])


def test_a_model_with_all_the_words_of_the_publication_is_read_again(tmp_path):
    """Settings of a model have room for its words, 50,000 and more."""
    words = tuple(f"somewhat{number}" for number in range(60_000))
    text = replace(CONFIG.text, vocab_size=len(words) + 4)
    model = make(replace(CONFIG, words=words, text=text))
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "config.json").stat().st_size > MAX_CONFIG_BYTES
    again = load_model(tmp_path)
    assert again.words == words
    assert torch.equal(again.tokens([words[-1]]), model.tokens([words[-1]]))


def test_unknown_words_are_named_and_long_captions_refused(capsys):
    model = make()
    assert model.tokens(["green disc"])[0].tolist() == [2, 1, 7, 3, 0, 0]
    assert "'green'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs 7 tokens"):
        model.tokens(["red red red red red"])


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: replace(CONFIG, image_shape=(3, 9, 8)), "9x8.*2 divides"),
        (lambda: replace(CONFIG, words=(*WORDS, "white")), "5 words.*vectors for 8.*vocab_size 9"),
        (lambda: replace(CONFIG, network=replace(CONFIG.network, vector_dim=4)),
         "a vector of width 4.*8 and 8"),
        (lambda: replace(CONFIG, interval=(1.0, -1.0)), "lowest and the highest log SNR"),
        (lambda: replace(CONFIG, schedule=ScheduleConfig("cosine"), prediction="noise"),
         "use prediction velocity"),
        (lambda: make().loss(images(), TEXTS[:3]), "4 images and 3 texts"),
        (lambda: make().loss(images()[:0], []), "batch of 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_explained(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
