"""Training of a flow by its likelihood, or by another loss that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from generative.flow.config import FlowLossConfig
from generative.training.optimisation import Optimisation, matrices, parameter_groups

__all__ = ["FlowLearner"]

M = TypeVar("M", bound=nn.Module)


class FlowLearner(Generic[M]):
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
        self.model, self.config = model, config
        self._loss = loss or cast("Any", model).loss
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, config.clip, config.ema
        )

    @property
    def kept(self) -> M:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on a batch, points (B, D) or images (B, C, H, W) as the model takes them."""
        losses = self._loss(x)
        loss = losses.loss
        if self.config.l2:
            loss = loss + self.config.l2 * sum(w.square().sum() for w in matrices(self.model))
        self.optimisation.step(loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
