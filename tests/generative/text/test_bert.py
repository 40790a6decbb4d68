"""BERT against known sizes, transformers' BERT, and what its padding and masking have to do."""

import pytest
import torch
from torch import nn

from generative.text.bert import BERT, BERTClassifier, BERTConfig, bert_block
from generative.text.corruption import exchange_tokens, hide_tokens

torch.set_num_threads(1)
TINY = BERTConfig(11, 9, 2, bert_block(16, 2))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def wild(config: BERTConfig = TINY) -> BERT:
    torch.manual_seed(0)
    model = BERT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(2, 11, (rows, length), generator=torch.Generator().manual_seed(0))


def test_sizes():
    """Embeddings, and for each block 4 d^2 + 4 d of attention, 8 d^2 + 5 d inside, 4 d of norms."""
    d, layers = 64, 2
    expected = (2_003 + 80 + 2) * d + 2 * d + layers * (12 * d * d + 13 * d)
    assert expected == 233_536
    assert count(BERT(BERTConfig(2_000, 80, layers, bert_block(d, 2))).encoder) == expected
    assert count(BERT().encoder) == 5_753_600


def test_padding_changes_nothing():
    model, x = wild(), tokens(2, 5)
    padded = torch.cat([x, torch.zeros(2, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(model.fill(padded)[:, :5], model.fill(x))
    torch.testing.assert_close(model.encode(padded), model.encode(x))
    maps = model.attention_maps(padded)
    assert len(maps) == 2
    assert not maps[0][:, :, :, 6:].any()
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 9))


def test_both_sides_are_seen():
    model, x = wild(), tokens(1, 7)
    x[0, 3] = model.encoder.mask_token
    for place in (0, 6):
        changed = x.clone()
        changed[0, place] = 2 + (int(x[0, place]) - 1) % 9
        assert (model.fill(x) - model.fill(changed))[0, 3].abs().max() > 1e-4


def test_loss_is_of_the_hidden_tokens_only():
    model, x = wild(BERTConfig(11, 9, 2, bert_block(16, 2), hide_all=True)), tokens(4, 8)
    found = model.loss(x, torch.Generator().manual_seed(3))
    hidden = hide_tokens(x, 0.15, torch.Generator().manual_seed(3))
    logits = model.logits(
        torch.cat(
            [
                torch.full((4, 1), model.encoder.class_token),
                x.masked_fill(hidden, model.encoder.mask_token),
            ],
            1,
        )
    )[:, 1:]
    log_p = logits.log_softmax(-1).gather(2, x[:, :, None])[:, :, 0]
    torch.testing.assert_close(found.loss, -log_p[hidden].mean())


def test_hidden_tokens_are_a_share_and_at_least_one():
    x = tokens(3000, 20)
    x[:, 15:] = 0
    hidden = hide_tokens(x, 0.15, torch.Generator().manual_seed(0))
    assert not hidden[:, 15:].any()
    assert hidden.any(1).all()
    # One more where none of 15 was hidden, which has probability 0.85^15.
    expected = 0.15 + 0.85**15 / 15
    assert float(hidden[:, :15].float().mean()) == pytest.approx(expected, abs=0.005)


def test_exchanged_tokens_have_their_shares():
    x = tokens(400, 100)
    chosen = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    y = exchange_tokens(x, chosen, 11, 11, torch.Generator().manual_seed(0))
    assert torch.equal(y[~chosen], x[~chosen])
    masked = float((y[chosen] == 11).float().mean())
    same = float((y[chosen] == x[chosen]).float().mean())
    assert masked == pytest.approx(0.8, abs=0.012)
    assert same == pytest.approx(0.1 + 0.1 / 9, abs=0.01)  # an exchange may hit on the same token
    assert y.min() >= 2


def test_classifier_begins_with_the_encoder():
    bert, x = wild(), tokens(3, 8)
    classifier = BERTClassifier.of(bert, 4).eval()
    for ours, theirs in zip(
        classifier.encoder.parameters(), bert.encoder.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    whole = bert.encoder.read(x)[0]
    torch.testing.assert_close(classifier.logits(x), classifier.head(classifier.pooler(whole)))
    losses = classifier.loss(x, torch.tensor([0, 1, 2]))
    log_p = classifier.logits(x).log_softmax(1)
    torch.testing.assert_close(losses.loss, -(log_p[0, 0] + log_p[1, 1] + log_p[2, 2]) / 3)


@pytest.mark.oracle
def test_transformers_bert_gives_the_same_logits():
    transformers = pytest.importorskip("transformers", reason="compares with its BERT")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=9,
    )  # fmt: skip
    theirs, ours = transformers.BertForMaskedLM(config).eval(), wild()
    e, head = theirs.bert.embeddings, theirs.cls.predictions
    pairs = [
        (e.word_embeddings, ours.encoder.embedding),
        (e.position_embeddings, ours.encoder.positions),
        (e.token_type_embeddings, ours.encoder.segments),
        (e.LayerNorm, ours.encoder.norm),
        (head.transform.dense, ours.head[0]),
        (head.transform.LayerNorm, ours.head[2]),
    ]
    for layer, block in zip(theirs.bert.encoder.layer, ours.encoder.blocks, strict=True):
        attention = layer.attention.self
        pairs += [
            (attention.query, block.attention.query),
            (attention.key, block.attention.key),
            (attention.value, block.attention.value),
            (layer.attention.output.dense, block.attention.out),
            (layer.attention.output.LayerNorm, block.attention_norm),
            (layer.intermediate.dense, block.feed_forward[0]),
            (layer.output.dense, block.feed_forward[3]),
            (layer.output.LayerNorm, block.feed_forward_norm),
        ]
    for other, own in pairs:
        other.load_state_dict(own.state_dict())
    with torch.no_grad():
        head.bias.copy_(ours.bias)
    x, segments = tokens(3, 9), torch.tensor([[0] * 5 + [1] * 4] * 3)
    x[1, 6:] = 0
    found = ours.logits(x, segments).detach()
    expected = theirs(x, attention_mask=(x != 0).long(), token_type_ids=segments).logits
    assert (found - expected)[x != 0].abs().max() < 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BERTConfig(mask_rate=1.0), "mask_rate is 1.0"),
        (lambda: BERTConfig(num_segments=0), "num_segments is 0"),
        (lambda: wild().loss(torch.zeros(2, 4, dtype=torch.int64)), "empty text"),
        (lambda: wild().loss(torch.full((1, 4), 11)), "from 11 to 11.*0 to 10"),
        (lambda: BERTClassifier.of(wild(), 1), "num_classes is 1"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
