"""The U-Net: what it is told, and where it attends."""

import pytest
import torch

from generative.nets.config import UNetConfig
from generative.nets.unet import UNet

torch.set_num_threads(1)


def test_a_new_network_estimates_no_noise():
    network = UNet(3, UNetConfig((8, 16)))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros(2, 3, 16, 16))


def test_every_block_can_be_told_the_noise_level():
    torch.manual_seed(0)
    config = UNetConfig((8, 16), norm="group", conditioning="blocks", attention=(1,), dropout=0.1)
    network = UNet(1, config).eval()
    torch.nn.init.normal_(network.last.weight)
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    y = network(x, torch.tensor([-1.0, 3.0]))
    assert not torch.allclose(y[0], y[1])
    y.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.any(), name


def told_everything() -> UNet:
    """Attention at every resolution and a context, with weights that are anything."""
    torch.manual_seed(0)
    config = UNetConfig((4, 8, 8), 1, norm="group", conditioning="blocks", attention=(0, 1, 2))
    network = UNet(3, config, out_channels=1, context_dim=5).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def test_a_context_and_attention_at_chosen_resolutions():
    """Every weight takes part; the order of a sequence does not, as it has no positions."""
    network = told_everything()
    x, log_snr = torch.randn(2, 3, 8, 8), torch.zeros(2)
    sequence = torch.randn(2, 4, 5)
    y = network(x, log_snr, sequence)
    assert y.shape == (2, 1, 8, 8)
    torch.testing.assert_close(network(x, log_snr, sequence.flip(1)), y)
    assert not torch.allclose(network(x, log_snr, 2 * sequence), y)
    one = network(x, log_snr, sequence[:, 0])
    torch.testing.assert_close(network(x, log_snr, sequence[:, :1]), one)
    y.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith("key.bias"), name


def test_attention_sees_the_far_corner():
    """A pixel changes what comes out at the other end; without attention it is too far away."""
    torch.manual_seed(0)
    for attention, reaches in (((), False), ((0,), True)):
        config = UNetConfig((4, 4), 1, norm="group", attention=attention)
        network = UNet(1, config).eval()
        torch.nn.init.normal_(network.last.weight)
        # Groups are normalised over all places, which would reach as far.
        for block in (*network.down, *network.bottom, *network.up):
            block.norm = torch.nn.Identity()
        x = torch.randn(1, 1, 64, 4)
        changed = x.clone()
        changed[0, 0, 0, 0] += 1
        ends = [network(image, torch.zeros(1))[..., -1, :] for image in (x, changed)]
        assert torch.equal(*ends) != reaches


def test_wrong_contexts_are_refused():
    plain, told = UNet(1, UNetConfig((4, 4), 1)), told_everything()
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"a context \(2, 5\).*context_dim 0"):
        plain(x, torch.zeros(2), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"no context.*context_dim 5"):
        told(x, torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(B, 5\) or \(B, S, 5\)"):
        told(x, torch.zeros(2), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"resolutions \(2,\).*from 0 to 1"):
        UNetConfig((4, 4), attention=(2,))
