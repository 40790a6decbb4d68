"""The reward model of learning from human feedback, tiny; policies are GPTs."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.rlhf import RewardModel
from generative.text.config import GPTConfig, TextLossConfig, gpt2_block
from generative.text.tokens import TextLearner
from tests.generative.families.common import Family, tokens, wrong_tokens

VOCABULARY, LENGTH, RANKED = 11, 8, 3


def rankings(n: int) -> Tensor:
    """n rankings of three texts."""
    return tokens(VOCABULARY, LENGTH)(n * RANKED).view(n, RANKED, LENGTH)


FAMILIES = {
    "RewardModel": Family(
        make=lambda: RewardModel(
            GPTConfig(VOCABULARY, LENGTH, 1, gpt2_block(16, 2, 0.0), init="normal")
        ),
        examples=rankings,
        learner=lambda model, steps: TextLearner(
            model, TextLossConfig(lr=1e-2, final_lr=1e-3), steps, model.loss
        ),
        logged="loss",
        below=0.1,  # log 2 = 0.69 by guessing
        steps=100,
        wrong=(
            (torch.full((2, LENGTH), 2), rf"\(2, {LENGTH}\).*\(B, K, T\)"),
            *(
                (x[:, None].expand(-1, 2, -1), message.replace(r"\(2, ", r"\(4, "))
                for x, message in wrong_tokens(VOCABULARY, LENGTH)[1:]
            ),
        ),
    ),
}
