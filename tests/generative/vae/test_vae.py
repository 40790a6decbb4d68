"""The VAE against the paper's figure, closed forms and small loops."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from generative.vae import (
    ConvVAE,
    ConvVAEConfig,
    VAELearner,
    VAELossConfig,
    gaussian_kl,
    sample_gaussian,
    to_float_bchw,
    to_uint8_bhwc,
    vae_loss,
)

torch.set_num_threads(1)
SMALL = ConvVAEConfig(latent_dim=4, channels=(4, 8, 8, 16))


def small_vae(seed: int = 0, config: ConvVAEConfig = SMALL) -> ConvVAE:
    torch.manual_seed(seed)
    return config.build()


def test_size_is_the_papers():
    vae = ConvVAEConfig().build()
    assert sum(p.numel() for p in vae.parameters()) == 4_348_547
    assert all(p.requires_grad for p in vae.parameters())


@pytest.mark.parametrize(
    ("part", "given", "shapes"),
    [
        ("encoder", (3, 64, 64), [(32, 31, 31), (64, 14, 14), (128, 6, 6), (256, 2, 2), (1024,)]),
        ("decoder", (1024,), [(1024, 1, 1), (128, 5, 5), (64, 13, 13), (32, 30, 30), (3, 64, 64)]),
    ],
)
def test_layers_have_the_papers_shapes(part, given, shapes):
    x, seen = torch.zeros(2, *given), []
    vae = ConvVAEConfig().build()
    for layer in vae.encoder if part == "encoder" else vae.decoder.layers:
        x = layer(x)
        if not isinstance(layer, torch.nn.ReLU):
            seen.append(tuple(x.shape[1:]))
    assert seen == shapes


def test_submodels_agree():
    vae = small_vae()
    x = torch.rand(3, 3, 64, 64)
    mu, logvar = vae.encode_mu_logvar(x)
    assert mu.shape == logvar.shape == (3, 4)
    seeded = [torch.Generator().manual_seed(7) for _ in range(3)]
    z = vae.encode(x, True, seeded[0])
    eps = torch.randn(3, 4, generator=seeded[1])
    torch.testing.assert_close(z, mu + logvar.exp().sqrt() * eps)
    recon, mu_again, logvar_again = vae(x, seeded[2])
    torch.testing.assert_close(recon, vae.decode(z))
    torch.testing.assert_close((mu_again, logvar_again), (mu, logvar))
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(mu))
    torch.testing.assert_close(vae.decode(z), torch.sigmoid(vae.decode_logits(z)))
    assert vae.sample(5).shape == (5, 3, 64, 64)
    assert 0 <= recon.min() <= recon.max() <= 1


def test_kl_is_that_of_torch_distributions():
    mu, logvar = torch.randn(2, 50, 8, dtype=torch.float64).unbind(0)
    normal = Normal(mu, (logvar / 2).exp())
    torch.testing.assert_close(gaussian_kl(mu, logvar), kl_divergence(normal, Normal(0.0, 1.0)))


def test_sampled_z_has_the_posteriors_moments():
    mu, logvar = torch.tensor([-2.0, 3.0]), torch.tensor([-3.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    z = sample_gaussian(mu.expand(20_000, 2), logvar.expand(20_000, 2), generator)
    std = (logvar / 2).exp()
    assert ((z.mean(0) - mu).abs() < 4 * std / math.sqrt(20_000)).all()
    torch.testing.assert_close(z.std(0), std, rtol=0.03, atol=0)


@pytest.mark.parametrize(("beta", "free_bits"), [(1.0, 0.5), (4.0, 0.0), (0.5, 100.0)])
def test_loss_by_hand(beta, free_bits):
    rng = np.random.default_rng(0)
    recon, x = rng.random((2, 3, 3, 64, 64))
    mu, logvar = rng.normal(size=(2, 3, 4))
    mu[0], logvar[0] = 0.1, 0.0  # this image's KL is below 0.5 nats a dimension
    total_error = total_kl = total_cost = 0.0
    for i in range(3):
        total_error += sum((a - b) ** 2 for a, b in zip(recon[i].flat, x[i].flat, strict=True))
        kl = sum(0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(mu[i], logvar[i], strict=True))
        total_kl += kl
        total_cost += max(kl, free_bits * 4)
    losses = vae_loss(*map(torch.from_numpy, (recon, x, mu, logvar)), beta, free_bits)
    assert losses.recon.item() == pytest.approx(total_error / 3)
    assert losses.kl.item() == pytest.approx(total_kl / 3)
    assert losses.loss.item() == pytest.approx(total_error / 3 + beta * total_cost / 3)


def test_the_models_loss_is_that_of_its_output():
    vae, x = small_vae(), torch.rand(3, 3, 64, 64)
    seeded = [torch.Generator().manual_seed(1) for _ in range(2)]
    recon, mu, logvar = vae(x, seeded[0])
    for free_bits in (0.0, 0.5):
        given = vae.loss(x, 2.0, free_bits, seeded[1].manual_seed(1))
        torch.testing.assert_close(given, vae_loss(recon, x, mu, logvar, 2.0, free_bits))


def test_bound_by_torch_distributions():
    """Squared error as a Gaussian of variance 1/2; the average weight of three draws."""
    vae, x = small_vae().double(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    bound = vae.bound(x, 3, torch.Generator().manual_seed(4))
    mu, logvar = vae.encode_mu_logvar(x)
    q = Independent(Normal(mu, (logvar / 2).exp()), 1)
    generator = torch.Generator().manual_seed(4)
    eps = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    weights = []
    for z in mu + (logvar / 2).exp() * eps:
        pixels = Independent(Normal(vae.decode(z), math.sqrt(0.5)), 3)
        prior = Independent(Normal(torch.zeros_like(z), 1.0), 1)
        weights.append(pixels.log_prob(x) + prior.log_prob(z) - q.log_prob(z))
    expected = torch.stack(weights).logsumexp(0) - math.log(3)
    torch.testing.assert_close(bound, expected)


def test_free_bits_cost_nothing_and_push_nothing():
    image = torch.zeros(1, 3, 64, 64)
    mu, logvar = torch.full((1, 4), 0.1, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    vae_loss(image, image, mu, logvar, free_bits=0.5).loss.backward()
    assert not mu.grad.any()
    assert not logvar.grad.any()


def test_gradients_reach_every_parameter():
    vae = small_vae()
    x = torch.rand(4, 3, 64, 64)
    recon, mu, logvar = vae(x)
    vae_loss(recon, x, mu, logvar, free_bits=0.0).loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_decoding_as_blocks_is_decoding():
    vae = small_vae().double()
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    blocks = vae.decoder.as_blocks(z)
    image = F.pixel_unshuffle(vae.decode_logits(z), 2)
    torch.testing.assert_close(blocks, image)
    weight = torch.randn(image.shape, dtype=torch.float64)
    inputs = [z, *vae.decoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((blocks * weight).sum(), inputs),
        torch.autograd.grad((image * weight).sum(), inputs),
    )


def test_learner_takes_the_steps_of_a_plain_loop():
    vae, frames = small_vae(), road_frames()
    plain, settings = copy.deepcopy(vae), VAELossConfig(beta=0.5)
    learner = VAELearner(vae, settings, steps=1000)
    optimizer = torch.optim.Adam(plain.parameters(), lr=settings.lr)
    for step in range(3):
        torch.manual_seed(step)
        recon, mu, logvar = plain(to_float_bchw(frames))
        expected = vae_loss(recon, to_float_bchw(frames), mu, logvar, beta=0.5)
        optimizer.zero_grad()
        expected.loss.backward()
        optimizer.step()
        torch.manual_seed(step)
        given = learner.update(frames)
        for name, value in expected._asdict().items():
            torch.testing.assert_close(given[name], value.detach(), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(vae.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def road_frames() -> torch.Tensor:
    """Eight green fields with a grey road at different places, uint8 (8, 64, 64, 3)."""
    frames = torch.full((8, 64, 64, 3), 60, dtype=torch.uint8)
    frames[..., 1] = 200
    for i in range(8):
        frames[i, :, 5 * i + 4 : 5 * i + 20] = 105
    return frames


@pytest.mark.nightly
def test_overfits_eight_frames():
    """In every run `test_comes_half_the_way_to_eight_examples`, of the families, begins it."""
    vae, frames = small_vae(config=ConvVAEConfig(8, (8, 16, 32, 32))), road_frames()
    learner = VAELearner(vae, VAELossConfig(lr=5e-3, final_lr=5e-4), steps=200)
    first = learner.update(frames)["recon"]
    for _ in range(199):
        last = learner.update(frames)
    assert last["recon"] < 0.1 * first
    assert learner.optimisation.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-4)
    error = (to_uint8_bhwc(vae.reconstruct(to_float_bchw(frames))).float() - frames.float()).abs()
    assert error.mean() < 12  # of 255


def test_bf16_learns_almost_the_same_in_float32_weights():
    losses = []
    for bf16 in (False, True):
        learner = VAELearner(small_vae(), VAELossConfig(lr=2e-3, bf16=bf16), steps=10)
        torch.manual_seed(0)
        losses.append([learner.update(road_frames())["loss"].item() for _ in range(10)])
        assert all(p.dtype == torch.float32 for p in learner.model.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_learner_goes_on_from_its_state_dict():
    frames, config = road_frames(), VAELossConfig(lr=1e-3, final_lr=1e-4)
    whole = VAELearner(small_vae(), config, steps=6)
    for step in range(6):
        torch.manual_seed(step)
        whole.update(frames)
        if step == 2:
            halfway = copy.deepcopy(whole.state_dict())
    resumed = VAELearner(small_vae(seed=1), config, steps=6)
    resumed.load_state_dict(halfway)
    for step in range(3, 6):
        torch.manual_seed(step)
        resumed.update(frames)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_pixels_survive_the_way_to_floats_and_back():
    frames = torch.arange(256, dtype=torch.uint8).repeat(48).reshape(1, 64, 64, 3)
    x = to_float_bchw(frames)
    assert x.shape == (1, 3, 64, 64)
    assert (x.min(), x.max()) == (0, 1)
    assert x[0, 2, 5, 6] == frames[0, 5, 6, 2] / 255
    assert torch.equal(to_uint8_bhwc(x), frames)


def test_wrong_input_is_explained():
    vae = small_vae()
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\).*needs float \(B, 3, 64, 64\)"):
        vae.encode_mu_logvar(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"uint8.*to_float_bchw"):
        vae.encode_mu_logvar(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(2, 5\).*ConvVAE needs float \(B, 4\)"):
        vae.decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="latent_dim is 0"):
        ConvVAEConfig(latent_dim=0)
    with pytest.raises(ValueError, match="must be 4 values"):
        ConvVAEConfig(channels=(1, 2, 3))


def test_saved_and_loaded(tmp_path):
    vae = small_vae()
    vae.save_pretrained(tmp_path / "vae")
    again = ConvVAE.from_pretrained(tmp_path / "vae")
    assert again.config == SMALL
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again.reconstruct(x), vae.reconstruct(x), rtol=0, atol=0)
