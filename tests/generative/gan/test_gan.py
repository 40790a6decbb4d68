"""GANs against the book's layer tables, closed forms, loops, and plain optimisers."""

import copy
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from generative.gan import (
    GAN,
    ConditionalGANConfig,
    GANConfig,
    GANLearner,
    GANLossConfig,
    WGANConfig,
    WGANLearner,
    WGANLossConfig,
    coverage,
    critic_loss,
    energy_coefficient,
    generator_loss,
    nearest_images,
    squared_slope,
)
from generative.gan.config import GAN_BOOK
from generative.known.sprites import sprites
from generative.training.files import json_bytes, write_folder

torch.set_num_threads(1)

WRONG = torch.ones(2, 1, 4, 4)
EXACT = GANLossConfig(label_noise=0.0, clip=0.0)
TINY = GANConfig((1, 8, 8), latent_dim=3, widths=(4, 6))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_are_the_books():
    model = GANConfig().build()
    assert count(model.critic) == 2_763_520
    assert count(model.generator) == 3_574_656
    for network, statistics in ((model.critic, 1_792), (model.generator, 1_920)):
        buffers = [b for name, b in network.named_buffers() if "running" in name]
        assert sum(b.numel() for b in buffers) == statistics
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [count(layer) for layer in layers] == [
        819_200, 2_097_152, 524_288, 131_072, 1_024,
        1_024, 131_072, 524_288, 2_097_152, 8_192,
    ]  # fmt: skip


@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_shapes_are_the_books(upsample):
    model = GANConfig(upsample=upsample).build().eval()
    x, sides = torch.zeros(2, 100), []
    for layer in model.generator.layers:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            sides.append(tuple(x.shape[1:]))
    assert sides == [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32)]
    assert x.shape == (2, 1, 64, 64)
    assert model.heights(torch.rand(2, 1, 64, 64)).shape == (2,)
    assert count(model.generator) == 3_574_656


def test_nearest_doubling_by_a_loop():
    """Pixel (r, c) of "same" padding with a 4x4 kernel reads r - 1 .. r + 2 of repeated pixels."""
    torch.manual_seed(0)
    model = GANConfig((1, 4, 4), 2, widths=(1,), upsample="nearest", batch_norm="none").build()
    up, pad, convolution = model.generator.layers[-4:-1]
    x = torch.rand(1, 1, 2, 2)
    padded = np.zeros((7, 7))
    padded[1:5, 1:5] = np.kron(x[0, 0].numpy(), np.ones((2, 2)))
    kernel = convolution.weight.detach().numpy()[0, 0]
    expected = [[(padded[r : r + 4, c : c + 4] * kernel).sum() for c in range(4)] for r in range(4)]
    found = convolution(pad(up(x)))[0, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_images_are_scaled_for_the_networks_and_back():
    model = TINY.build().eval()
    z, x = torch.randn(3, 3), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(2 * model.generate(z) - 1, model.generator(z))
    torch.testing.assert_close(model.heights(x), model.critic(2 * x - 1))


# ---------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------


def test_best_critic_is_the_log_ratio_and_its_loss_the_jensen_shannon_divergence():
    """Goodfellow et al. 2014, proposition 1, on three outcomes."""
    p, q = torch.tensor([5, 3, 2]), torch.tensor([1, 3, 6])
    table = (p / q).log().double().requires_grad_()
    outcomes = torch.arange(3)
    real, fake = table[outcomes.repeat_interleave(p)], table[outcomes.repeat_interleave(q)]
    loss = critic_loss(real, fake, EXACT)
    (slope,) = torch.autograd.grad(loss, table)
    torch.testing.assert_close(slope, torch.zeros(3).double(), atol=1e-7, rtol=0)
    middle = (p + q) / 20
    divergence = sum(0.5 * (r / 10 * (r / 10 / middle).log()).sum() for r in (p, q))
    assert loss.item() == pytest.approx(math.log(2) - float(divergence))


def test_cross_entropy_on_logits_and_on_clipped_probabilities():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    expected = (
        F.binary_cross_entropy(real.sigmoid(), torch.ones(2))
        + F.binary_cross_entropy(fake.sigmoid(), torch.zeros(2))
    ) / 2
    for config in (EXACT, GANLossConfig(label_noise=0.0, clip=1e-7)):
        torch.testing.assert_close(critic_loss(real, fake, config), expected)
        torch.testing.assert_close(generator_loss(fake, real, config), -fake.sigmoid().log().mean())


def test_the_books_labels_make_its_loss_negative_and_its_gradient_zero():
    """Its probabilities end at 1 - 1e-7, where no gradient is left; with labels of 1.1 and -0.1
    the loss is then 0.1 log(1e-7) = -1.61, and on average half of that."""
    config = GAN_BOOK
    real = torch.full((20_000,), 40.0, requires_grad=True)
    torch.manual_seed(0)
    loss = critic_loss(real, -real, config)
    assert float(loss) == pytest.approx(0.05 * math.log(1e-7), rel=0.02)
    assert not torch.autograd.grad(loss, real)[0].any()
    assert float(generator_loss(-real, real, config)) == pytest.approx(-math.log(1e-7), rel=1e-3)
    slope = torch.autograd.grad(critic_loss(real, -real, GANLossConfig()), real)[0]
    assert (slope > 0).all()  # it is told to be less sure


@pytest.mark.parametrize(
    ("config", "real", "fake"),
    [
        (GAN_BOOK, (1.0, 1.1), (-0.1, 0.0)),
        (GANLossConfig(), (0.9, 1.0), (0.0, 0.1)),
        (GANLossConfig(label_noise=0.0, flip=0.25), (0.0, 1.0), (0.0, 1.0)),
    ],
)
def test_labels(config, real, fake):
    """The slope of the cross-entropy in a logit of 0 is 1/2 - label."""
    torch.manual_seed(0)
    logits = torch.zeros(2, 10_000, requires_grad=True)
    (slope,) = torch.autograd.grad(critic_loss(*logits, config), logits)
    labels = 0.5 - slope * 20_000
    for found, (low, high), right in zip(labels, (real, fake), (1.0, 0.0), strict=True):
        assert low - 1e-5 <= float(found.min())
        assert float(found.max()) <= high + 1e-5
        middle = (low + high) / 2 if not config.flip else abs(right - config.flip)
        assert float(found.mean()) == pytest.approx(middle, abs=0.02)


def test_other_objectives_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 1.0])
    hinge, pairs = (GANLossConfig(objective=name) for name in ("hinge", "relativistic"))
    assert float(critic_loss(real, fake, hinge)) == pytest.approx((0 + 0.5 + 0 + 2) / 2)
    assert float(generator_loss(fake, real, hinge)) == pytest.approx(0.5)
    log1p = [math.log1p(math.exp(d)) for d in (-4.0, 0.5)]
    assert float(critic_loss(real, fake, pairs)) == pytest.approx(sum(log1p) / 2)
    assert float(critic_loss(fake, real, pairs)) == float(generator_loss(fake, real, pairs))


def test_squared_slope_of_a_linear_score_and_of_a_square():
    w, x = torch.tensor([3.0, 4.0]), torch.randn(5, 2, requires_grad=True)
    torch.testing.assert_close(squared_slope(x @ w, x), torch.tensor(25.0))
    found = squared_slope(x.square().sum(1), x)
    torch.testing.assert_close(found, 4 * x.square().sum(1).mean())
    assert torch.autograd.grad(found, x)[0].any()


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def test_a_step_takes_both_gradients_before_either_network_moves():
    """Against two plain backward passes, each with its own copy of the model."""
    torch.manual_seed(0)
    config = GANConfig((2,), 2, (8,), batch_norm="none", bias=True, dropout=0.0)
    loss = GANLossConfig(label_noise=0.0, clip=0.0, r1=0.7, r2=0.4, lr=1e-3, critic_lr=3e-3)
    model, x = config.build(), torch.randn(6, 2)
    judge, maker = copy.deepcopy(model), copy.deepcopy(model)
    learner = GANLearner(model, loss, steps=10)
    torch.manual_seed(5)
    learner.update(x)
    torch.manual_seed(5)
    z = torch.randn(6, 2)

    fake = judge.generator(z).detach().requires_grad_()
    real = x.clone().requires_grad_()
    c_loss = (F.softplus(-judge.critic(real)) + F.softplus(judge.critic(fake))).mean()
    for weight, points in ((0.7, real), (0.4, fake)):
        (slope,) = torch.autograd.grad(judge.critic(points).sum(), points, create_graph=True)
        c_loss = c_loss + weight * slope.square().sum(1).mean()
    (c_loss / 2).backward()
    F.softplus(-maker.critic(maker.generator(z))).mean().backward()
    for network, lr in ((judge.critic, 3e-3), (maker.generator, 1e-3)):
        torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), eps=1e-7).step()
    for ours, theirs in (
        (model.critic, judge.critic),
        (model.generator, maker.generator),
    ):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_lazy_penalties_weigh_as_much_as_those_they_stand_for():
    """Updates 1 and 4 of every third have three times the penalty, the others none."""
    config = GANConfig((2,), 2, (8,), batch_norm="none", bias=True, dropout=0.0)
    still = GANLossConfig("relativistic", r1=0.7, r2=0.4, lr=0.0, critic_lr=0.0, penalty_end=0.5)
    x, told = torch.randn(6, 2), {}
    for every in (1, 3):
        torch.manual_seed(0)
        learner = GANLearner(config.build(), replace(still, penalty_every=every), steps=4)
        told[every] = []
        for step in range(4):
            torch.manual_seed(step)
            told[every].append(learner.update(x).get("penalty"))
    assert [penalty is None for penalty in told[3]] == [False, True, True, False]
    for lazy, each in zip(told[3], told[1], strict=True):
        assert lazy is None or float(lazy) == pytest.approx(3 * float(each))


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        GANConfig((1, 8, 8), 3, (4, 6), bias=True, upsample="nearest", spectral_norm=True),
        GANConfig((2,), 2, (8, 8), batch_norm="none", bias=True, num_waves=2),
    ],
)
def test_gradients_reach_every_parameter(config):
    torch.manual_seed(0)
    model = config.build()
    x = torch.rand(16, *config.shape)
    GANLearner(model, GANLossConfig(r1=1.0), steps=1).update(x)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_more_steps_of_one_network_leave_the_other():
    moved = {}
    for name in ("critic", "generator"):
        torch.manual_seed(0)
        model = TINY.build()
        learner = GANLearner(model, GANLossConfig(**{f"{name}_steps": 3}), steps=1)
        learner.update(torch.rand(4, 1, 8, 8))
        steps = {
            key: {int(s["step"]) for s in optimizer.state.values()}
            for key, optimizer in learner.optimizers.items()
        }
        moved[name] = steps
    assert moved == {
        "critic": {"critic": {3}, "generator": {1}},
        "generator": {"critic": {1}, "generator": {3}},
    }


def test_what_is_kept_is_the_average_generator():
    torch.manual_seed(0)
    model = GANConfig((2,), 2, (4,), batch_norm="none", bias=True).build()
    learner = GANLearner(model, GANLossConfig(lr=0.1, ema=0.6), steps=4)
    average = None
    for n in range(4):
        learner.update(torch.randn(5, 2))
        weights = model.generator.layers[0].weight.detach().clone()
        decay = min(0.6, (1 + n) / (10 + n))
        average = weights if average is None else decay * average + (1 - decay) * weights
    kept = learner.kept
    torch.testing.assert_close(kept.generator.layers[0].weight, average)
    assert not torch.allclose(kept.generator.layers[0].weight, model.generator.layers[0].weight)
    assert not kept.training
    for a, b in zip(kept.critic.parameters(), model.critic.parameters(), strict=True):
        assert torch.equal(a, b)


def test_learning_rates_and_penalties_fall():
    config = GANLossConfig(
        objective="relativistic", r1=2.0, penalty_end=0.25, lr=1.0, critic_lr=2.0,
        lr_end=0.1, beta1=0.0,
    )  # fmt: skip
    model = GANConfig((2,), 2, (4,), batch_norm="none", bias=True, dropout=0.0).build()
    learner = GANLearner(model, config, steps=2)
    x = torch.randn(4, 2, requires_grad=True)
    weights = []
    for _ in range(3):
        before = squared_slope(model.critic(x), x).detach()
        weights.append(float(learner.update(x.detach())["penalty"] / before))
    rates = [learner.optimizers[n].param_groups[0]["lr"] for n in ("generator", "critic")]
    assert weights == pytest.approx([1.0, 0.5, 0.25], rel=1e-4)
    assert rates[1] == pytest.approx(2 * rates[0])


def test_spectral_norm_bounds_the_slope_of_every_layer():
    torch.manual_seed(0)
    config = GANConfig((4,), 2, (16, 16), batch_norm="none", dropout=0.0, spectral_norm=True)
    model = config.build()
    for _ in range(50):  # each pass in training mode improves the estimate
        model.critic(torch.randn(2, 4))
    for layer in (*model.critic.features, model.critic.head):
        if isinstance(layer, nn.Linear):
            assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) < 1.01
    x = torch.randn(50, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(model.heights(x).sum(), x)
    assert float(slope.norm(dim=1).max()) < 1.02


# ---------------------------------------------------------------------------------------------
# Checks of samples
# ---------------------------------------------------------------------------------------------


def test_energy_coefficient_by_loops():
    x, y = torch.randn(7, 3, generator=generator(0)), torch.randn(5, 3, generator=generator(1)) + 1
    found = energy_coefficient(x, y)
    across = np.mean([float((a - b).norm()) for a in x for b in y])
    inside = [
        np.mean([float((a - b).norm()) for a, b in itertools.combinations(points, 2)])
        for points in (x, y)
    ]
    assert float(found.energy) == pytest.approx(1 - sum(inside) / (2 * across), rel=1e-4)
    assert float(found.spread) == pytest.approx(inside[1] / inside[0], rel=1e-4)


def test_energy_coefficient_tells_collapse():
    x = torch.randn(2000, 2, generator=generator(0))
    same = energy_coefficient(x[:1000], x[1000:], most=1000)
    assert abs(float(same.energy)) < 0.003
    assert float(same.spread) == pytest.approx(1, abs=0.1)
    collapsed = energy_coefficient(x, torch.zeros(1000, 2), most=1000)
    # E|X - X'| = sqrt(2) E|X| for normal points.
    assert float(collapsed.energy) == pytest.approx(1 - math.sqrt(2) / 2, abs=0.02)
    assert float(collapsed.spread) == 0


def test_nearest_images_by_brute_force():
    known = sprites()[np.arange(0, 4608, 31)]
    images = torch.rand(6, 3, 32, 32, generator=generator(0))
    images[3] = known.as_tensor()[17]
    index, difference = nearest_images(images, known, rows=40)
    table = (images[:, None] - known.as_tensor()[None]).abs().mean((2, 3, 4))
    assert torch.equal(index, table.argmin(1))
    torch.testing.assert_close(difference, table.amin(1))
    assert index[3] == 17
    assert difference[3] == 0


def test_coverage_of_sprites():
    everything = sprites()
    known = everything[np.arange(0, 4608, 9)]
    images = known.as_tensor()
    noisy = (images[:100] + 0.02 * torch.randn(100, 3, 32, 32, generator=generator(0))).clamp(0, 1)
    far = torch.rand(25, 3, 32, 32, generator=generator(1))
    found = coverage(torch.cat([noisy, noisy[:25], far]), known)
    assert found.precision == pytest.approx(125 / 150)
    assert found.recall == pytest.approx(100 / 512)
    assert found.index.tolist() == [*range(100), *range(25), *[-1] * 25]
    assert coverage(images, known).recall == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GANConfig((2, 2)), r"shape is \(2, 2\); give"),
        (lambda: GANConfig(latent_dim=0), "latent_dim is 0"),
        (lambda: GANConfig(widths=()), r"widths is \(\), and must be at least 1"),
        (lambda: GANConfig((1, 24, 24)), "that 16 divides"),
        (lambda: GANConfig((2,)), "networks of points have 'none'"),
        (lambda: GANConfig(num_waves=3), "only points"),
        (lambda: GANConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: GANLossConfig(noise_direction="outward"), "no lower bound"),
        (lambda: GANLossConfig(clip=0.6), "clip is 0.6"),
        (lambda: GANLossConfig(flip=0.5), "flip 0.5"),
        (lambda: GANLossConfig(r1=-1.0), "r1 is -1.0"),
        (lambda: GANLossConfig(penalty_end=0.0), "penalty_end is 0.0, and must be above 0"),
        (lambda: GANLossConfig(generator_steps=0), "generator_steps is 0, and must be at least 1"),
        (lambda: GANLossConfig(ema=1.0), "ema is 1.0"),
        (lambda: TINY.build().generate(torch.zeros(2, 4)), r"z of shape \(2, 4\).*\(B, 3\)"),
        (
            lambda: GANLearner(TINY.build(), EXACT, 1).update(WRONG),
            r"\(2, 1, 4, 4\)",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pair_put_together_by_hand_works_everywhere(tmp_path):
    def pair() -> GAN:
        torch.manual_seed(0)
        maker = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))
        return GAN(maker, critic, (2,), 3)

    model, x = pair(), torch.randn(16, 2)
    for kind, config in ((GANLearner, GANLossConfig(ema=0.5)), (WGANLearner, WGANLossConfig())):
        before = model.heights(x)
        learner = kind(model, config, 3)
        logged = learner.update(x)
        assert {"c_loss", "g_loss", "energy", "spread"} <= set(logged)
        assert not torch.equal(model.heights(x), before)
    kept = learner.kept
    samples = kept.sample(5, torch.Generator().manual_seed(0))
    kept.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"a GAN that was put together by hand.*load_weights"):
        GAN.from_pretrained(tmp_path / "model")
    again = pair()
    again.load_weights(tmp_path / "model")
    assert torch.equal(again.sample(5, torch.Generator().manual_seed(0)), samples)
    with pytest.raises(ValueError, match="has no labels"):
        kept.sample(2, labels=0)


@pytest.mark.parametrize("kind", ["GAN", "WGAN", "ConditionalGAN"])
def test_pairs_from_before_the_critic_was_called_so_are_loaded(kind, tmp_path):
    configs = {
        "GAN": TINY,
        "WGAN": WGANConfig((1, 8, 8), 3, (4, 6)),
        "ConditionalGAN": ConditionalGANConfig((1, 8, 8), 3, (4, 6), num_classes=3),
    }
    model = configs[kind].build().eval()
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["class"] == kind
    weights = {
        name.replace("critic.", "discriminator."): tensor
        for name, tensor in model.state_dict().items()
    }
    files = {"config.json": json_bytes(config), "model.safetensors": save(weights)}
    write_folder(tmp_path / "older", files)
    again = GAN.from_pretrained(tmp_path / "older")
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
