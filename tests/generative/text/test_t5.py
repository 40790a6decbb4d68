"""T5 against transformers' T5, loops, and what can be put together again."""

import itertools

import pytest
import torch

from generative.text.corruption import corrupt_spans, span_lengths
from generative.text.t5 import T5, T5Config, relative_buckets, t5_block
from generative.text.tokens import after_end, up_to_end

torch.set_num_threads(1)
TINY = T5Config(9, 2, 2, t5_block(16, 2), num_buckets=8, max_distance=12, max_len=12)


def wild(config: T5Config = TINY) -> T5:
    torch.manual_seed(0)
    model = T5(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(rows: int, length: int, most: int = 11) -> torch.Tensor:
    return torch.randint(2, most, (rows, length), generator=torch.Generator().manual_seed(0))


def test_texts_can_be_put_together_again():
    x = torch.arange(2, 42).expand(20, -1).clone()
    x[0, 25:] = 0
    sources, targets = corrupt_spans(x, 100, generator=torch.Generator().manual_seed(0))
    for row, source, target in zip(x, sources, targets, strict=True):
        pieces: dict[int, list[int]] = {}
        for token in target[up_to_end(target[None])[0]][:-1].tolist():
            if token >= 100:
                pieces[token] = []
                last = token
            else:
                pieces[last].append(token)
        whole: list[int] = []
        for token in source[source != 0].tolist():
            whole += pieces.pop(token) if token >= 100 else [token]
        assert whole == row[row != 0].tolist()
        assert not pieces


def test_how_much_is_cut_out():
    """15 % in pieces of 3: of 512 tokens 77 in 26 pieces (Raffel et al. 2020)."""
    assert span_lengths(512) == (77, 26)
    assert span_lengths(2) == (1, 1)
    x = torch.full((200, 40), 5)
    _, targets = corrupt_spans(x, 100, generator=torch.Generator().manual_seed(0))
    assert (targets >= 100).sum(1).tolist() == [2] * 200
    assert (targets == 5).sum(1).tolist() == [6] * 200
    # All five ways to divide six tokens are as probable.
    first = torch.tensor([row.tolist().index(101) - 1 for row in targets])
    counts = torch.bincount(first, minlength=6)[1:]
    assert (counts - 40).abs().max() < 20
    with pytest.raises(ValueError, match="text of 1 tokens"):
        corrupt_spans(torch.tensor([[5, 0]]), 100)


def test_buckets_by_hand():
    distance = torch.arange(-9, 10)
    found = relative_buckets(distance, both_sides=True, num_buckets=8, max_distance=16)
    # Four buckets each side: 0, 1, then 2 .. 5 (half of the way to 16 on a log scale), and beyond.
    expected = [3, 3, 3, 3, 2, 2, 2, 2, 1, 0, 5, 6, 6, 6, 6, 7, 7, 7, 7]
    assert found.tolist() == expected
    past = relative_buckets(distance, both_sides=False, num_buckets=4, max_distance=16)
    assert past[9:].tolist() == [0] * 10
    assert past[:9].tolist() == [3, 3, 3, 3, 2, 2, 2, 2, 1]


@pytest.mark.oracle
def test_buckets_are_those_of_transformers():
    module = pytest.importorskip("transformers.models.t5.modeling_t5", reason="compares with it")
    distance = torch.arange(-300, 300)
    for both_sides, buckets in itertools.product((False, True), (16, 32)):
        theirs = module.T5Attention._relative_position_bucket(distance, both_sides, buckets, 128)
        assert torch.equal(relative_buckets(distance, both_sides, buckets, 128), theirs)


@pytest.mark.oracle
def test_transformers_t5_gives_the_same_logits():
    transformers = pytest.importorskip("transformers", reason="compares with its T5")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=11, d_model=16, d_kv=8, d_ff=64, num_layers=2, num_heads=2,
        relative_attention_num_buckets=8, relative_attention_max_distance=12,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    theirs, ours = transformers.T5ForConditionalGeneration(config).eval(), wild()
    pairs = [
        (theirs.shared, ours.embedding),
        (theirs.encoder.final_layer_norm, ours.encoder_norm),
        (theirs.decoder.final_layer_norm, ours.decoder_norm),
    ]
    for stack, blocks, bias in (
        (theirs.encoder, ours.encoder, ours.encoder_bias),
        (theirs.decoder, ours.decoder, ours.decoder_bias),
    ):
        pairs.append((stack.block[0].layer[0].SelfAttention.relative_attention_bias, bias.values))
        for layers, block in zip((b.layer for b in stack.block), blocks, strict=True):
            attentions = [(layers[0].SelfAttention, block.attention)]
            pairs.append((layers[0].layer_norm, block.attention_norm))
            if len(layers) == 3:
                attentions.append((layers[1].EncDecAttention, block.cross))
                pairs.append((layers[1].layer_norm, block.cross_norm))
            for other, own in attentions:
                pairs += [
                    (other.q, own.query), (other.k, own.key), (other.v, own.value),
                    (other.o, own.out),
                ]  # fmt: skip
            pairs += [
                (layers[-1].layer_norm, block.feed_forward_norm),
                (layers[-1].DenseReluDense.wi, block.feed_forward[0]),
                (layers[-1].DenseReluDense.wo, block.feed_forward[3]),
            ]
    for other, own in pairs:
        other.load_state_dict(own.state_dict())
    source, target = tokens(3, 10), tokens(3, 7)
    source[1, 6:] = 0
    inputs = after_end(target)
    with torch.no_grad():
        found = ours.logits(inputs, ours.encode(source), source)
        expected = theirs(
            source, attention_mask=(source != 0).long(), decoder_input_ids=inputs
        ).logits
        assert (found - expected).abs().max() < 1e-4
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_writing_token_by_token_is_reading_the_whole():
    model, source = wild(), tokens(4, 10)
    written = model.generate(source, 8)
    memory = model.encode(source)
    logits = model.logits(after_end(written), memory, source)
    counted = up_to_end(written)
    assert torch.equal(logits.argmax(-1)[counted], written[counted])


def test_probabilities_of_all_targets_sum_to_one():
    model = wild(T5Config(3, 1, 1, t5_block(8, 2), num_buckets=4, max_distance=8))
    targets = torch.tensor(list(itertools.product(range(4), repeat=3)))
    targets = targets[(targets * ~up_to_end(targets) == 0).all(1)]
    source = torch.tensor([[2, 3, 1]]).expand(len(targets), -1)
    log_p = model.target_log_prob(source, targets).detach().double()
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    tokens_in_all = up_to_end(targets).sum()
    loss = model.loss(source, targets).loss.detach().double()
    assert float(loss) == pytest.approx(-float(log_p.sum() / tokens_in_all), abs=1e-5)


def test_maps_of_attention():
    model, source, target = wild(), tokens(2, 9), tokens(2, 5)
    source[0, 6:] = 0
    maps = model.attention_maps(source, target)
    shapes = [tuple(m[0].shape) for m in (maps.encoder, maps.decoder, maps.cross)]
    assert shapes == [(2, 2, 9, 9), (2, 2, 5, 5), (2, 2, 5, 9)]
    assert len(maps.encoder) == len(maps.decoder) == len(maps.cross) == 2
    assert not maps.decoder[0].triu(1).any()
    assert not maps.cross[0][0, :, :, 6:].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T5Config(num_buckets=6), "num_buckets is 6"),
        (lambda: T5Config(num_buckets=32, max_distance=32), "max_distance 32"),
        (lambda: wild().loss(tokens(2, 13), tokens(2, 3)), r"\(2, 13\).*T from 1 to 12"),
        (lambda: wild().loss(tokens(2, 5), tokens(2, 3) + 20), "0 to 10"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
