"""Models of texts, tiny."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.text.bert import BERT, BERTClassifier, BERTClassifierConfig, BERTConfig
from generative.text.config import BlockConfig, TextLossConfig, bert_block, gpt2_block, t5_block
from generative.text.gpt import GPT, GPTConfig
from generative.text.recurrent import (
    Bidirectional,
    BidirectionalConfig,
    RecurrentText,
    RecurrentTextConfig,
)
from generative.text.t5 import T5, T5Config
from generative.text.tokens import TextLearner
from tests.generative.families.common import Family, tokens, wrong_tokens

VOCABULARY, LENGTH = 11, 8
WRONG = wrong_tokens(VOCABULARY, LENGTH)
ANY_LENGTH = (WRONG[0], *WRONG[2:])
LOSS = TextLossConfig(lr=1e-2, final_lr=1e-3, clip=1.0, ema=0.9)


def next_token(make, wrong, below: float, steps: int, script=None, loss=LOSS) -> Family:
    """A model of the next token. log 8 / 8 = 0.26 nats a token for the eight, log 9 = 2.2 by
    guessing."""
    return Family(
        make=make,
        examples=tokens(VOCABULARY, LENGTH),
        learner=lambda model, steps: TextLearner(model, loss, steps),
        logged="loss",
        below=below,
        steps=steps,
        wrong=wrong,
        sample_range=(0, VOCABULARY - 1),
        script=script,
        # A loss is a mean over tokens, a log probability that of a text.
        loss=lambda model, x: model.loss(x).loss * x.shape[-1],
    )


def recurrent(cell: str, num_layers: int = 1, script=None) -> Family:
    return next_token(
        lambda: RecurrentText(RecurrentTextConfig(VOCABULARY, 8, 32, num_layers, cell, length=8)),
        ANY_LENGTH,
        0.5,
        150,
        script,
    )


def fill_loss(model, x: Tensor) -> Tensor:
    """With the same gaps each time."""
    return model.loss(x, torch.Generator().manual_seed(0)).loss


def gaps(model, steps: int) -> TextLearner:
    """Trained with the same gaps each time, which eight texts decide."""
    return TextLearner(
        model, LOSS, steps, lambda x: model.loss(x, torch.Generator().manual_seed(0))
    )


def labels(x: Tensor) -> Tensor:
    """Four classes, which the tokens do not tell."""
    return torch.arange(len(x)) * 5 // 2 % 4


SMALL = BlockConfig(16, 2, 8, 32, dropout=0.0)
FAMILIES = {
    "LSTM of texts": recurrent("lstm", script="train_recurrent_text"),
    "stacked GRU of texts": recurrent("gru", num_layers=2),
    "GRU of texts, reset first": recurrent("gru-before"),
    "plain recurrent network of texts": recurrent("rnn"),
    "Bidirectional": Family(
        make=lambda: Bidirectional(BidirectionalConfig(VOCABULARY, 8, 16, cell="lstm")),
        examples=tokens(VOCABULARY, LENGTH),
        learner=gaps,
        logged="loss",
        below=0.1,  # log 9 = 2.2 by guessing
        steps=200,
        wrong=ANY_LENGTH,
        loss=fill_loss,
    ),
    "GPT": next_token(
        lambda: GPT(GPTConfig(VOCABULARY, LENGTH, 1, SMALL)), WRONG, 0.5, 150, "train_gpt"
    ),
    "GPT-2": next_token(
        lambda: GPT(
            GPTConfig(VOCABULARY, LENGTH, 2, gpt2_block(16, 2, 0.0), tied=True, init="normal")
        ),
        WRONG,
        0.5,
        150,
        loss=TextLossConfig(
            optimizer="muon", lr=1e-2, final_lr=1e-3, warmup=10, weight_decay=0.01, ema=0.9
        ),
    ),
    "BERT": Family(
        make=lambda: BERT(BERTConfig(VOCABULARY, LENGTH + 1, 2, bert_block(16, 2, 0.0))),
        examples=tokens(VOCABULARY, LENGTH),
        learner=gaps,
        logged="loss",
        below=0.1,
        steps=150,
        wrong=WRONG,
        script="train_bert",
        loss=fill_loss,
    ),
    "BERTClassifier": Family(
        make=lambda: BERTClassifier(
            BERTClassifierConfig(BERTConfig(VOCABULARY, LENGTH + 1, 2, bert_block(16, 2, 0.0)), 4)
        ),
        examples=tokens(VOCABULARY, LENGTH),
        learner=lambda model, steps: TextLearner(
            model, LOSS, steps, lambda batch: model.loss(*batch)
        ),
        logged="loss",
        below=0.3,  # log 4 = 1.39 by guessing
        steps=600,
        wrong=WRONG,
        loss=lambda model, x: model.loss(x, labels(x)).loss,
        to_batch=lambda x: (x, labels(x)),
    ),
    "T5": Family(
        make=lambda: T5(T5Config(VOCABULARY - 2, 2, 1, t5_block(16, 2, 0.0), max_len=LENGTH)),
        examples=tokens(VOCABULARY, LENGTH),
        learner=lambda model, steps: TextLearner(
            model, LOSS, steps, lambda batch: model.loss(*batch)
        ),
        logged="loss",
        below=0.5,
        steps=200,
        wrong=WRONG,
        script="train_t5",
        loss=lambda model, x: model.loss(x, x.flip(-1)).loss,  # to write a text from right to left
        to_batch=lambda x: (x, x.flip(-1)),
    ),
}  # fmt: skip
