"""Latent diffusion: the autoencoder, the scale of its latents, and what is not trained."""

from dataclasses import replace

import pytest
import torch

from generative.codes import VQVAEConfig
from generative.diffusion import ScheduleConfig
from generative.nets.config import QuantiserConfig, clip_block
from generative.text_to_image import (
    ConditionalUNetConfig,
    ControlNet,
    KLAutoencoderConfig,
    KLAutoencoderLearner,
    KLAutoencoderLossConfig,
    LatentDiffusionConfig,
    TextEncoderConfig,
    TextToImage,
    TextToImageLearner,
    TextToImageLossConfig,
)

torch.set_num_threads(1)

WORDS = ("red", "blue", "square", "disc")
KL = KLAutoencoderConfig((3, 16, 16), 8, (1, 1), 1, channels=2)
VQ = VQVAEConfig((3, 16, 16), (8,), 4, 1, QuantiserConfig(8, 2))
CONFIG = LatentDiffusionConfig(
    KL,
    WORDS,
    TextEncoderConfig(8, 6, 1, clip_block(8, 2)),
    ConditionalUNetConfig(8, (1, 2), head_dim=4, context_dim=8, vector_dim=8),
    ScheduleConfig(max_signal=0.999),
    "velocity",
    steps=4,
)
TEXTS = ["red square", "blue disc", ""]
LOSS = TextToImageLossConfig(drop=0.0, lr=1e-2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(autoencoder: KLAutoencoderConfig | VQVAEConfig = KL, vector_dim: int = 8) -> TextToImage:
    torch.manual_seed(0)
    network = replace(CONFIG.network, vector_dim=vector_dim)
    model = replace(CONFIG, autoencoder=autoencoder, network=network).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


X = torch.rand(6, 3, 16, 16, generator=generator(5))


def test_the_published_autoencoder_has_its_size():
    with torch.device("meta"):
        model = KLAutoencoderConfig((3, 256, 256), 128, (1, 2, 4, 4), 2).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 83_653_863
    assert model.latent_shape == (4, 32, 32)


def test_a_unet_without_a_vector_is_told_the_tokens_alone(tmp_path):
    """As Stable Diffusion's: it learns, draws and walks by them, and a ControlNet copies it."""
    model = make(vector_dim=0)
    model.measure([X])
    tokens = model.tokens(TEXTS)
    told = model.told(tokens)
    assert told.vector is None
    assert told.tokens is not None
    assert make().told(tokens).vector.shape == (3, 8)
    network = model.diffusion.network
    assert network.vector is None
    model.loss(X[:3], TEXTS, LOSS, generator()).loss.backward()
    assert network.level.maps[0].weight.grad.abs().max() > 0
    drawn = model.sample(TEXTS, generator(), scale=2.0)
    others = model.sample(["blue square", *TEXTS[1:]], generator(), scale=2.0)
    assert drawn.shape == (3, 3, 16, 16)
    assert (drawn[0] - others[0]).abs().max() > 1e-6
    torch.testing.assert_close(drawn[1:], others[1:])
    z = model.noise(2, generator())
    ends = model.walk("red square", "blue disc", 3, z)
    assert ends.shape == (3, 3, 16, 16)
    model.save_pretrained(tmp_path / "model")
    again = TextToImage.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.sample(TEXTS, generator(), scale=2.0), drawn)
    controlled = ControlNet.around(model, 1, (4, 8)).eval()
    assert not controlled.pooled
    hint = torch.rand(3, 1, 16, 16, generator=generator(2))
    torch.testing.assert_close(controlled.sample(TEXTS, generator(), scale=2.0, hint=hint), drawn)


def test_a_vector_of_another_width_than_the_text_is_refused():
    with pytest.raises(ValueError, match=r"a vector of width 4.*8 and 8"):
        replace(CONFIG, network=replace(CONFIG.network, vector_dim=4))


@pytest.mark.parametrize("recon", ["l1", "l2"])
def test_loss_of_the_autoencoder_by_hand(recon):
    torch.manual_seed(0)
    model = KL.build()
    mu, logvar = model.encode_mu_logvar(X)
    z = mu + (logvar / 2).exp() * torch.randn(mu.shape, generator=generator(1))
    away = (model.decoder(z) + 1) / 2 - X
    error = (away.abs() if recon == "l1" else away * away).mean()
    normal = torch.distributions.Normal(mu, (logvar / 2).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(normal, standard).sum((1, 2, 3)).mean()
    losses = model.loss(X, 1e-3, generator(1), recon)
    torch.testing.assert_close(losses.recon, error)
    torch.testing.assert_close(losses.kl, kl)
    torch.testing.assert_close(losses.loss, error + 1e-3 * kl / X[0].numel())
    learner = KLAutoencoderLearner(model, KLAutoencoderLossConfig(kl_weight=1e-3, recon=recon), 1)
    torch.manual_seed(7)
    expected = model.loss(X, 1e-3, recon=recon).loss.detach()
    torch.manual_seed(7)
    torch.testing.assert_close(learner.update(X)["loss"], expected)


@pytest.mark.parametrize("autoencoder", [KL, VQ], ids=["kl", "vq"])
def test_latents_of_the_set_have_deviation_one(autoencoder):
    model = make(autoencoder)
    first = model.measure([X[:1]])
    std = model.measure([X[:2], X[2:]])
    assert std != first  # one image is not the set
    assert float(model.space(X).std()) == pytest.approx(1, abs=0.01)
    assert float(model.latent_std) == pytest.approx(std)
    # The way back undoes the scale: what comes of it is the autoencoder's own picture.
    assert model.autoencoder is not None
    torch.testing.assert_close(model.images(model.space(X)), model.autoencoder.reconstruct(X))


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("deviation", [5.95, 0.2])
def test_latents_that_were_never_measured_are_refused(deviation, n):
    model, x = make(), torch.rand(n, 3, 16, 16, generator=generator(5))
    first = model.measure([x])
    with torch.no_grad():
        for parameter in model.get_submodule("autoencoder.encoder.10").parameters():
            parameter.mul_(deviation / first)
    model.latent_std.fill_(1)
    with pytest.raises(ValueError, match=rf"of {n} images have deviation {deviation}.*measure\("):
        model.loss(x, ["red square"] * n, LOSS)
    assert model.measure([x]) == pytest.approx(deviation, rel=1e-4)
    assert model.loss(x, ["red square"] * n, LOSS).loss.isfinite()


def test_a_model_that_was_measured_trains_on_after_loading(tmp_path):
    """Its images are looked at once more, and one plain image is no reason to refuse."""
    model, x = make(), torch.rand(8, 3, 16, 16, generator=generator(5))
    model.measure([x])
    model.save_pretrained(tmp_path / "model")
    again = TextToImage.from_pretrained(tmp_path / "model")
    assert again.loss(x, ["red square"] * 8, LOSS).loss.isfinite()
    plain = torch.full_like(x[:1], 0.5)
    assert TextToImage.from_pretrained(tmp_path / "model").loss(plain, 1, LOSS).loss.isfinite()


def test_a_space_without_width_is_refused():
    model = make()
    with torch.no_grad():
        for parameter in model.get_submodule("autoencoder.encoder").parameters():
            parameter.zero_()
    with pytest.raises(ValueError, match=r"deviation 0.*train the autoencoder first"):
        model.measure([X])


@pytest.mark.parametrize("autoencoder", [KL, VQ], ids=["kl", "vq"])
def test_only_the_u_net_is_trained(autoencoder):
    model = make(autoencoder)
    model.measure([X])
    learner = TextToImageLearner(model.train(), LOSS, 3)
    assert not model.text.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        learner.update((X, ["red square"] * 6))
    for name, value in model.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == name.startswith("diffusion.network"), name
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("diffusion.network"), name


def test_samples_holes_and_ways_between():
    model = make()
    images = model.sample(TEXTS, generator())
    assert images.shape == (3, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    hole = torch.zeros(1, 16, 16, dtype=torch.bool)
    hole[:, 3:9, 5:6] = True  # odd pixels: every latent that touches it is in the hole
    filled = model.inpaint(images, hole, TEXTS, generator(1))
    outside = ~hole.expand(3, 3, -1, -1)
    assert torch.equal(filled[outside], images[outside])
    assert not torch.allclose(filled[~outside], images[~outside])
    z = model.noise(2, generator(2))
    way = model.walk("red square", "blue disc", 5, z)
    for text, end, noise in (("red square", way[:1], z[:1]), ("blue disc", way[-1:], z[1:])):
        *_, last = model.path([text], z=noise)
        torch.testing.assert_close(model.images(last.x), end, rtol=1e-3, atol=1e-4)
    still = model.walk("red square", "red square", 3, z[:1].expand(2, -1, -1, -1))
    torch.testing.assert_close(still, still[:1].expand(3, -1, -1, -1), rtol=1e-3, atol=1e-4)


def test_pixels_have_no_latents_to_measure():
    from tests.generative.families.text_to_image import glide

    with pytest.raises(ValueError, match="no autoencoder"):
        glide().measure([X])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"autoencoder": replace(KL, image_shape=(3, 14, 14))}, "7x7 places.*2 divides"),
        ({"words": (*WORDS, "white")}, "5 words.*vocab_size 9"),
        ({"network": ConditionalUNetConfig(8, head_dim=4)}, "width 64.*is told 8 and 0"),
        ({"schedule": ScheduleConfig("cosine"), "prediction": "noise"}, "velocity"),
    ],
)
def test_what_cannot_be_is_explained(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
