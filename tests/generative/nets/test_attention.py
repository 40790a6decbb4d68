"""Attention and the Transformer block against loops, torch's own layer, and their definitions."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from generative.nets.attention import (
    KeyValueCache,
    MultiHeadAttention,
    PooledAttention,
    apply_rotary,
    causal_mask,
    padding_mask,
)
from generative.nets.config import BlockConfig, bert_block, gpt2_block, t5_block
from generative.nets.transformer import BlockCache, TokenShift, TransformerBlock, init_weights

torch.set_num_threads(1)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_equation_by_a_loop():
    """Three heads of width 5 over an input of width 4, causal."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(4, 3, 5, causal=True)
    x = randn(2, 6, 4)
    w = {name: p.detach().numpy() for name, p in attention.named_parameters()}
    expected = np.zeros((2, 6, 4))
    for b in range(2):
        for i in range(6):
            heads = []
            for h in range(3):
                part = slice(5 * h, 5 * h + 5)
                q, k, v = (
                    x[b].numpy() @ w[f"{name}.weight"][part].T + w[f"{name}.bias"][part]
                    for name in ("query", "key", "value")
                )
                scores = np.array([q[i] @ k[j] / math.sqrt(5) for j in range(i + 1)])
                weights = np.exp(scores) / np.exp(scores).sum()
                heads.append(sum(weights[j] * v[j] for j in range(i + 1)))
            expected[b, i] = w["out.weight"] @ np.concatenate(heads) + w["out.bias"]
    np.testing.assert_allclose(attention(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_torchs_layer(causal):
    torch.manual_seed(0)
    ours, theirs = (
        MultiHeadAttention(12, 3, causal=causal),
        nn.MultiheadAttention(12, 3, batch_first=True),
    )
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj = ours.out
    x = randn(2, 7, 12)
    hidden = ~causal_mask(7, 7) if causal else None
    expected, weights = theirs(x, x, x, attn_mask=hidden, average_attn_weights=False)
    maps: list[torch.Tensor] = []
    torch.testing.assert_close(ours(x, maps=maps), expected)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(maps[0], weights)


def test_causal_attention_does_not_see_what_comes():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2, causal=True), randn(1, 6, 8)
    changed = x.clone()
    changed[0, 4] += 1
    same = (attention(x) - attention(changed)).abs().amax(2)[0]
    assert (same[:4] == 0).all()
    assert (same[4:] > 1e-3).all()
    maps: list[torch.Tensor] = []
    attention(x, maps=maps)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(1, 2, 6))
    assert (maps[0].triu(1) == 0).all()


@pytest.mark.parametrize("relative", [None, lambda q, n: q.sum(-1, True) * torch.arange(n)])
def test_cache_gives_what_the_whole_gives(relative):
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2, causal=True), randn(3, 9, 8)
    whole, cache = attention(x, relative=relative), KeyValueCache()
    parts = [
        attention(part, relative=relative, cache=cache) for part in x.split([4, 1, 3, 1], dim=1)
    ]
    assert len(cache) == 9
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_relative_terms_are_added_before_the_division():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(6, 2), randn(2, 5, 6)
    term = randn(1, 2, 5, 5, seed=1)
    maps: list[torch.Tensor] = []
    y = attention(x, relative=lambda q, num_keys: term, maps=maps)
    q, k = (f(x).view(2, 5, 2, 3).transpose(1, 2) for f in (attention.query, attention.key))
    expected = ((q @ k.transpose(2, 3) + term) / math.sqrt(3)).softmax(-1)
    torch.testing.assert_close(maps[0], expected)
    torch.testing.assert_close(attention(x, relative=lambda q, num_keys: term), y)


def test_masked_keys_are_as_if_they_were_not_there():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2), randn(2, 6, 8)
    tokens = torch.tensor([[5, 3, 4, 0, 0, 0]] * 2)
    mask = padding_mask(tokens)
    torch.testing.assert_close(attention(x, mask=mask)[:, :3], attention(x[:, :3]))
    bias = lambda q, n: torch.ones(1, 1, n)  # noqa: E731
    torch.testing.assert_close(attention(x, mask=mask, relative=bias), attention(x, mask=mask))


def test_a_cached_context_is_read_once():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, context_dim=5)
    x, context, cache = randn(2, 4, 8), randn(2, 7, 5, seed=1), KeyValueCache()
    parts = [attention(part, context, cache=cache) for part in x.split(1, 1)]
    assert len(cache) == 7
    torch.testing.assert_close(torch.cat(parts, 1), attention(x, context))


def test_the_books_block_has_its_parameters():
    block = TransformerBlock(BlockConfig(), causal=True)
    assert count(block.attention) == 526_080
    assert count(block.attention_norm) + count(block.feed_forward_norm) == 1_024
    assert count(block.feed_forward) == 131_584
    assert count(block) == 658_688


def test_rotary_places_are_turns_of_complex_numbers():
    x, first = randn(2, 3, 5, 8).double(), 7
    rates = 10_000.0 ** (-np.arange(4) / 4)
    numbers = x[..., :4].numpy() + 1j * x[..., 4:].numpy()
    turned = numbers * np.exp(1j * (first + np.arange(5))[:, None] * rates)
    found = apply_rotary(x, first).numpy()
    np.testing.assert_allclose(found[..., :4], turned.real, atol=1e-5)
    np.testing.assert_allclose(found[..., 4:], turned.imag, atol=1e-5)


def test_rotary_scores_depend_on_distances_alone():
    q, k = randn(1, 6, 8), randn(1, 6, 8, seed=1)
    scores = [
        apply_rotary(q, first) @ apply_rotary(k, first).transpose(1, 2) for first in (0, 1, 40)
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[2], scores[0], rtol=1e-4, atol=1e-4)
    # A vector keeps its length, and that of place 0 stays as it is.
    torch.testing.assert_close(apply_rotary(q).norm(dim=2), q.norm(dim=2))
    assert torch.equal(apply_rotary(q)[:, 0], q[:, 0])
    # Equal vectors everywhere are told apart by their distance.
    same = torch.ones(1, 6, 8)
    found = (apply_rotary(same) @ apply_rotary(same).transpose(1, 2))[0]
    assert found[5, 5] > found[5, 4] > found[5, 3]


def test_rotary_attention_by_its_cache_and_without_an_order_of_its_own():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2, causal=True, rotary=True), randn(3, 9, 8)
    whole, cache = attention(x), KeyValueCache()
    parts = [attention(part, cache=cache) for part in x.split([4, 1, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    plain = MultiHeadAttention(8, 2, causal=True)
    plain.load_state_dict(attention.state_dict())
    order = [3, 1, 0, 2, 4]  # the last place sees all before it, in any order
    torch.testing.assert_close(plain(x[:, order])[:, -1], plain(x[:, :5])[:, -1])
    assert not torch.allclose(attention(x[:, order])[:, -1], whole[:, 4], atol=1e-3)
    # A context has places of its own.
    context = randn(3, 4, 8, seed=2)
    torch.testing.assert_close(attention(x, context), plain(x, context))


@pytest.mark.parametrize(
    "config",
    [
        BlockConfig(8, 2, 4, 16),
        gpt2_block(8, 2),
        bert_block(8, 2),
        t5_block(8, 2),
        replace(gpt2_block(8, 2), rotary=True),
        replace(gpt2_block(8, 2), shift=1),
        replace(bert_block(8, 2), shift=3),
    ],
)
def test_block_by_its_steps_and_by_its_cache(config):
    torch.manual_seed(0)
    block = TransformerBlock(config, causal=True, cross=True).eval()
    x, context = randn(2, 5, 8), randn(2, 3, 8, seed=1)
    if block.shift is not None:
        nn.init.normal_(block.shift.factors)
    y = block(x, context)
    whole = x
    a, c, f = block.attention, block.cross, block.feed_forward
    na, nc, nf = block.attention_norm, block.cross_norm, block.feed_forward_norm
    if block.shift is not None:
        x, _ = block.shift(x)
    if config.norm == "pre":
        h = x + a(na(x))
        h = h + c(nc(h), context)
        expected = h + f(nf(h))
    else:
        h = na(x + a(x))
        h = nc(h + c(h, context))
        expected = nf(h + f(h))
    torch.testing.assert_close(y, expected)
    cache = BlockCache()
    parts = [block(part, context, cache=cache) for part in whole.split([2, 1, 2], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), y)
    maps: list[torch.Tensor] = []
    torch.testing.assert_close(block(whole, context, maps=maps), y)
    assert [tuple(m.shape) for m in maps] == [(2, 2, 5, 5), (2, 2, 5, 3)]


@pytest.mark.parametrize("num", [1, 3, 7])
def test_a_shift_is_a_causal_convolution_of_each_feature(num):
    shift, x = TokenShift(4, num), randn(2, 5, 4)
    assert torch.equal(shift(x)[0], x)  # factors begin at 0
    nn.init.normal_(shift.factors)
    # torch's filters are read from the oldest place to the newest, which is kept as it is.
    filters = torch.cat([shift.factors.detach().flip(0), torch.ones(1, 4)]).T[:, None]
    line = nn.functional.pad(x.transpose(1, 2), (num, 0))
    expected = nn.functional.conv1d(line, filters, groups=4).transpose(1, 2)
    found, last = shift(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(last, line.transpose(1, 2)[:, -num:])


def test_first_weights():
    torch.manual_seed(0)
    block = TransformerBlock(gpt2_block(64, 4))
    init_weights(block, "normal", num_layers=8)
    assert float(block.attention.query.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.attention.out.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(block.feed_forward[3].weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)
    init_weights(block, "glorot")
    bound = math.sqrt(6 / (64 + 256))
    assert float(block.feed_forward[0].weight.detach().max()) == pytest.approx(bound, rel=0.01)
    assert not block.feed_forward[0].bias.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockConfig(dim=0), "dim is 0"),
        (lambda: BlockConfig(10, 3, 0), "dim 10 and 3 heads"),
        (lambda: BlockConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: BlockConfig(shift=-1), "shift is -1"),
        (lambda: BlockConfig(6, 2, 3, rotary=True), "turns pairs of numbers, and a key has 3"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_pooled_attention_by_a_loop():
    torch.manual_seed(0)
    layer, x, maps = PooledAttention(16), torch.randn(2, 16, 4, 6), []
    assert sum(p.numel() for p in layer.parameters()) == 2 * 16 * 2 + 2 * 16 * 8 + 1
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(0.7)
        layer.query.weight.mul_(3)
        y = layer(x, maps)
        assert maps[0].shape == (2, 24, 6)
        torch.testing.assert_close(maps[0].sum(2), torch.ones(2, 24))
        q, k, v = layer.query(x), layer.key(x), layer.value(x)
        for b, row, column in itertools.product(range(2), range(4), range(6)):
            keys, values = [], []
            for i, j in itertools.product(range(2), range(3)):
                square = (b, slice(None), slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
                keys.append(k[square].amax((1, 2)))
                values.append(v[square].amax((1, 2)))
            weights = torch.stack([q[b, :, row, column] @ key for key in keys]).softmax(0)
            torch.testing.assert_close(weights, maps[0][b, 6 * row + column])
            found = sum(w * value for w, value in zip(weights, values, strict=True))
            expected = x[b, :, row, column] + 0.7 * layer.out.weight[:, :, 0, 0] @ found
            torch.testing.assert_close(y[b, :, row, column], expected)


def test_pooled_attention_can_be_differentiated_twice():
    """A penalty on the critic's slope needs it."""
    torch.manual_seed(0)
    layer = PooledAttention(8).double()
    nn.init.ones_(layer.gamma)
    x = torch.randn(1, 8, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)
