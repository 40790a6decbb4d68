"""SAGAN and BigGAN against published totals, closed forms and their own parts."""

import copy
import math
import re
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.attention_gan import (
    BIGGAN,
    SAGAN,
    AttentionGAN,
    AttentionGANConfig,
    PlacewiseBlock,
    truncated_normal,
)
from generative.gan import GANLearner, GANLossConfig, orthogonal_penalty
from generative.nets.attention import PooledAttention
from generative.training.sizes import SizesAlone

torch.set_num_threads(1)

TINY = AttentionGANConfig(
    (3, 16, 24), 3, 6, (8, 16), attention_side=8, shared_dim=4, split_z=True, spectral_norm="none"
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(config: AttentionGANConfig = TINY, seed: int = 0) -> AttentionGAN:
    """A model whose attention counts: its weight begins at 0."""
    torch.manual_seed(seed)
    model = config.build().eval()
    for network in (model.generator, model.critic):
        for module in network.modules():
            if isinstance(module, (PooledAttention, PlacewiseBlock)):
                nn.init.constant_(module.gamma, 0.5)
    return model


def test_totals_are_the_publications():
    """BigGAN at 128x128, as its authors' program has them; nothing is allocated."""
    with torch.device("meta"), SizesAlone():
        model = BIGGAN.build()
    assert count(model.generator) == 70_433_988
    assert count(model.critic) == 87_982_370


def test_totals_of_sagan_at_the_papers_size_are_those_of_its_layers():
    """128x128, 1,000 classes, 64 maps at the image; attention stands at 32x32."""
    with torch.device("meta"), SizesAlone():
        model = SAGAN.build()

    def conv(before: int, after: int, kernel: int) -> int:
        return kernel**2 * before * after + after

    def block(before: int, after: int, classes: int) -> int:
        norms = 2 * classes * (before + after)
        return conv(before, after, 3) + conv(after, after, 3) + conv(before, after, 1) + norms

    def attention(channels: int) -> int:
        return 2 * channels * channels // 8 + 2 * channels * channels // 2 + 1

    first = 128 * 1024 * 4 * 4 + 1024 * 4 * 4
    up = sum(block(a, b, 1000) for a, b in pairwise((1024, 1024, 512, 256, 128, 64)))
    generator = first + up + attention(256) + 2 * 64 + conv(64, 3, 3)
    down = sum(block(a, b, 0) for a, b in pairwise((3, 64, 128, 256, 512, 1024)))
    same = 2 * conv(1024, 1024, 3)
    critic = down + same + attention(128) + 1024 + 1 + 1000 * 1024
    assert (count(model.generator), count(model.critic)) == (generator, critic)
    assert (generator, critic) == (42_078_852, 39_463_618)


def test_residual_twin_has_as_many_weights():
    assert count(PlacewiseBlock(32)) == count(PooledAttention(32))
    pooled, residual = (
        AttentionGANConfig((3, 16, 16), 2, 8, (8, 16), attention=kind, attention_side=8).build()
        for kind in ("pooled", "residual")
    )
    assert count(pooled) == count(residual)


def test_a_network_without_attention_sees_each_place_alone_in_the_twin():
    block = PlacewiseBlock(8)
    nn.init.ones_(block.gamma)
    x = torch.randn(1, 8, 4, 4)
    other = x.clone()
    other[:, :, 0, 0] += 1
    changed = (block(x) != block(other)).any(1)[0]
    assert changed[0, 0]
    assert changed.sum() == 1


def test_parts_of_z_go_to_their_blocks():
    """A part of the noise reaches the norms of one block, with the embedding before it."""
    model, seen = tiny(), []
    for block in model.generator.blocks:
        block.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    z, labels = torch.randn(2, 6), torch.tensor([2, 0])
    model.generate(z, labels)
    embedded = model.generator.shared.weight[labels]
    for i, given in enumerate(seen):
        assert torch.equal(given, torch.cat([embedded, z[:, 2 + 2 * i : 4 + 2 * i]], 1))
    first = model.generator.first(z[:, :2])
    assert first.shape == (2, 16 * 4 * 6)


def test_sagan_gives_all_of_z_to_the_first_layer_and_the_class_to_all_norms():
    model, seen = tiny(AttentionGANConfig((3, 16, 16), 3, 5, (8, 16), attention_side=8)), []
    for block in model.generator.blocks:
        block.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    assert model.generator.first.in_features == 5
    labels = torch.tensor([2, 0])
    model.generate(torch.randn(2, 5), labels)
    assert all(torch.equal(given, F.one_hot(labels, 3).float()) for given in seen)


def test_projection_by_hand():
    model, x, labels = tiny(), torch.rand(4, 3, 16, 24), torch.tensor([0, 1, 2, 1])
    critic = model.critic
    features = critic.blocks(2 * x - 1).relu().sum((2, 3))
    assert features.shape == (4, 16)
    given = torch.einsum("bc,bc->b", features, critic.vectors.weight[labels])
    plain = features @ critic.head.weight[0] + critic.head.bias
    torch.testing.assert_close(model.heights(x, labels), plain + given)


def test_attention_stands_at_its_side_in_both_networks():
    for side in (8, 16):
        config = AttentionGANConfig((3, 32, 32), 0, 4, (4, 8, 8), attention_side=side)
        model, sides = tiny(config), []
        for module in model.modules():
            if isinstance(module, PooledAttention):
                module.register_forward_hook(lambda _, args, __, to=sides: to.append(args[0].shape))
        model.heights(model.sample(2))
        assert [tuple(shape[2:]) for shape in sides] == [(side, side)] * 2


def test_looking_gives_the_images_and_maps_over_half_the_places():
    model, z, labels = tiny(), torch.randn(3, 6), torch.tensor([0, 1, 2])
    images, maps = model.look(z, labels)
    torch.testing.assert_close(images, model.generate(z, labels))
    assert maps.shape == (3, 8, 12, 4, 6)
    torch.testing.assert_close(maps.sum((3, 4)), torch.ones(3, 8, 12))
    without = tiny(AttentionGANConfig((3, 16, 16), 0, 4, (4, 8), attention="none"))
    with pytest.raises(ValueError, match=r"no attention.*'pooled'"):
        without.look(torch.randn(1, 4))


# ---------------------------------------------------------------------------------------------
# Truncation
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "share"), [(2.0, 0.046), (1.0, 0.317), (0.5, 0.617), (0.04, 0.968)])
def test_truncated_noise_is_normal_noise_with_what_is_beyond_the_bound_drawn_again(c, share):
    """The share that is drawn again, and how often what stays is below each part of the bound."""
    drawn = torch.randn(400_000, generator=generator(1)).abs()
    assert float((drawn > c).float().mean()) == pytest.approx(share, abs=2.5e-3)
    assert math.erfc(c / math.sqrt(2)) == pytest.approx(share, abs=6e-4)
    z = truncated_normal(8000, 50, c, generator(0)).abs()
    for part in (0.25, 0.5, 0.75):
        exact = math.erf(part * c / math.sqrt(2)) / (1 - math.erfc(c / math.sqrt(2)))
        assert float((z < part * c).float().mean()) == pytest.approx(exact, abs=2.5e-3)


@pytest.mark.parametrize(
    ("c", "variance"), [(2.0, 0.7737), (1.0, 0.2911), (0.5, 0.0806), (0.04, 0.000533)]
)
def test_truncated_noise_has_the_variance_of_its_law(c, variance):
    """1 - 2 c phi(c) / (2 Phi(c) - 1)."""
    z = truncated_normal(4000, 50, c, generator(0))
    density = math.exp(-c * c / 2) / math.sqrt(2 * math.pi)
    exact = 1 - 2 * c * density / math.erf(c / math.sqrt(2))
    assert exact == pytest.approx(variance, rel=1e-3)
    assert float(z.var()) == pytest.approx(exact, rel=0.01)
    assert float(z.abs().max()) <= c
    assert float(z.abs().max()) > 0.99 * c


def test_noise_of_no_bound_is_normal():
    z = truncated_normal(100, 1000, 9.0, generator(0)).flatten()
    shares = [float((z.abs() < c).float().mean()) for c in (1, 2, 3)]
    exact = [math.erf(c / math.sqrt(2)) for c in (1, 2, 3)]
    assert shares == pytest.approx(exact, abs=0.004)


def test_truncated_samples_repeat_and_stand_closer():
    model = tiny()
    near, far = (model.sample(64, generator(0), 1, c) for c in (0.04, None))
    assert torch.equal(near, model.sample(64, generator(0), 1, 0.04))
    assert float(near.std(0).mean()) < 0.2 * float(far.std(0).mean())
    assert model.sample(0, truncation=1.0).shape == (0, 3, 16, 24)
    with pytest.raises(ValueError, match=r"bound is 0.*above 0"):
        model.sample(2, truncation=0)


def test_standing_statistics_are_of_the_truncated_noise():
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    standing = model.standing(0.5, generator(0), batches=4, batch_size=30)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    parameters = dict(model.named_parameters())
    assert all(torch.equal(p, parameters[name]) for name, p in standing.named_parameters())
    # The first norm sees the first layer's maps: their statistics over the same noise.
    random, maps = generator(0), []
    for _ in range(4):
        z = truncated_normal(30, 6, 0.5, random)
        maps.append(model.generator.first(z[:, :2]).unflatten(1, model.generator.small))
    norm = standing.generator.blocks[0].norm1.norm
    expected = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    assert standing.sample(2, truncation=0.5).shape == (2, 3, 16, 24)


# ---------------------------------------------------------------------------------------------
# Orthogonal penalty
# ---------------------------------------------------------------------------------------------


def test_orthogonal_penalty_is_zero_for_orthogonal_filters_of_any_length():
    layer = nn.Linear(6, 4)
    rows = torch.linalg.qr(torch.randn(6, 6, generator=generator(0)))[0][:4]
    with torch.no_grad():
        layer.weight.copy_(rows * torch.tensor([[1.0], [3.0], [0.2], [7.0]]))
    assert float(orthogonal_penalty(layer).detach()) < 1e-10
    nn.init.ones_(layer.weight)
    assert float(orthogonal_penalty(layer).detach()) == 12 * 36


def test_gradient_of_the_orthogonal_penalty():
    """4 W (W^T W * (1 - I)) where the columns of W are the filters."""
    convolution = nn.Conv2d(2, 5, 3).double()
    loss = orthogonal_penalty(convolution)
    (slope,) = torch.autograd.grad(loss, convolution.weight)
    w = convolution.weight.detach().flatten(1).T
    products = w.T @ w * (1 - torch.eye(5))
    assert float(loss.detach()) == pytest.approx(float(products.square().sum()))
    torch.testing.assert_close(slope.flatten(1).T, 4 * w @ products)


def test_embeddings_have_no_orthogonal_penalty():
    assert (
        float(orthogonal_penalty(nn.Sequential(nn.Embedding(5, 3), nn.Linear(2, 1))).detach()) == 0
    )


def test_penalty_moves_the_generator_towards_orthogonal_filters():
    weights = {}
    for weight in (0.0, 1e4):
        torch.manual_seed(0)
        model = tiny()
        with torch.no_grad():
            for p in model.generator.parameters():
                p.add_(0.1)
        loss = GANLossConfig(objective="hinge", lr=1e-3, orthogonal=weight)
        learner = GANLearner(model.train(), loss, 10)
        for _ in range(10):
            logged = learner.update((torch.rand(4, 3, 16, 24), torch.tensor([0, 1, 2, 0])))
        weights[weight] = float(orthogonal_penalty(model.generator).detach())
        assert abs(float(logged["g_loss"])) < 100  # told without the penalty
    assert weights[1e4] < 0.9 * weights[0.0]


# ---------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (3, 18, 16)}, r"shape is \(3, 18, 16\).*2 blocks.*4 divides"),
        ({"attention_side": 5}, r"attention_side is 5.*heights 8.*'none'"),
        ({"num_classes": 1}, r"num_classes is 1; give 2 or more, or 0"),
        ({"split_z": True, "latent_dim": 7}, r"latent_dim is 7.*multiple of 3"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    fitting = {"shape": (3, 16, 16), "num_classes": 3, "latent_dim": 6, "widths": (4, 8)}
    fitting |= {"attention_side": 8, **settings}
    with pytest.raises(ValueError, match=message):
        AttentionGANConfig(**fitting)


def test_unknown_class_is_told_what_there_are():
    with pytest.raises(
        ValueError, match=re.escape("got labels from 3 to 3; this GAN knows 0 to 2")
    ):
        tiny().sample(2, labels=3)
