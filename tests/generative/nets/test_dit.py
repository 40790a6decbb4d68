"""DiT: its published totals, its parts by hand, its first output."""

import math

import numpy as np
import pytest
import torch

from generative.diffusion import Diffusion, ImageDiffusionConfig
from generative.nets.config import DiTConfig, UNetConfig, dit
from generative.nets.dit import DiT, DiTBlock
from generative.nets.embeddings import plane_positions
from generative.nets.image_network import image_network
from generative.nets.unet import UNet

torch.set_num_threads(1)
TINY = DiTConfig(patch=2, dim=8, num_layers=2, num_heads=2, embedding_dim=8)


def rough(network: torch.nn.Module) -> torch.nn.Module:
    """With weights that are anything, as gates of 0 hide most of a fresh network."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def total(size: str, patch: int) -> int:
    with torch.device("meta"):
        network = DiT((4, 32, 32), dit(size, patch, num_classes=1000), out_channels=8)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("size", "patch", "millions"),
    [("S", 2, 33), ("B", 2, 130), ("L", 2, 458), ("XL", 2, 675), ("XL", 8, 676), ("B", 4, 130)],
)
def test_published_sizes(size, patch, millions):
    """Table 1 of the publication and its program's totals, in millions."""
    assert total(size, patch) / 1e6 == pytest.approx(millions, abs=0.9)


def test_the_total_of_the_largest_by_arithmetic():
    """675,129,632 in the published program, which counts the 256 fixed positions among them."""
    d, layers, patch = 1152, 28, 4 * 2 * 2
    linear = lambda a, b: a * b + b  # noqa: E731
    block = 4 * linear(d, d) + linear(d, 4 * d) + linear(4 * d, d) + linear(d, 6 * d)
    parts = linear(patch, d) + linear(256, d) + linear(d, d) + 1001 * d
    last = linear(d, 2 * patch) + linear(d, 2 * d)
    assert parts + layers * block + last == total("XL", 2) == 675_129_632 - 256 * d


def test_it_begins_with_zeros_and_blocks_begin_as_the_identity():
    torch.manual_seed(0)
    network = DiT((3, 8, 8), TINY)
    x, log_snr = torch.randn(2, 3, 8, 8), torch.tensor([1.0, -2.0])
    assert torch.equal(network(x, log_snr), torch.zeros_like(x))
    tokens = torch.randn(2, 16, 8)
    assert torch.equal(network.blocks[0](tokens, torch.randn(2, 8)), tokens)


def test_a_block_by_hand():
    torch.manual_seed(0)
    block = rough(DiTBlock(8, 2)).double()
    x, c = torch.randn(2, 5, 8).double(), torch.randn(2, 8).double()
    with torch.no_grad():
        found = block(x, c)
        gated = c * c.sigmoid()
        six = (gated @ block.modulation.weight.T + block.modulation.bias).view(2, 6, 1, 8)

        def norm(x):
            centred = x - x.mean(2, keepdim=True)
            return centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()

        h = x + six[:, 2] * block.attention(norm(x) * (1 + six[:, 1]) + six[:, 0])
        first, _, second = block.feed_forward
        inside = first(norm(h) * (1 + six[:, 4]) + six[:, 3])
        cubic = math.sqrt(2 / math.pi) * (inside + 0.044715 * inside**3)
        expected = h + six[:, 5] * second(0.5 * inside * (1 + cubic.tanh()))
    torch.testing.assert_close(found, expected)


def test_patches_are_put_where_they_were_cut():
    """A network whose tokens stay what they are gives back an image made of its patches."""
    network = DiT((2, 6, 4), DiTConfig(patch=2, dim=8, num_layers=1, num_heads=1))
    x = torch.randn(3, 2, 6, 4)
    with torch.no_grad():
        # The tokens are the pixels of a patch in the order of the last layer: side, side, channel.
        unit = torch.eye(8).view(8, 2, 2, 2).permute(0, 3, 1, 2)
        network.patches.weight.copy_(unit)
        network.patches.bias.zero_()
        network.positions.zero_()
        network.norm = torch.nn.Identity()
        network.last.weight.copy_(torch.eye(8))
        found = network(x, torch.zeros(3))
    torch.testing.assert_close(found, x)


def test_places_on_the_plane():
    found = plane_positions(3, 2, 8)
    assert found.shape == (6, 8)
    for i, (row, column) in enumerate((r, c) for r in range(3) for c in range(2)):
        expected = [
            wave(place / 10_000 ** (k / 2))
            for place in (row, column)
            for wave in (math.sin, math.cos)
            for k in range(2)
        ]
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_classes_and_contexts_reach_the_output():
    torch.manual_seed(0)
    x, log_snr = torch.randn(2, 3, 8, 8), torch.tensor([1.0, -2.0])
    with_classes = rough(DiT((3, 8, 8), DiTConfig(2, 8, 1, 2, num_classes=3)))
    first, second = (with_classes(x, log_snr, torch.tensor(label)) for label in ([0, 3], [1, 3]))
    assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1], second[1])  # the label 3 is for none
    told = rough(DiT((3, 8, 8), TINY, context_dim=4))
    one, other = (told(x, log_snr, torch.full((2, 4), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, other)
    for network, context, needed in (
        (with_classes, None, r"got context none; .* int64 \(2,\)"),
        (with_classes, torch.zeros(2), r"float32 \(2,\); .* int64"),
        (told, torch.zeros(2, 3), r"\(2, 3\); .*float \(2, 4\)"),
        (DiT((3, 8, 8), TINY), torch.zeros(2, 3), "made for none"),
    ):
        with pytest.raises(ValueError, match=needed):
            network(x, log_snr, context)


def test_the_noise_level_reaches_every_block():
    torch.manual_seed(0)
    network = rough(DiT((1, 4, 4), TINY))
    x = torch.randn(1, 1, 4, 4)
    levels = [network(x, torch.tensor([value])) for value in (-5.0, 0.0, 5.0)]
    assert not torch.allclose(levels[0], levels[1])
    assert not torch.allclose(levels[1], levels[2])
    loss = network(x, torch.tensor([0.3])).square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith("key.bias"), name


def test_a_config_names_the_network():
    assert isinstance(image_network((1, 8, 8), TINY), DiT)
    assert isinstance(image_network((1, 8, 8), UNetConfig((4, 8), 1)), UNet)
    model = ImageDiffusionConfig((1, 8, 8), TINY, prediction="velocity", steps=2).build()
    assert isinstance(model, Diffusion)
    assert model.sample(2).shape == (2, 1, 8, 8)


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="patch 2; give a patch that divides"):
        ImageDiffusionConfig((1, 7, 8), TINY)
    with pytest.raises(ValueError, match="dim is 6 with 2 heads"):
        DiTConfig(dim=6, num_heads=2)
    with pytest.raises(ValueError, match="embedding_dim is 7"):
        DiTConfig(embedding_dim=7)
