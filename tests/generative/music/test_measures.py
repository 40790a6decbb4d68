"""Nats of whole pieces, against the model's log probabilities read in one window."""

from dataclasses import replace

import pytest
import torch

from generative.music.measures import frame_nats, word_nats
from generative.music.rnn import pad_rolls
from tests.generative.families import FAMILIES

torch.set_num_threads(1)


def test_a_short_piece_is_read_at_once():
    family = FAMILIES["MusicTransformer"]
    torch.manual_seed(0)
    model = family.make().eval()
    pieces = list(family.examples(3))
    with torch.no_grad():
        log_p = torch.cat([model.word_log_probs(piece[None])[0] for piece in pieces]).double()
    note, duration, unknown = word_nats(model, [x.numpy() for x in pieces], batch_size=2)
    assert [note, duration] == pytest.approx((-log_p.mean(0)).tolist(), rel=1e-5)
    assert unknown == sum(int((piece[1:] == 1).sum()) for piece in pieces)


def test_a_long_piece_counts_every_element_once():
    """A context of 4: the first window has 4 elements, each later one 2 that are new."""
    family = FAMILIES["MusicTransformer"]
    torch.manual_seed(0)
    model = family.make().eval()
    piece = torch.cat([*family.examples(4)])[:12]
    model.config = replace(model.config, length=4)
    with torch.no_grad():
        windows = [model.word_log_probs(piece[None, i : i + 5])[0] for i in (0, 2, 4, 6, 8)]
    parts = [windows[0], *(log_p[2:] for log_p in windows[1:])]
    expected = torch.cat(parts).double()
    assert len(expected) == len(piece) - 1
    found = word_nats(model, [piece.numpy()])
    assert list(found[:2]) == pytest.approx((-expected.mean(0)).tolist(), rel=1e-5)


def test_frames_with_and_without_the_first():
    family = FAMILIES["MusicRNN, LSTM"]
    torch.manual_seed(0)
    model = family.make().eval()
    pieces = [
        pad_rolls([row[:length]]) for row, length in zip(family.examples(2), (3, 5), strict=True)
    ]
    with torch.no_grad():
        nats = [-model.frame_log_probs(piece)[0] for piece in pieces]
    found = frame_nats(model, pieces)
    assert found.all == pytest.approx(float(torch.cat(nats).mean()), rel=1e-5)
    later = torch.cat([n[1:] for n in nats])
    assert found.after_first == pytest.approx(float(later.mean()), rel=1e-5)
