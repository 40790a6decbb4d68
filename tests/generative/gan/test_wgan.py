"""Wasserstein GANs against the book's totals and closed forms of linear critics."""

import pytest
import torch
from torch import Tensor, nn

from generative.gan import WGANConfig, WGANLearner, WGANLossConfig, gradient_penalty

torch.set_num_threads(1)

POINTS = WGANConfig((2,), 2, (8,), batch_norm="none", dropout=0.0)
CORRECTED = WGANLossConfig(alpha="uniform", norm_eps=1e-12)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_books():
    model = WGANConfig().build()
    assert count(model.critic) == 2_764_737
    assert count(model.generator) == 3_806_083
    assert sum(b.numel() for n, b in model.named_buffers() if "running" in n) == 1_920
    convolutions = [m for m in model.critic.modules() if isinstance(m, nn.Conv2d)]
    assert [count(layer) for layer in convolutions] == [3_136, 131_200, 524_544, 2_097_664, 8_193]
    assert not [m for m in model.critic.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("alpha", ["uniform", "normal"])
@pytest.mark.parametrize("shape", [(3, 4, 4), (2,)])
def test_penalty_of_a_linear_critic(shape, alpha):
    """(|w| - 1)^2 whatever the examples are."""
    w = torch.randn(*shape)
    real, fake = torch.randn(6, *shape), torch.randn(6, *shape)

    def critic(x: Tensor) -> Tensor:
        return (x * w).flatten(1).sum(1)

    found = gradient_penalty(critic, real, fake, alpha=alpha)
    torch.testing.assert_close(found, (w.norm() - 1).square())


def test_penalty_of_a_square_reaches_the_critic():
    """Slope 2 a x at x = alpha, so (2 a |alpha| - 1)^2; and it can be differentiated in a."""
    a = torch.tensor(0.7, requires_grad=True)
    zeros, ones = torch.zeros(100_000, 1), torch.ones(100_000, 1)
    torch.manual_seed(0)
    found = gradient_penalty(lambda x: (a * x.square()).sum(1), zeros, ones)
    expected = 4 * 0.7**2 / 3 - 2 * 0.7 + 1
    assert found.item() == pytest.approx(expected, rel=1e-2)
    (slope,) = torch.autograd.grad(found, a)
    assert slope.item() == pytest.approx(8 * 0.7 / 3 - 2, abs=1e-2)


def test_where_the_slope_is_taken():
    """Between the two with uniform alpha; the book's normal alpha takes two in three outside."""
    seen = {}
    for alpha in ("uniform", "normal"):

        def critic(x: Tensor, alpha: str = alpha) -> Tensor:
            seen[alpha] = x.detach()
            return x.sum(1)

        torch.manual_seed(0)
        zeros = torch.zeros(20_000, 3)
        gradient_penalty(critic, zeros, zeros + 1, alpha=alpha)
    assert (seen["uniform"][:, :1] == seen["uniform"]).all()  # one alpha for a pair
    assert seen["uniform"].min() >= 0
    assert seen["uniform"].max() <= 1
    outside = ((seen["normal"] < 0) | (seen["normal"] > 1)).float().mean()
    assert float(outside) == pytest.approx(0.5 + 0.1587, abs=0.01)


@pytest.mark.parametrize(("norm_eps", "finite"), [(1e-12, True), (0.0, False)])
def test_a_flat_critic_needs_the_epsilon(norm_eps, finite):
    a = torch.zeros((), requires_grad=True)
    x = torch.randn(4, 2)
    penalty = gradient_penalty(lambda y: (a * y).sum(1), x, x + 1, norm_eps=norm_eps)
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert bool(torch.autograd.grad(penalty, a)[0].isfinite()) is finite


class Line(nn.Module):
    """A linear critic of points."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.1, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def test_critic_measures_the_distance_of_two_points():
    """Of points d apart a linear critic of slope s gives s d - 10 (s - 1)^2, most at 1 + d / 20."""
    torch.manual_seed(0)
    model = POINTS.build()
    model.critic = Line()
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.zero_()  # makes the origin, and at learning rate 0 goes on to
    real = torch.tensor([[1.8, 2.4]]).expand(8, 2)
    config = WGANLossConfig(
        alpha="uniform", norm_eps=1e-12, lr=0.0, critic_lr=0.05, critic_steps=20, lr_end=0.01
    )
    learner = WGANLearner(model, config, steps=30)
    for _ in range(30):
        logged = learner.update(real)
    slope = 1 + 3 / 20
    torch.testing.assert_close(
        model.critic.w.detach(), slope * torch.tensor([0.6, 0.8]), rtol=1e-3, atol=0
    )
    assert float(logged["c_wass"]) == pytest.approx(-3 * slope, rel=1e-3)
    assert float(logged["c_gp"]) == pytest.approx((slope - 1) ** 2, rel=1e-2)
    expected = logged["c_wass"] + 10 * logged["c_gp"]
    torch.testing.assert_close(logged["c_loss"], expected)


def test_steps_of_critic_and_generator():
    torch.manual_seed(0)
    model = POINTS.build()
    learner = WGANLearner(model, CORRECTED, steps=2)
    for _ in range(2):
        learner.update(torch.randn(4, 2))
    steps = {
        name: {int(state["step"]) for state in optimizer.state.values()}
        for name, optimizer in learner.optimizers.items()
    }
    assert steps == {"critic": {6}, "generator": {2}}


def test_clipping_keeps_weights_small_and_has_no_penalty():
    torch.manual_seed(0)
    model = POINTS.build()
    config = WGANLossConfig(
        lipschitz="clipping", optimizer="rmsprop", critic_lr=1e-2, critic_steps=5
    )
    logged = WGANLearner(model, config, steps=1).update(torch.randn(8, 2))
    weights = torch.cat([p.detach().flatten() for p in model.critic.parameters()])
    assert float(weights.abs().max()) == pytest.approx(0.01)
    assert set(logged) == {"c_loss", "g_loss", "energy", "spread"}


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = WGANConfig((3, 16, 16), 4, (4, 8)).build()
    WGANLearner(model, CORRECTED, steps=1).update(torch.rand(8, 3, 16, 16))
    for name, parameter in model.named_parameters():
        # A constant added to every height changes neither distance nor slope.
        if name != "critic.head.bias":
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WGANConfig(batch_norm="both"), "no gradient at a single image"),
        (lambda: WGANLossConfig(clip=0.0), "clip is 0.0"),
        (lambda: WGANLossConfig(norm_eps=-1.0), "norm_eps is -1.0, and must be at least 0"),
        (lambda: WGANLossConfig(critic_steps=0), "critic_steps is 0, and must be at least 1"),
        (lambda: WGANLossConfig(lr_end=2.0), "lr_end is 2.0, and must be at least 0 and at most 1"),
        (lambda: POINTS.build().heights(torch.zeros(2, 3)), r"\(2, 3\).*\(B, 2\)"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
