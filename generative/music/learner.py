"""Learner of the models of notes, which keeps the weights that are best in validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generative.music.config import MusicLossConfig
from generative.training.learner import ModelLearner, adamw

__all__ = ["MusicLearner"]


class MusicLearner(ModelLearner[Any]):
    """Adam with a cosine schedule on a `MusicRNN` or `MusicTransformer`; save `kept`.

    Args:
        model: has `loss(batch, count_padding)`.
        config: see `MusicLossConfig`.
        steps: updates in all.
        validate: model -> nats of held-out pieces; needed if `config.validate_every` is set. It
            must not change the model.
    """

    def __init__(
        self,
        model: Any,
        config: MusicLossConfig,
        steps: int,
        validate: Callable[[Any], float] | None = None,
    ):
        if config.validate_every and validate is None:
            raise ValueError(f"validate_every is {config.validate_every}; pass validate as well")
        super().__init__(model, adamw(model, config, steps))
        self.config, self.validate = config, validate
        self.best: dict[str, Tensor] = {}
        self.best_nats = float("inf")

    @property
    def kept(self) -> Any:
        """Copy in evaluation mode, with the weights of the best validation if there was one."""
        kept = super().kept
        if self.best:
            kept.load_state_dict(self.best)
        return kept

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on pieces; returns the values of `loss`, and val_nats after each validation.

        Values of several streams are named by their number: nats_0, nats_1.
        """
        self.model.train()
        logged: dict[str, Tensor | float] = {}
        losses = self.model.loss(batch, self.config.count_padding)
        for name, value in self.descend(losses).items():
            if value.dim():
                logged |= {f"{name}_{i}": part for i, part in enumerate(value)}
            else:
                logged[name] = value
        every = self.config.validate_every
        if every and self.optimisation.step_number % every == 0:
            logged["val_nats"] = self._look()
        return logged

    def _look(self) -> float:
        assert self.validate is not None
        model = self.optimisation.current.eval()
        with torch.no_grad():
            nats = self.validate(model)
        if nats < self.best_nats:
            self.best_nats = nats
            self.best = {name: value.clone() for name, value in model.state_dict().items()}
        return nats

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best, "best_nats": self.best_nats}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best, self.best_nats = state["best"], state["best_nats"]
