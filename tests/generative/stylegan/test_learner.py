"""Training of grown GANs, against plain optimisers and closed forms."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.gan.losses import critic_objective, generator_objective, squared_slope
from generative.stylegan import (
    ProGANConfig,
    ProGANLearner,
    ProGANLossConfig,
    StyleGAN2Config,
    StyleGANLearner,
    StyleGANLossConfig,
    mix,
    path_lengths,
)
from generative.stylegan import learner as stylegan_learner
from generative.stylegan.config import BOOK, STYLEGAN2
from generative.training.loop import NonFiniteError, fit
from generative.training.run import Run
from tests.generative.training.linear_run import Args

torch.set_num_threads(1)

TINY = ProGANConfig((3, 8, 8), latent_dim=4, channel_base=64, channel_max=4)
STYLED2 = StyleGAN2Config((3, 8, 8), 4, 64, 4, style_dim=4, mapping_layers=2)
PLAIN = ProGANLossConfig(
    phase_images=0, objective="relativistic", gradient_penalty=0.0, drift=0.0, ema=0.0
)


def batch(n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def learner(config=PLAIN, model=TINY, steps: int = 10):
    torch.manual_seed(0)
    kind = StyleGANLearner if isinstance(config, StyleGANLossConfig) else ProGANLearner
    return kind(model.build(), config, steps)


# ---------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------


def test_objectives_by_hand():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    assert critic_objective(real, fake, "wasserstein").item() == pytest.approx(-1.75)
    assert generator_objective(fake, real, "wasserstein").item() == pytest.approx(1.25)
    expected = (softplus(-2) + softplus(1) + softplus(0.5) + softplus(-3)) / 2
    assert critic_objective(real, fake, "logistic").item() == pytest.approx(expected)
    expected = (softplus(-0.5) + softplus(3)) / 2
    assert generator_objective(fake, real, "logistic").item() == pytest.approx(expected)
    expected = (softplus(-1.5) + softplus(-2)) / 2
    assert critic_objective(real, fake, "relativistic").item() == pytest.approx(expected)
    assert critic_objective(real, fake, "hinge").item() == pytest.approx((0 + 2 + 1.5 + 0) / 2)


def test_r1_of_a_linear_critic_and_its_gradient():
    """gamma / 2 |w|^2, and gamma w."""
    critic, x = nn.Linear(48, 1).double(), torch.rand(6, 48).double().requires_grad_()
    penalty = 10 / 2 * squared_slope(critic(x).flatten(), x)
    (gradient,) = torch.autograd.grad(penalty, critic.weight)
    assert torch.allclose(penalty, 5 * critic.weight.square().sum())
    assert torch.allclose(gradient, 10 * critic.weight)


def test_a_wasserstein_loss_without_a_penalty_is_refused():
    with pytest.raises(ValueError, match=r"without a penalty.*gradient_penalty 10"):
        ProGANLossConfig(gradient_penalty=0.0)


def test_settings_are_the_published_ones_and_the_books_beside_them():
    assert (ProGANLossConfig().objective, ProGANLossConfig().gradient_penalty) == (
        "wasserstein",
        10,
    )
    assert (StyleGANLossConfig().objective, StyleGANLossConfig().r1) == ("logistic", 10)
    assert (BOOK.objective, BOOK.gradient_penalty, BOOK.mixing_kind) == (
        "wasserstein",
        10,
        "layers",
    )
    assert (STYLEGAN2.phase_images, STYLEGAN2.penalty_every, STYLEGAN2.path_every) == (0, 16, 8)


# ---------------------------------------------------------------------------------------------
# A step
# ---------------------------------------------------------------------------------------------


def test_a_step_is_one_of_adam_on_both_networks():
    config = replace(PLAIN, r1=0.5, r2=0.25, lr=0.01, critic_lr=0.02)
    ours = learner(config)
    model = copy.deepcopy(ours.model)
    x = batch()
    torch.manual_seed(1)
    ours.update(x)
    torch.manual_seed(1)
    real = (2 * x - 1).requires_grad_()
    fake = model.generator(torch.randn(4, 4))
    real_heights, fake_heights = model.critic(real), model.critic(fake)
    c_loss = F.softplus(fake_heights - real_heights).mean()
    for weight, heights, images in ((0.5, real_heights, real), (0.25, fake_heights, fake)):
        (slope,) = torch.autograd.grad(heights.sum(), images, create_graph=True)
        c_loss = c_loss + weight / 2 * slope.square().sum((1, 2, 3)).mean()
    g_loss = F.softplus(real_heights.detach() - fake_heights).mean()
    parts = ((model.critic, c_loss, 0.02), (model.generator, g_loss, 0.01))
    gradients = [
        torch.autograd.grad(loss, list(m.parameters()), retain_graph=True, allow_unused=True)
        for m, loss, _ in parts
    ]
    for (network, _, lr), found in zip(parts, gradients, strict=True):
        for parameter, gradient in zip(network.parameters(), found, strict=True):
            parameter.grad = gradient
        torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.99), eps=1e-8).step()
    for a, b in zip(ours.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_a_lazy_penalty_is_a_step_of_its_own_with_so_many_times_the_weight():
    """Steps 0, 3, 6 have one; rate and decays are those to the power of 3 / 4."""
    ours = learner(replace(PLAIN, r1=0.5, penalty_every=3, critic_lr=0.02))
    (group,) = ours.optimizers["critic"].param_groups
    assert group["lr"] == pytest.approx(0.02 * 3 / 4)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (3 / 4)))
    (group,) = ours.optimizers["generator"].param_groups
    assert (group["lr"], group["betas"]) == (1e-3, (0.0, 0.99))
    moved = []
    plain = ours.move
    ours.move = lambda name, gradients: (moved.append((name, gradients)), plain(name, gradients))
    names = [
        len([1 for name, _ in moved if name == "critic"])
        for step in range(5)
        if ours.update(batch(seed=step))
    ]
    assert names == [2, 3, 4, 6, 7]
    before = copy.deepcopy(ours.model.critic)
    real = (2 * batch() - 1).requires_grad_()
    moved.clear()
    ours._penalty_step(real, ours.stage)
    penalty = 3 * 0.5 / 2 * squared_slope(before(real), real)
    expected = torch.autograd.grad(penalty, list(before.parameters()), allow_unused=True)
    for found, wanted in zip(moved[0][1], expected, strict=True):
        assert (found is None) == (wanted is None)
        assert found is None or torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_gradient_penalty_and_drift_of_progan():
    logged = learner(replace(ProGANLossConfig(), phase_images=8)).update(batch())
    assert logged["penalty"] > 0
    heights = torch.tensor([3.0, -1.0])
    assert ProGANLossConfig().drift * heights.square().mean() == pytest.approx(0.005)


# ---------------------------------------------------------------------------------------------
# Growth
# ---------------------------------------------------------------------------------------------


def test_alpha_moves_with_every_batch_and_survives_a_kill():
    config = replace(PLAIN, phase_images=12)
    ours = learner(config)
    logged = [ours.update(batch()) for _ in range(5)]
    stages = [(values["side"], values["alpha"]) for values in logged]
    assert stages == [(4, 1), (4, 1), (4, 1), (8, 0), (8, 4 / 12)]
    resumed = learner(config)
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert resumed.stage == ours.stage == (8, 8 / 12)
    for one in (ours, resumed):
        torch.manual_seed(7)
        one.update(batch(seed=1))
    for a, b in zip(ours.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_layers_that_wait_do_not_move_and_begin_with_a_fresh_state():
    ours = learner(replace(PLAIN, phase_images=8))
    before = copy.deepcopy(ours.model)
    for _ in range(2):
        ours.update(batch())
    moved = {
        name
        for (name, a), b in zip(ours.model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert not any("blocks" in name or "rgb.1" in name for name in moved)
    assert {"generator.dense.weight", "critic.head.weight", "critic.from_rgb.0.weight"} <= moved
    ours.update(batch())
    steps = {
        name: int(ours.optimizers["generator"].state[p]["step"])
        for name, p in ours.model.generator.named_parameters()
    }
    assert steps["dense.weight"] == 3
    assert steps["blocks.0.first.weight"] == 1


def test_a_batch_that_groups_do_not_divide_is_refused_before_anything_moves():
    ours = learner()
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match=r"6 examples.*groups of 4"):
        ours.update(batch(6))
    assert ours.images == before["images"] == 0


def test_growth_of_a_network_that_does_not_grow_is_refused():
    with pytest.raises(ValueError, match=r"phase_images is 16.*does not grow.*give 0"):
        learner(replace(STYLEGAN2, phase_images=16), STYLED2)


# ---------------------------------------------------------------------------------------------
# Styles
# ---------------------------------------------------------------------------------------------


def test_mixed_styles():
    torch.manual_seed(0)
    first, second = torch.zeros(4000, 5, 1), torch.ones(4000, 5, 1)
    crossed = mix(first, second, 0.9)[:, :, 0]
    assert bool((crossed.diff(dim=1) >= 0).all())
    assert not crossed[:, 0].any()
    mixed = crossed[:, -1].mean().item()
    assert mixed == pytest.approx(0.9, abs=0.03)
    # The crossover is before layer 1, 2, 3 or 4 alike.
    shares = crossed.mean(0) / mixed
    assert shares.tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.04)
    layers = mix(first, second, 1.0, "layers")[:, :, 0]
    assert layers.mean(0).tolist() == pytest.approx([0.5] * 5, abs=0.05)
    assert torch.equal(mix(first, second, 0.0), first)
    assert torch.equal(mix(first, second, 0.0, "layers"), first)


def test_without_mixing_every_layer_has_the_same_style():
    ours = learner(replace(STYLEGAN2, mixing=0.0), STYLED2)
    w = ours._styles(3)
    assert torch.equal(w, w[:, :1].expand_as(w))


def linear_lengths(a: torch.Tensor, n: int = 40_000) -> torch.Tensor:
    """Path lengths of images a w, (side^2, d) times (d,), for n images of noise."""
    side = math.isqrt(len(a))
    w = torch.zeros(n, 1, a.shape[1], dtype=torch.float64, requires_grad=True)
    images = torch.einsum("pd,nkd->np", a, w).reshape(n, 1, side, side)
    torch.manual_seed(1)
    return path_lengths(images, w).detach()


def test_path_lengths_of_a_linear_generator():
    """E length^2 = |A|^2 / HW; of orthonormal columns the mean and variance of a chi law.

    Bars are three deviations of a mean over 40,000 lengths.
    """
    torch.manual_seed(0)
    side, d = 8, 16
    a = torch.randn(side**2, d, dtype=torch.float64)
    expected = a.square().sum().item() / side**2
    assert linear_lengths(a).square().mean().item() == pytest.approx(expected, rel=0.006)
    lengths = linear_lengths(torch.linalg.qr(a)[0])
    mean = math.sqrt(2) * math.gamma((d + 1) / 2) / math.gamma(d / 2) / side
    variance = d / side**2 - mean**2
    assert mean == pytest.approx(0.4923, abs=5e-5)
    assert variance == pytest.approx(0.00769, abs=5e-6)
    assert lengths.mean().item() == pytest.approx(mean, rel=0.003)
    assert lengths.var().item() == pytest.approx(variance, rel=0.021)


def test_the_penalty_of_path_lengths_is_least_for_orthonormal_columns():
    """Of all linear generators with one mean square of the lengths; it falls as columns even out
    and as they become orthogonal."""
    torch.manual_seed(0)
    d = 16
    q, other = torch.linalg.qr(torch.randn(64, d, dtype=torch.float64))
    spread = torch.linspace(-1, 1, d, dtype=torch.float64)

    def penalty(a: torch.Tensor) -> float:
        a = a * math.sqrt(d) / a.norm()
        lengths = linear_lengths(a, 10_000)
        return float((lengths - lengths.mean()).square().mean())

    stretched = [penalty(q * (share * spread).exp()) for share in (0.0, 0.3, 0.6, 1.2)]
    assert stretched == sorted(stretched)
    assert stretched[1] > 1.02 * stretched[0]
    eye = torch.eye(d, dtype=torch.float64)
    sheared = [penalty(q @ (eye + share * other.triu(1))) for share in (0.0, 0.2, 1.0)]
    assert sheared == sorted(sheared)
    assert sheared[1] > 1.02 * sheared[0]
    assert penalty(torch.linalg.qr(torch.randn(64, d).double())[0]) == pytest.approx(
        stretched[0], rel=0.05
    )


def test_path_lengths_are_the_root_mean_square_over_layers():
    w = torch.zeros(2, 3, 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.manual_seed(0)
    images = (w[:, :, 0] * scale).sum(1).reshape(2, 1, 1, 1)
    lengths = path_lengths(images, w)
    torch.manual_seed(0)
    y = torch.randn(2, 1, 1, 1, dtype=torch.float64).abs().flatten()
    assert torch.allclose(lengths, y * math.sqrt(14 / 3))


def test_path_lengths_are_regularised_now_and_then():
    config = replace(STYLEGAN2, path_every=3, penalty_every=2, ema=0.0, lr=0.02)
    ours = learner(config, STYLED2)
    (group,) = ours.optimizers["generator"].param_groups
    assert group["lr"] == pytest.approx(0.02 * 3 / 4)
    logged = [ours.update(batch(8, seed)) for seed in range(4)]
    assert ["path_length" in values for values in logged] == [True, False, False, True]
    first, second = (float(logged[n]["path_length"]) for n in (0, 3))
    assert ours.path_mean.item() == pytest.approx(0.99 * 0.01 * first + 0.01 * second, rel=1e-5)
    again = learner(config, STYLED2)
    again.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert torch.equal(again.path_mean, ours.path_mean)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ("lengths", r"path_length is nan at step 4, seed 3"),
        ("gradient", r"gradient of the generator is nan at step 4, seed 3; its loss was finite"),
        ("weight", r"gradient of the generator is nan at step 0, seed 3.*the weight of a penalty"),
    ],
)
def test_a_path_length_that_is_not_finite_is_blamed_itself(spoiled, message, tmp_path, monkeypatch):
    """Path lengths are taken at steps 0, 2, 4, ...; their NaN is in the losses from step 5 on."""
    weight = 1e38 if spoiled == "weight" else 2.0
    ours = learner(replace(STYLEGAN2, path_every=2, path_weight=weight), STYLED2)
    plain = path_lengths

    def lengths(images, w):
        found = plain(images, w)
        if ours._steps_done != 4:
            return found
        if spoiled == "lengths":
            return found * math.nan
        found.register_hook(lambda g: g * math.nan)
        return found

    if spoiled != "weight":
        monkeypatch.setattr(stylegan_learner, "path_lengths", lengths)
    with Run.open(Args(out=tmp_path / "run", seed=3), kind="linear") as run:
        with pytest.raises(NonFiniteError, match=rf"training the GAN: {message}"):
            fit(
                ours, lambda step: batch(seed=step), run, 8,
                checkpoint_every_seconds=0, what="training the GAN",
            )  # fmt: skip
        assert run.checkpoints.steps() == ([] if spoiled == "weight" else [3, 4])
