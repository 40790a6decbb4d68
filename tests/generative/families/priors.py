"""Priors of DALL.E 2, tiny: the caption's embedding is a turn of the image's."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.diffusion.config import ScheduleConfig
from generative.nets.config import gpt2_block
from generative.priors import (
    AutoregressivePriorConfig,
    DiffusionPriorConfig,
    PriorBatch,
    PriorLearner,
    PriorLossConfig,
)
from tests.generative.families.common import Family

BLOCK = gpt2_block(16, 2, dropout=0.0)


def embeddings(n: int) -> Tensor:
    """Vectors of length 1."""
    angle = torch.arange(n) * 0.7
    vectors = torch.stack([angle.cos(), angle.sin(), (3 * angle).cos(), (2 * angle).sin()], 1)
    return torch.nn.functional.normalize(vectors, dim=1)


def prior(config, below: float, script: str | None = None) -> Family:
    return Family(
        make=config.build,
        examples=embeddings,
        learner=lambda model, steps: PriorLearner(
            model, PriorLossConfig(lr=1e-2, final_lr=1e-3, ema=0.5), steps
        ),
        logged="loss",
        below=below,
        steps=150,
        wrong=(
            (embeddings(2)[:, :3], r"\(2, 3\).*\(B, 4\)"),
            (embeddings(2).long(), r"int64"),
        ),
        # Embeddings are drawn for captions, and only buckets have a probability.
        without=frozenset({"sample", "encode", "decode"}),
        script=script,
        loss=lambda model, x: model.loss(x, x.flip(1)).loss,
        to_batch=lambda x: PriorBatch(x, x.flip(1)),
    )


FAMILIES = {
    "DiffusionPrior": prior(
        DiffusionPriorConfig(
            4, 4, 0, 8, 1, BLOCK, ScheduleConfig("cosine-betas", num_betas=20), steps=4
        ),
        0.5,
        "train_prior",
    ),
    "AutoregressivePrior": prior(
        AutoregressivePriorConfig(
            4, 4, components=3, buckets=4, text_tokens=2, encoder_layers=1, decoder_layers=1,
            block=BLOCK,
        ),
        1.5,
    ),
}  # fmt: skip
