"""DALL.E, Parti and MUSE, tiny: a caption of two words for each grid of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.nets.config import TextEncoderConfig, clip_block, gpt2_block
from generative.text_to_codes import (
    DALLE,
    MUSE,
    DALLEConfig,
    MUSEConfig,
    Parti,
    PartiConfig,
    TextToCodesLearner,
    TextToCodesLossConfig,
)
from tests.generative.families.codes import grids
from tests.generative.families.common import Family

BLOCK = gpt2_block(16, 2, dropout=0.0)
TEXT = TextEncoderConfig(20, 6, 1, clip_block(16, 2), causal=False)
SIZES = (4, 4), 5, 1, BLOCK


def captions(n: int) -> Tensor:
    """Captions of which each is another."""
    rows = torch.zeros(n, 6, dtype=torch.int64)
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = 2, 4 + torch.arange(n) % 8, 12, 3
    return rows


def writer(make, below: float, script: str | None = None) -> Family:
    return Family(
        make=make,
        examples=grids,
        learner=lambda model, steps: TextToCodesLearner(
            model, TextToCodesLossConfig(lr=1e-2, final_lr=1e-3, warmup=0, ema=0.5), steps
        ),
        logged="image",
        below=below,
        steps=150,
        wrong=(
            (grids(2)[:, 1:], r"\(2, 3, 4\).*int64 \(B, 4, 4\)"),
            (grids(2).float(), r"float32.*int64 \(B, 4, 4\)"),
        ),
        without=frozenset({"sample", "log_prob"}),  # they are given captions
        script=script,
        loss=lambda model, x: model.loss(captions(len(x)), x).loss,
        to_batch=lambda x: (captions(len(x)), x),
    )


FAMILIES = {
    "DALLE": writer(lambda: DALLE(DALLEConfig(20, 6, *SIZES)), 8.0),
    "Parti": writer(lambda: Parti(PartiConfig(TEXT, *SIZES)), 8.0, "train_text_to_codes"),
    "MUSE": writer(lambda: MUSE(MUSEConfig(TEXT, *SIZES)), 0.8),
}
