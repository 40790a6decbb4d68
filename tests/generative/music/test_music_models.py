"""The models of notes against loops, closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generative.data.tunes import tunes
from generative.music import (
    Score,
    Streams,
    events,
    grid,
    interleave,
    one_word_each,
    score_of_grid,
    streams_of_score,
)
from generative.music.measures import word_nats
from generative.music.rnn import (
    MusicLearner,
    MusicLossConfig,
    MusicRNN,
    MusicRNNConfig,
    pad_rolls,
    shift_keys,
)
from generative.music.transformer import (
    MusicTransformer,
    MusicTransformerConfig,
    RelativePositions,
    encode_pieces,
    pad_tokens,
    vocabularies,
    windows,
)
from generative.nets.attention import MultiHeadAttention
from generative.nets.transformer import BlockConfig

torch.set_num_threads(1)


def words(num: int, letter: str) -> str:
    """So many numbers with those of padding and of unknown words."""
    return " ".join(f"{letter}{i}" for i in range(num - 2))


def tiny(**settings) -> MusicTransformer:
    torch.manual_seed(0)
    pieces = [streams_of_score(score, end=True) for score in tunes(20)]
    config = MusicTransformerConfig(
        vocabularies(pieces), embed_dim=8, block=BlockConfig(16, 2, 8, 16), length=12, **settings
    )
    return MusicTransformer(config).eval()


def pieces() -> torch.Tensor:
    model = tiny()
    found = [streams_of_score(score, end=True) for score in tunes(4)]
    return pad_tokens(encode_pieces(found, model.config.streams))


def test_parameters_are_the_books():
    model = MusicTransformer(MusicTransformerConfig((words(59, "n"), words(24, "d"))))
    assert sum(p.numel() for p in model.parameters()) == 1_479_379
    assert sum(p.numel() for p in model.blocks.parameters()) == 1_447_424
    with pytest.raises(ValueError, match="vocabularies"):
        MusicTransformer(MusicTransformerConfig())
    with pytest.raises(ValueError, match=r"block.dim is 256.*need 128"):
        MusicTransformerConfig(("a b",))


@pytest.mark.parametrize("num_queries", [1, 4, 9])
def test_skewed_relative_attention_is_the_naive_one(num_queries):
    """Also for the last queries alone, as they are asked when music is made step by step."""
    torch.manual_seed(0)
    heads, dim, num_keys = 3, 5, 9
    relative = RelativePositions(heads, dim, max_distance=6).double()
    q = torch.randn(2, heads, num_queries, dim, dtype=torch.float64)
    found = relative(q, num_keys)
    for i in range(num_queries):
        for j in range(num_keys - num_queries + i + 1):
            distance = min(num_keys - num_queries + i - j, 6)
            naive = (q[:, :, i] * relative.vectors[:, distance]).sum(-1)
            assert (found[:, :, i, j] - naive).abs().max() < 1e-6


def test_relative_attention_in_the_layer():
    """softmax((q k + q e) / sqrt(D)) v by a loop over heads and positions."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 2, 4, causal=True).double()
    relative = RelativePositions(2, 4, 3).double()
    torch.nn.init.normal_(relative.vectors)
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    maps = []
    found = attention(x, relative=relative, maps=maps)
    q, k, v = (
        m(x)[0].unflatten(1, (2, 4)) for m in (attention.query, attention.key, attention.value)
    )
    rows = []
    for i in range(7):
        heads = []
        for h in range(2):
            s = [q[i, h] @ (k[j, h] + relative.vectors[h, min(i - j, 3)]) / 2 for j in range(i + 1)]
            weights = torch.stack(s).softmax(0)
            torch.testing.assert_close(maps[0][0, h, i, : i + 1], weights)
            heads.append(weights @ v[: i + 1, h])
        rows.append(torch.cat(heads))
    torch.testing.assert_close(found[0], attention.out(torch.stack(rows)))
    torch.testing.assert_close(attention(x, relative=relative), found)


@pytest.mark.parametrize(
    "settings", [{}, {"relative": 5, "chained": True, "clock": True}, {"network": "lstm"}]
)
def test_log_prob_is_the_sum_over_what_comes_next(settings):
    """Step by step, from the beginning alone, and never from what is later."""
    model = tiny(**settings)
    x = pieces()[:2]
    total = torch.zeros(2)
    for t in range(x.shape[1] - 1):
        heard = x[:, : t + 2]
        for s, log_p in enumerate(model.next_log_probs(heard)):
            own = log_p[:, t].gather(1, x[:, t + 1, s, None])[:, 0]
            total += torch.where(x[:, t + 1, s] == 0, 0, own)
    torch.testing.assert_close(model.log_prob(x), total, rtol=1e-4, atol=1e-4)


def test_padding_counts_for_nothing_but_in_the_books_loss():
    model, x = tiny(), pieces()[:2]
    longer = F.pad(x, (0, 0, 0, 5))
    for a, b in zip(model.loss(longer), model.loss(x), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(model.log_prob(longer), model.log_prob(x))
    padded = model.loss(longer, count_padding=True).loss
    assert abs(padded - model.loss(x, count_padding=True).loss) > 1e-3
    logits = model.next_log_probs(longer[:, :-1])
    expected = sum(
        F.nll_loss(log_p.flatten(0, 1), longer[:, 1:, s].flatten())
        for s, log_p in enumerate(logits)
    )
    torch.testing.assert_close(padded, expected)


def test_a_chained_model_tells_the_duration_its_note():
    model = tiny(chained=True)
    x = pieces()[:1, :4]
    other = x.clone()
    other[0, 3, 0] = 2 if x[0, 3, 0] != 2 else 3
    a, b = model.word_log_probs(x), model.word_log_probs(other)
    assert not torch.equal(a[0, 2, 1], b[0, 2, 1])
    plain = tiny()
    assert torch.equal(plain.word_log_probs(x)[0, 2, 1], plain.word_log_probs(other)[0, 2, 1])


def test_samples_are_music():
    model = tiny(relative=4)
    generator = torch.Generator().manual_seed(0)
    x = model.sample(6, generator, length=30, temperature=(0.7, 1.3), prompt=pieces()[0, :3])
    assert torch.equal(x[:, :3], pieces()[0, :3].expand(6, -1, -1))
    end = model.vocabularies[0].number("END")
    for piece in x:
        over = (piece[:, 0] == end).nonzero()
        stop = int(over[0]) + 1 if len(over) else 30
        assert (piece[:stop] >= 2).all()
        assert (piece[stop:] == 0).all()
    assert len(model.scores(x)) == 6
    cold = [model.sample(1, length=8, temperature=0) for _ in range(2)]
    assert torch.equal(*cold)


def test_scoring_in_windows_counts_every_element_once(monkeypatch):
    model = tiny()
    found = encode_pieces([streams_of_score(s, end=True) for s in tunes(6)], model.config.streams)
    counted = []

    def ones(tokens):
        counted.append(tokens)
        return -torch.ones(*tokens[:, 1:].shape)

    monkeypatch.setattr(model, "word_log_probs", ones)
    assert word_nats(model, found) == (1.0, 1.0, 0)
    monkeypatch.undo()
    whole = [model.word_log_probs(torch.from_numpy(p)[None]) for p in found if len(p) <= 13]
    short = [p for p in found if len(p) <= 13]
    if short:
        mean = -torch.cat([w[0] for w in whole]).double().mean(0)
        assert word_nats(model, short)[:2] == pytest.approx(mean.tolist())


def test_windows_are_the_books():
    piece = np.arange(10)[:, None]
    assert [w[:, 0].tolist() for w in windows(piece, 8)] == [[*range(9)], [*range(1, 10)]]
    assert len(windows(piece, 20)) == 1


# ---------------------------------------------------------------------------------------------
# Piano rolls
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rolls_of_different_lengths(cell):
    torch.manual_seed(0)
    model = MusicRNN(MusicRNNConfig(5, cell, 7)).eval()
    rolls = [np.random.default_rng(i).random((n, 5)) < 0.4 for i, n in enumerate((3, 6))]
    x = pad_rolls(rolls)
    alone = [model.log_prob(pad_rolls([roll])) for roll in rolls]
    torch.testing.assert_close(model.log_prob(x), torch.cat(alone))
    torch.testing.assert_close(model.loss(x).loss, -sum(alone)[0] / 9)
    silent = model.loss(x.clamp_min(0)).loss
    torch.testing.assert_close(model.loss(x, count_padding=True).loss, silent)


def test_a_roll_frame_by_frame():
    torch.manual_seed(0)
    model = MusicRNN(MusicRNNConfig(4, hidden_dim=6)).eval()
    x = (torch.rand(1, 5, 4) < 0.5).float()
    before, state = torch.zeros(1, 1, 4), None
    for t in range(5):
        h, state = model.rnn(before, state)
        keys = torch.distributions.Bernoulli(logits=model.head(h)[0, 0])
        torch.testing.assert_close(model.frame_log_probs(x)[0, t], keys.log_prob(x[0, t]).sum())
        before = x[:, t : t + 1]


def test_all_pieces_of_two_frames_have_probability_one():
    torch.manual_seed(0)
    model = MusicRNN(MusicRNNConfig(3, hidden_dim=6)).eval()
    bits = torch.arange(64)[:, None] >> torch.arange(6) & 1
    log_p = model.log_prob(bits.float().view(64, 2, 3)).detach()
    assert log_p.exp().sum() == pytest.approx(1, abs=1e-5)


def test_shifting_loses_no_note():
    roll = np.zeros((3, 8), bool)
    roll[0, 2] = roll[2, 6] = True
    assert np.argwhere(shift_keys(roll, 5)).tolist() == [[0, 3], [2, 7]]
    assert np.argwhere(shift_keys(roll, -1)).tolist() == [[0, 1], [2, 5]]
    assert shift_keys(roll * False, 3).sum() == 0


def test_the_best_weights_are_kept():
    torch.manual_seed(0)
    model = MusicRNN(MusicRNNConfig(3, hidden_dim=4))
    x = torch.ones(2, 3, 3)
    nats = iter([3.0, 1.0, 2.0])
    learner = MusicLearner(model, MusicLossConfig(validate_every=2), 6, lambda m: next(nats))
    seen = []
    for _ in range(6):
        learner.update(x)
        seen.append(model.head.bias.detach().clone())
    assert torch.equal(learner.kept.head.bias, seen[3])
    with pytest.raises(ValueError, match="pass validate"):
        MusicLearner(model, MusicLossConfig(validate_every=2), 6)


def test_the_clock_tells_the_time_that_has_passed():
    model = tiny(clock=True)
    durations = model.vocabularies[1]
    x = torch.from_numpy(durations.encode(["0.0", "0.5", "1.0", "0.5"]))[None]
    found = model.clock(x)
    for t, time in enumerate((0, 0.5, 1.5, 2.0)):
        waves = [math.sin(2 * math.pi * time / p) for p in (0.5, 1, 2, 3, 4, 6, 8, 16)]
        waves += [math.cos(2 * math.pi * time / p) for p in (0.5, 1, 2, 3, 4, 6, 8, 16)]
        torch.testing.assert_close(
            found[0, t], model.clock.linear(torch.tensor(waves)), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match="1 stream"):
        MusicTransformerConfig(("a b",), 256, clock=True)


@pytest.mark.parametrize("words_of", [events, grid, one_word_each, interleave])
def test_pieces_of_a_single_stream_are_scored_and_become_scores(words_of):
    """As START, the words of a piece in any of the forms, END."""
    score = tunes(3).part("train").scores[0]
    score = Score(score.part(0).notes[:6]) if words_of is not grid else score
    words = words_of(streams_of_score(score) if words_of in (one_word_each, interleave) else score)
    piece = Streams(["START", *words, "END"], [])[:1]
    model = MusicTransformer(
        MusicTransformerConfig(
            vocabularies([piece]), embed_dim=16, block=BlockConfig(16, 2, 8, 16), length=20
        )
    )
    tokens = torch.from_numpy(encode_pieces([piece], model.config.streams)[0])[None]
    assert model.log_prob(tokens).isfinite().all()
    [again] = model.scores(tokens)
    assert again.notes == (score_of_grid(words) if words_of is grid else score).notes
    drawn = model.eval().sample(2, torch.Generator().manual_seed(0), length=12)
    assert all(isinstance(made, Score) for made in model.scores(drawn))
