"""Shared parts of the priors: their batch, captions that are left out, the learner."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.priors.config import PriorLossConfig
from generative.training.checks import placed
from generative.training.learner import ModelLearner, muon_or_adamw

__all__ = ["Given", "PriorBatch", "PriorLearner", "closest", "drop", "repeated"]


class PriorBatch(NamedTuple):
    """Embeddings of images and of their captions."""

    image: Tensor
    """(B, D)."""
    text: Tensor
    """(B, D')."""
    context: Tensor | None = None
    """Encoded tokens of the captions, (B, L, C)."""
    mask: Tensor | None = None
    """True at tokens, False at padding, bool (B, L)."""

    def to(self, device: torch.device | str) -> PriorBatch:
        """The same on a device."""
        context, mask = (x if x is None else x.to(device) for x in (self.context, self.mask))
        return PriorBatch(self.image.to(device), self.text.to(device), context, mask)


class Given(NamedTuple):
    """Condition of a prior: the last three of a `PriorBatch`."""

    text: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None


def drop(given: Given, dropped: Tensor) -> Given:
    """Captions that are left out where dropped, bool (B,), is True: everything about them is 0."""
    text, context, mask = given
    kept = ~dropped.to(text.device)
    text = text * kept[:, None]
    if context is None:
        return Given(text)
    if mask is None:
        mask = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
    return Given(text, context * kept[:, None, None], mask & kept[:, None])


def repeated(given: Given, draws: int, embed_dim: int) -> Given:
    """Captions, each so many times in a row.

    Raises:
        ValueError: several draws of embeddings that cannot be compared with a caption's.
    """
    text_dim = given.text.shape[1]
    if draws > 1 and text_dim != embed_dim:
        raise ValueError(
            f"draws is {draws}, and captions have {text_dim} numbers where images have "
            f"{embed_dim}, so none is the closest; give draws=1"
        )
    context, mask = (
        None if x is None else x.repeat_interleave(draws, 0) for x in (given.context, given.mask)
    )
    return Given(given.text.repeat_interleave(draws, 0), context, mask)


def closest(images: Tensor, text: Tensor) -> Tensor:
    """Choose for each caption (B, D) the closest of its embeddings, (B K, D) -> (B, D)."""
    if len(images) == len(text):
        return images
    draws = len(images) // len(text)
    every = images.unflatten(0, (len(text), draws))
    best = F.cosine_similarity(every, text[:, None], dim=2).argmax(1)
    return every[torch.arange(len(text), device=text.device), best]


class PriorLearner(ModelLearner[Any]):
    """AdamW or Muon on the loss of a prior; some captions are left out, which guidance needs.

    Args:
        model: a `DiffusionPrior` or an `AutoregressivePrior`.
    Raises:
        ValueError: a weighting of errors of the clean embedding, which the model does not tell.
    """

    def __init__(self, model: Any, config: PriorLossConfig, steps: int):
        told = getattr(model, "prediction", "buckets")
        if config.weighting != "clean" and told != "clean":
            raise ValueError(
                f"weighting is {config.weighting!r}, and this prior tells {told!r}, whose errors "
                "have no such weights; give loss.weighting 'clean'"
            )
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config

    def update(self, batch: PriorBatch) -> dict[str, Tensor]:
        """One step on embeddings of images and captions; returns the losses of the model."""
        image, given = batch.image, Given(*batch[1:])
        if self.config.drop_text:
            dropped = torch.rand(len(image), **placed(self.model)) < self.config.drop_text
            given = drop(given, dropped)
        weights = {} if self.config.weighting == "clean" else {"weighting": self.config.weighting}
        return self.descend(self.model.loss(image, *given, **weights))
