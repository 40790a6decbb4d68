"""Shared parts of models that write codes for captions: losses, learner, checks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from generative.codes.model import check_codes
from generative.nets.text_encoder import PAD
from generative.text_to_codes.config import TextToCodesLossConfig
from generative.training.checks import check_tokens
from generative.training.learner import ModelLearner, muon_or_adamw

__all__ = ["CodeLosses", "TextToCodesLearner", "check_captions", "check_pairs", "guided"]


class CodeLosses(NamedTuple):
    """Means over the batch, nats."""

    loss: Tensor
    """Sum that is minimised."""
    image: Tensor
    """Nats of all codes of a picture; of MUSE of one hidden code."""


def check_pairs(
    tokens: Tensor, codes: Tensor, grid: tuple[int, int], num_codes: int, model: nn.Module
) -> None:
    """Check captions (B, L) and codes (B, h, w).

    Raises:
        ValueError: captions or codes of another shape or type or that there are not, or not one
            caption each.
    """
    check_codes(codes, grid, num_codes, model)
    check_captions(tokens, model)
    if len(tokens) != len(codes):
        raise ValueError(f"got {len(codes)} pictures and {len(tokens)} captions; pass one for each")


def check_captions(tokens: Tensor, model: nn.Module) -> Tensor:
    """Return captions if they are int64 (B, L) in the vocabulary of a model; its network checks how
    long they are.

    Raises:
        ValueError: they are not, or are texts.
    """
    config: Any = model.config
    return check_tokens(tokens, getattr(config, "text", config).vocab_size, None, model)


def guided(logits: Tensor, guidance: float) -> Tensor:
    """empty + guidance (given - empty) of logits (2 B, ...), those given a caption first."""
    given, empty = logits.chunk(2)
    return empty + guidance * (given - empty)


class TextToCodesLearner(ModelLearner[Any]):
    """AdamW or Muon on the loss of a model; some captions are left out, which guidance needs.

    Args:
        model: a `DALLE`, `Parti` or `MUSE`.
    """

    def __init__(self, model: Any, config: TextToCodesLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config

    def update(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step on captions, int64 (B, L), and codes of their pictures, int64 (B, h, w).

        Returns:
            what `CodeLosses` has.
        """
        tokens, codes = batch
        if self.config.drop_text:
            u = torch.rand(len(tokens), device=tokens.device, dtype=torch.float32)
            tokens = tokens.masked_fill((u < self.config.drop_text)[:, None], PAD)
        losses = self.model.loss(tokens, codes)
        return self.descend(losses)
