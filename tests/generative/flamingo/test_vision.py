"""NFNet: standardised filters, kept variances, published sizes."""

import math

import pytest
import torch
from torch.nn import functional as F

from generative.flamingo import NFNet, NFNetConfig, ScaledConv, VisionTower, nfnet_f
from generative.flamingo.vision import GAINS

torch.set_num_threads(1)


def test_filters_are_standardised_whatever_the_weights():
    torch.manual_seed(0)
    conv = ScaledConv(8, 6, 3, groups=2)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
        conv.gain.copy_(torch.linspace(0.5, 2, 6)[:, None, None, None])
    used, fan_in = conv.standardised(), 4 * 9
    assert used.mean((1, 2, 3)).abs().max() < 1e-6
    variance = used.var((1, 2, 3), correction=0)
    torch.testing.assert_close(variance, torch.linspace(0.5, 2, 6) ** 2 / fan_in)
    x = torch.randn(2, 8, 5, 5)
    expected = F.conv2d(x, used, conv.bias, padding=1, groups=2)
    torch.testing.assert_close(conv(x), expected)


def test_gains_make_activations_of_normal_numbers_have_deviation_1():
    """By the trapezoidal rule."""
    assert GAINS["relu"] == pytest.approx(1.7129, abs=1e-4)
    assert GAINS["gelu"] == pytest.approx(1.7015, abs=1e-4)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    p = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    for kind, function in (("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)):
        value = function(z)
        mean = torch.trapezoid(p * value, z)
        deviation = torch.trapezoid(p * (value - mean) ** 2, z).sqrt()
        # The authors measured the gains of GELU and SiLU on draws.
        assert GAINS[kind] * float(deviation) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_variance_of_activations_is_the_predicted_one(activation):
    """Var(x_l) = beta_l^2, which grows by alpha^2 a block and is 1 again at a transition."""
    torch.manual_seed(0)
    config = NFNetConfig(
        (64, 16, 16), (64,), (1,), (128, 160), (3, 2), (1, 1), squeeze=0.0,
        activation=activation, alpha=0.7, gain=1.0,
    )  # fmt: skip
    net = NFNet(config)
    x = torch.randn(16, 64, 16, 16)
    inner = (..., slice(5, 11), slice(5, 11))  # away from the zeros around the image
    x = net.stem[0](x)
    expected = [1.0]
    for k, block in enumerate(net.blocks):
        assert float(x[inner].var(dim=(0, 2, 3)).mean()) == pytest.approx(block.beta**2, rel=0.05)
        x = block(x)
        expected.append((1.0 if k in (0, 3) else expected[-1]) + 0.49)
    assert [block.beta**2 for block in net.blocks] == pytest.approx(expected[:-1])
    assert net.beta**2 == pytest.approx(expected[-1])
    assert float(x[inner].var(dim=(0, 2, 3)).mean()) == pytest.approx(expected[-1], rel=0.05)


def test_blocks_begin_as_their_shortcuts():
    """With a gain of 0; and a block without a convolution in its shortcut is the identity."""
    torch.manual_seed(0)
    net = NFNet(NFNetConfig((3, 8, 8), (8,), (1,), (8,), (2,), (1,)))
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(net.blocks[0](x), x)
    assert torch.equal(net.blocks[1](x), x)


def test_vectors_of_places_are_added_to_the_features():
    torch.manual_seed(0)
    told, plain = NFNet(NFNetConfig(places=0.5)), NFNet(NFNetConfig())
    assert told.places is not None
    assert plain.places is None
    assert float(told.places.detach().std()) == pytest.approx(0.5, rel=0.1)
    told.load_state_dict(plain.state_dict() | {"places": told.places})
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(told(x), plain(x) + told.places)


@pytest.mark.parametrize(("k", "millions"), [(0, 71.5), (6, 438.4)])
def test_published_numbers_of_weights(k, millions):
    """With the classifier of 1,000 classes; without it F6 has Flamingo's 435 millions."""
    with torch.device("meta"):
        net = NFNet(nfnet_f(k))
    weights = sum(p.numel() for p in net.parameters())
    assert round((weights + 3072 * 1000 + 1000) / 1e6, 1) == millions
    if k == 6:
        assert round(weights / 1e6) == 435
        assert weights == 435_286_116


def test_grids_and_what_is_refused():
    config = NFNetConfig((3, 30, 21), last=40)
    net = NFNet(config)
    assert net(torch.rand(2, 3, 30, 21)).shape == (2, 40, 4, 3) == (2, config.dim, *config.grid)
    tower = VisionTower(net, 16)
    assert tower(torch.rand(2, 3, 30, 21)).shape == (2, 16)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        net(2 * torch.ones(1, 3, 30, 21))
    with pytest.raises(ValueError, match="stages; give as many of each"):
        NFNetConfig(depths=(1, 1))
    with pytest.raises(ValueError, match="1 convolutions and 2 strides"):
        NFNetConfig(stem_strides=(1, 1))
    with pytest.raises(ValueError, match="F0 to F6"):
        nfnet_f(7)
