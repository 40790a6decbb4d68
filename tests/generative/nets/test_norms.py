"""Norms and residual blocks of GANs: by hand, by singular values, by torch's own layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.nets.norms import ConditionalBatchNorm2d, spectral_norm_, standing_statistics
from generative.nets.residual import CriticBlock, GeneratorBlock

torch.set_num_threads(1)


def test_conditional_norm_by_hand():
    torch.manual_seed(0)
    norm = ConditionalBatchNorm2d(3, given_dim=2)
    x, given = torch.randn(8, 3, 4, 4), torch.randn(8, 2)
    y = norm(x, given)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    for b in range(8):
        for c in range(3):
            scale = 1 + norm.gain.weight[c] @ given[b]
            expected = scale * (x[b, c] - mean[c]) / (var[c] + 1e-5).sqrt()
            torch.testing.assert_close(y[b, c], expected + norm.shift.weight[c] @ given[b])


def test_norm_of_one_hot_classes_has_a_table_of_each_class():
    norm, plain = ConditionalBatchNorm2d(2, given_dim=3), ConditionalBatchNorm2d(2)
    x, labels = torch.randn(6, 2, 3, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    y = norm(x, F.one_hot(labels, 3).float())
    tables = 1 + norm.gain.weight.T[labels], norm.shift.weight.T[labels]
    scale, shift = (table[..., None, None] for table in tables)
    torch.testing.assert_close(y, plain(x) * scale + shift)
    torch.testing.assert_close(plain(x), nn.BatchNorm2d(2)(x))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (lambda: nn.Linear(6, 9), torch.randn(2, 6)),
        (lambda: nn.Conv2d(3, 5, 3), torch.randn(2, 3, 4, 4)),
        (lambda: nn.Embedding(7, 4), torch.tensor([1, 2])),
    ],
    ids=["linear", "convolution", "embedding"],
)
def test_largest_singular_value_of_a_normed_weight_is_one(layer, x):
    """Torch iterates 15 times when a norm is made; each forward pass in training adds one."""
    torch.manual_seed(0)
    network = spectral_norm_(nn.Sequential(layer()))

    def largest() -> float:
        weight = network.eval()[0].weight.detach().flatten(1)
        network.train()
        return float(torch.linalg.svdvals(weight)[0])

    assert largest() == pytest.approx(1, abs=2e-5)
    for passes, bar in ((5, 2e-6), (95, 5e-7)):
        for _ in range(passes):
            network(x)
        assert largest() == pytest.approx(1, abs=bar)


def test_spectral_norm_moves_in_training_and_stays_in_evaluation():
    torch.manual_seed(0)
    network, x = spectral_norm_(nn.Sequential(nn.Linear(6, 9))), torch.randn(2, 6)
    with torch.no_grad():
        network[0].parametrizations.weight.original.normal_()
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    assert len(buffers) == 2  # a vector on either side of the weight
    network.eval()
    assert torch.equal(network(x), network(x))
    assert all(torch.equal(b, buffers[name]) for name, b in network.named_buffers())
    network.train()(x)
    assert not any(torch.equal(b, buffers[name]) for name, b in network.named_buffers())


def test_slope_of_a_normed_critic_is_below_that_of_its_layers_together():
    """Miyato et al. 2018, equation 7: ReLU has slope 1, so the product of the layers' is 1."""
    torch.manual_seed(0)
    critic = spectral_norm_(
        nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1))
    )
    for _ in range(50):
        critic(torch.randn(2, 5))
    a, b = torch.randn(2, 200, 5).unbind()
    slopes = (critic.eval()(a) - critic(b)).abs()[:, 0] / (a - b).norm(dim=1)
    assert 0.01 < float(slopes.detach().max()) < 1.001


def test_standing_statistics_are_those_of_all_inputs_and_leave_the_weights():
    torch.manual_seed(0)
    network = spectral_norm_(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    inputs = [(torch.randn(5, 2, 4, 4) * k,) for k in (1, 2, 3)]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    standing_statistics(network, inputs)
    seen = [network[0](x) for (x,) in inputs]
    norm = network[1]
    torch.testing.assert_close(
        norm.running_mean, torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0)
    )
    torch.testing.assert_close(
        norm.running_var, torch.stack([h.var((0, 2, 3)) for h in seen]).mean(0)
    )
    assert norm.momentum == 0.1
    assert not network.training
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_blocks_by_their_formulas():
    """The 1x1 convolutions stand before the doubling and behind the means; here the other way."""
    torch.manual_seed(0)
    up, x, given = GeneratorBlock(3, 5, given_dim=2), torch.randn(4, 3, 4, 6), torch.randn(4, 2)
    doubled = up.norm1(x, given).relu().repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = up.conv2(up.norm2(up.conv1(doubled), given).relu())
    skip = up.skip(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(up(x, given), h + skip)
    for first in (False, True):
        down = CriticBlock(3, 5, first=first)
        h = down.conv2(down.conv1(x if first else x.relu()).relu()) + down.skip(x)
        means = h.reshape(4, 5, 2, 2, 3, 2).mean((3, 5))
        torch.testing.assert_close(down(x), means)
    flat = CriticBlock(3, 3, halve=False)
    torch.testing.assert_close(flat(x), x + flat.conv2(flat.conv1(x.relu()).relu()))
    assert not list(flat.skip.parameters())
