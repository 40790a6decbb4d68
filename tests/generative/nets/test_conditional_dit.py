"""The DiT that is told a text: its first output, padding, parts of its condition, DiT without."""

import pytest
import torch

from generative.diffusion import Diffusion, DiffusionLossConfig, ScheduleConfig
from generative.nets.conditional_dit import ConditionalDiT, ConditionalDiTBlock
from generative.nets.conditional_unet import Condition
from generative.nets.config import ConditionalDiTConfig, DiTConfig
from generative.nets.dit import DiT, DiTBlock
from generative.training.optimisation import Muon, make_optimizers

torch.set_num_threads(1)
TINY = ConditionalDiTConfig(2, 8, 2, 2, context_dim=5, vector_dim=6, embedding_dim=8)
X, LEVELS = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(2)), torch.arange(3.0)


def make(noise: float = 0.3) -> ConditionalDiT:
    """A small network of two channels, whose weights are anything unless noise is 0."""
    torch.manual_seed(0)
    network = ConditionalDiT((2, 4, 6), TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return network.eval()


def told(n: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 4, 5, generator=generator)
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, True, False]])
    return Condition(tokens[:n], mask[:n], torch.randn(3, 6, generator=generator)[:n])


def test_begins_at_zero_and_the_loss_of_the_noise_at_its_mean_square():
    network = make(noise=0.0)
    assert torch.equal(network(X, LEVELS, told()), torch.zeros_like(X))
    diffusion = Diffusion(network, (2, 4, 6), ScheduleConfig(), "noise")
    config = DiffusionLossConfig(weighting="noise")
    loss = diffusion.loss(X, config, torch.Generator().manual_seed(3), told()).loss
    generator = torch.Generator().manual_seed(3)
    torch.rand(1, generator=generator)  # the shift of the noise levels
    eps = torch.randn(X.shape, generator=generator)
    torch.testing.assert_close(loss, eps.square().mean())
    block = ConditionalDiTBlock(8, 2, 5)
    patches = torch.randn(3, 6, 8)
    assert torch.equal(block(patches, torch.randn(3, 8), told()), patches)


def test_padding_has_no_influence_at_all():
    network, condition = make(), told()
    assert condition.tokens is not None
    assert condition.mask is not None
    changed = torch.where(condition.mask[..., None], condition.tokens, torch.tensor(1e3))
    y = network(X, LEVELS, condition)
    assert torch.equal(network(X, LEVELS, condition._replace(tokens=changed)), y)
    other = torch.where(condition.mask[..., None], 2 * condition.tokens, condition.tokens)
    assert not torch.allclose(network(X, LEVELS, condition._replace(tokens=other)), y)
    # Padding alone is a condition too.
    none = condition._replace(mask=torch.zeros_like(condition.mask))
    y = network(X, LEVELS, none)
    assert y.isfinite().all()
    assert torch.equal(network(X, LEVELS, none._replace(tokens=changed)), y)


def test_without_a_token_it_is_the_dit_of_the_vector():
    network, condition = make(), told()
    assert condition.mask is not None
    plain = DiT((2, 4, 6), DiTConfig(2, 8, 2, 2, 0, 8, TINY.max_frequency), context_dim=6)
    own = {k: v for k, v in network.state_dict().items() if ".cross" not in k}
    plain.load_state_dict(own)
    none = condition._replace(mask=torch.zeros_like(condition.mask))
    expected = plain(X, LEVELS, condition.vector)
    torch.testing.assert_close(network(X, LEVELS, none), expected)
    assert not torch.allclose(network(X, LEVELS, condition), expected)


def test_a_block_looks_at_the_tokens_first():
    torch.manual_seed(0)
    block, condition = ConditionalDiTBlock(8, 2, 5), told()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, c = torch.randn(3, 6, 8), torch.randn(3, 8)
    assert condition.tokens is not None
    assert condition.mask is not None
    centred = x - x.mean(2, keepdim=True)
    normed = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
    seen = block.cross(normed, condition.tokens, mask=condition.mask[:, None, None])
    torch.testing.assert_close(block(x, c, condition), DiTBlock.forward(block, x + seen, c))


def test_every_weight_takes_part_and_muon_moves_the_blocks():
    network = make()
    network(X, LEVELS, told()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    _, muon = make_optimizers(network, DiffusionLossConfig(optimizer="muon"))
    assert isinstance(muon, Muon)
    moved = sum(len(group["params"]) for group in muon.param_groups)
    assert moved == 2 * (4 + 4 + 2 + 1)  # both attentions, the feed-forward, the modulation


def test_each_example_is_worked_on_alone():
    network, condition = make(), told()
    whole = network(X, LEVELS, condition)
    one = Condition(*(None if part is None else part[1:2] for part in condition))
    torch.testing.assert_close(network(X[1:2], LEVELS[1:2], one), whole[1:2], rtol=1e-4, atol=1e-5)
    assert network(X[:0], LEVELS[:0], told(0)).shape == (0, 2, 4, 6)
    assert condition.vector is not None
    changed = condition._replace(vector=-condition.vector)
    assert not torch.allclose(network(X, LEVELS, changed), whole)


def test_what_it_does_not_take_is_refused():
    network, condition = make(), told()
    for wrong, words in (
        (None, "tokens in the condition: none; this DiT needs \\(3, S, 5\\)"),
        (condition._replace(tokens=torch.zeros(3, 4, 6)), "\\(3, 4, 6\\)"),
        (condition._replace(vector=None), "made for float \\(3, 6\\)"),
        (condition._replace(image=X), "use a U-Net"),
    ):
        with pytest.raises(ValueError, match=words):
            network(X, LEVELS, wrong)
    with pytest.raises(ValueError, match="dim is 9 with 2 heads"):
        ConditionalDiTConfig(dim=9, num_heads=2)
