"""Conditional GANs: what the networks are told of the label, by hand, and that it is heard."""

import numpy as np
import pytest
import torch
from torch import nn

from generative.gan import (
    GAN,
    ConditionalGANConfig,
    GANLearner,
    GANLossConfig,
    WGANLearner,
    WGANLossConfig,
)

torch.set_num_threads(1)

TINY = ConditionalGANConfig((3, 8, 8), 4, (4, 6), dropout=0.0, num_classes=3)
PROJECTION = ConditionalGANConfig(
    (3, 8, 8), 4, (4, 6), dropout=0.0, num_classes=3, conditioning="projection"
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_are_the_books():
    model = ConditionalGANConfig().build()
    assert count(model.critic) == 662_977
    assert count(model.generator) == 728_963
    assert sum(b.numel() for n, b in model.named_buffers() if "running" in n) == 896
    assert model.sample(3, labels=1).shape == (3, 3, 64, 64)


def test_critic_sees_planes_of_the_label():
    model, seen = TINY.build().eval(), []
    model.critic.features[0].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    x = torch.rand(3, 3, 8, 8)
    model.heights(x, torch.tensor([2, 0, 1]))
    assert seen[0].shape == (3, 6, 8, 8)
    torch.testing.assert_close(seen[0][:, :3], 2 * x - 1)
    planes = torch.eye(3)[[2, 0, 1]]
    assert (seen[0][:, 3:] == planes[:, :, None, None]).all()


def test_generator_gets_the_label_behind_the_noise():
    model, seen = TINY.build().eval(), []
    model.generator.layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    z = torch.randn(2, 4)
    model.generate(z, torch.tensor([1, 2]))
    assert torch.equal(seen[0], torch.cat([z, torch.eye(3)[[1, 2]]], 1))


def test_projection_by_hand():
    model = PROJECTION.build().eval()
    x, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    critic = model.critic
    features = critic.features(2 * x - 1)
    assert features.shape == (5, 6, 2, 2)
    plain = torch.einsum("bchw,chw->b", features, critic.head.weight[0]) + critic.head.bias
    given = torch.einsum("bchw,bc->b", features, critic.vectors.weight[labels])
    torch.testing.assert_close(model.heights(x, labels), plain + given)


def test_samples_can_be_asked_for_in_three_ways():
    model = TINY.build().eval()
    drawn = [
        model.sample(4, generator(0), labels)
        for labels in (None, torch.tensor([0, 1, 2, 0]), 1, torch.full((4,), 1))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], drawn[3])
    assert torch.equal(drawn[0][1], drawn[2][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


@pytest.mark.parametrize("config", [TINY, PROJECTION])
@pytest.mark.parametrize("kind", ["gan", "wgan"])
def test_gradients_reach_every_parameter(config, kind):
    torch.manual_seed(0)
    model = config.build()
    if kind == "gan":
        learner = GANLearner(model, GANLossConfig(r1=1.0), steps=1)
    else:
        loss = WGANLossConfig(alpha="uniform", norm_eps=1e-12, critic_steps=1)
        learner = WGANLearner(model, loss, steps=1)
    learner.update((torch.rand(12, 3, 8, 8), torch.arange(12) % 3))
    for name, parameter in model.named_parameters():
        # A constant added to every height changes neither distance nor slope.
        if kind == "wgan" and name == "critic.head.bias":
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_spectral_norm_bounds_the_vectors_of_a_projection_too():
    """Against the matrix of all vectors divided by the singular value that NumPy finds."""
    torch.manual_seed(0)
    config = ConditionalGANConfig(
        (4,), 2, (16,), batch_norm="none", num_classes=3, conditioning="projection",
        spectral_norm=True,
    )  # fmt: skip
    critic = config.build().critic.eval()
    with torch.no_grad():
        critic.vectors.weight.mul_(50)
        x = torch.randn(200, 4)
        scores = torch.stack([critic(x, torch.full((200,), c)) for c in range(3)], 1)
        features = critic.features(x)
    right = critic.vectors.weight / np.linalg.svd(critic.vectors.weight.detach().numpy())[1][0]
    expected = critic.head(features) + features @ right.T
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "conditioning"),
    [
        ("gan", "planes"),
        pytest.param("wgan", "projection", marks=pytest.mark.nightly),
        pytest.param("gan", "projection", marks=pytest.mark.nightly),
        pytest.param("wgan", "planes", marks=pytest.mark.nightly),
    ],
)
def test_the_label_is_heard(kind, conditioning):
    """Points of class 0 lie left, those of class 1 right; so do samples."""
    torch.manual_seed(0)
    config = ConditionalGANConfig(
        (2,), 2, (32, 32), batch_norm="none", dropout=0.0, conditioning=conditioning
    )
    model = config.build()
    if kind == "gan":
        loss = GANLossConfig(
            objective="relativistic", r1=0.1, r2=0.1, lr=2e-3, critic_lr=2e-3, beta1=0.0
        )
        learner = GANLearner(model, loss, steps=200)
    else:
        loss = WGANLossConfig(alpha="uniform", norm_eps=1e-12, penalty=1.0, lr=2e-3, critic_lr=2e-3)
        learner = WGANLearner(model, loss, steps=200)
    for _ in range(200):
        labels = torch.randint(2, (64,))
        centres = torch.stack([2.0 * labels - 1, torch.zeros(64)], 1)
        learner.update((centres + 0.1 * torch.randn(64, 2), labels))
    kept = learner.kept
    for label in (0, 1):
        x = kept.sample(500, generator(1), labels=label)
        right = (x[:, 0] > 0) == bool(label)
        assert float(right.float().mean()) > 0.95


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionalGANConfig(num_classes=1), "num_classes is 1"),
        (lambda: TINY.build().sample(2, labels=3), "from 3 to 3; this GAN knows 0 to 2"),
        (
            lambda: TINY.build().sample(2, labels=torch.zeros(3).long()),
            r"\(3,\).*int64 \(2",
        ),
        (
            lambda: TINY.build().heights(torch.rand(2, 3, 8, 8), torch.zeros(2)),
            "float32; 2 examples need int64",
        ),
        (
            lambda: TINY.build().heights(torch.rand(2, 3, 8, 9), torch.zeros(2).long()),
            r"\(2, 3, 8, 9\)",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_accuracy_of_pairs_is_of_those_of_one_label():
    """Heights of labels may lie far apart: which of a pair is real is told by their difference."""

    class Maker(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, z, labels):
            return self.weight * z

    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x, labels):
            return self.weight * x[:, 0] + 100 * labels

    gan = GAN(Maker(), Judge(), (1,), 1, 2)
    loss = GANLossConfig("relativistic", lr=0.0, critic_lr=0.0)
    x, labels = torch.tensor([[1.0], [2.0], [-1.0], [3.0]]), torch.tensor([0, 1, 0, 1])
    told = GANLearner(gan, loss, 1).update((x, labels))
    assert float(told["accuracy"]) == 0.75
    assert "real_accuracy" not in told
