"""Losses of test texts, of models whose probabilities are known."""

import math
from dataclasses import replace

import pytest
import torch

from generative.known.texts import hidden_markov_text
from generative.text import BERT, BERTConfig, RecurrentText, RecurrentTextConfig
from generative.text.config import bert_block
from generative.text.measures import hidden_token_loss, next_token_loss

torch.set_num_threads(1)


def without_weights(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model.eval()


def test_next_tokens_count_up_to_the_ends_of_texts():
    """Probabilities of a letter and of the end by hand; the second text has its end at once."""
    model = without_weights(RecurrentText(RecurrentTextConfig(10, 4, 4, length=8)))
    with torch.no_grad():
        model.head.bias[0] = 2.0
    end, letter = (-math.log((math.exp(2), 1)[k] / (math.exp(2) + 9)) for k in (0, 1))
    texts = torch.tensor([[3, 4, 0, 0], [2, 0, 0, 0]])
    found = next_token_loss(model, texts, batch_size=1)
    assert found.loss == pytest.approx((3 * letter + 2 * end) / 5, rel=1e-5)
    assert found.with_padding == pytest.approx((3 * letter + 5 * end) / 8, rel=1e-5)
    model.config = replace(model.config, from_start=False)  # the first letter is given
    found = next_token_loss(model, texts)
    assert found.loss == pytest.approx((letter + 2 * end) / 3, rel=1e-5)


def test_hidden_tokens_of_a_model_that_knows_nothing():
    """Uniform over what may stand in a gap; the posterior's own loss is the floor of a chain."""
    text = hidden_markov_text()
    model = without_weights(
        BERT(BERTConfig(text.vocab_size, 17, 1, bert_block(8, 2, dropout=0.0), hide_all=True))
    )
    texts = text.sample(300, 16, torch.Generator().manual_seed(0))
    found = hidden_token_loss(model, texts, text.posterior)
    probabilities = model.fill(texts[:1]).exp()[0, 0]
    choices = int((probabilities > 0).sum())
    assert found.loss == pytest.approx(math.log(choices), rel=1e-5)
    assert found.floor < found.loss
    assert found == hidden_token_loss(model, texts, text.posterior)
    uniform = hidden_token_loss(
        model, texts, lambda x, seen: torch.full((*x.shape, text.vocab_size), 0.25)
    )
    assert uniform.floor == pytest.approx(math.log(4))
    assert hidden_token_loss(model, texts).floor is None
