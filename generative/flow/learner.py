"""Training of a flow by its likelihood, or by another loss that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from generative.flow.config import FlowLossConfig
from generative.training.learner import ModelLearner, adamw
from generative.training.optimisation import matrices

__all__ = ["FlowLearner"]

M = TypeVar("M", bound=nn.Module)


class FlowLearner(ModelLearner[M]):
    """Adam on a flow's loss; `kept` holds the weights to keep: their average, if there is one.

    Args:
        model: any flow with a `loss`.
        config: see `FlowLossConfig`.
        steps: over which the learning rate falls.
        loss: what to minimise, the field `loss` of what it returns; `model.loss` if not given.
    """

    def __init__(
        self,
        model: M,
        config: FlowLossConfig,
        steps: int,
        loss: Callable[[Tensor], Any] | None = None,
    ):
        super().__init__(model, adamw(model, config, steps))
        self.config, self._loss = config, loss or cast("Any", model).loss

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on a batch, points (B, D) or images (B, C, H, W) as the model takes them."""
        losses = self._loss(x)
        loss = losses.loss
        if self.config.l2:
            loss = loss + self.config.l2 * sum(w.square().sum() for w in matrices(self.model))
        return self.descend(losses, loss)
