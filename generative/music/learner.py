"""Learner of the models of notes, which keeps the weights that are best in validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generative.music.config import MusicLossConfig
from generative.training.optimisation import Optimisation, parameter_groups

__all__ = ["MusicLearner"]


class MusicLearner:
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
        self.model, self.config, self.validate = model, config, validate
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, clip=config.clip, ema=config.ema
        )
        self.best: dict[str, Tensor] = {}
        self.best_nats = float("inf")

    @property
    def kept(self) -> Any:
        """Copy in evaluation mode, with the weights of the best validation if there was one."""
        kept = self.optimisation.kept
        if self.best:
            kept.load_state_dict(self.best)
        return kept

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on pieces; returns the values of `loss`, and val_nats after each validation.

        Values of several streams are named by their number: nats_0, nats_1.
        """
        self.model.train()
        losses = self.model.loss(batch, self.config.count_padding)
        self.optimisation.step(losses.loss)
        logged: dict[str, Tensor | float] = {}
        for name, value in losses._asdict().items():
            if value.dim():
                logged |= {f"{name}_{i}": part for i, part in enumerate(value.detach())}
            else:
                logged[name] = value.detach()
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
        return {**self.optimisation.state_dict(), "best": self.best, "best_nats": self.best_nats}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisation.load_state_dict(state)
        self.best, self.best_nats = state["best"], state["best_nats"]
