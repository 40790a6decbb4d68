"""What trains the models of notes: one step, and the weights that were best in validation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from generative.configs.music import MusicLossConfig
from generative.training.average import warm_average

__all__ = ["MusicLearner"]


class MusicLearner:
    """Adam with a cosine schedule on a `MusicRNN` or `MusicTransformer`; `kept` is what to keep.

    Args:
        model: has `loss(batch, count_padding)`.
        config: see `MusicLossConfig`.
        steps: updates in all.
        validate: the nats of held-out pieces by a model; needed if `config.validate_every` is set.
            It must not train it.
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
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, eps=config.adam_eps, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, max(steps, 1), eta_min=config.final_lr
        )
        self.average = None
        if config.ema:
            self.average = AveragedModel(model, multi_avg_fn=warm_average(config.ema))
        self.best: dict[str, Tensor] = {}
        self.best_nats = float("inf")

    @property
    def current(self) -> Any:
        """The model, or the average of its weights, as it is now."""
        return self.model if self.average is None else self.average.module

    @property
    def kept(self) -> Any:
        """A copy in evaluation mode, with the best weights if they were looked for."""
        kept = copy.deepcopy(self.current).eval()
        if self.best:
            kept.load_state_dict(self.best)
        return kept

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on pieces; returns what `loss` does, and val_nats whenever they were looked at.

        Values of several streams are named by their number: nats_0, nats_1.
        """
        self.model.train()
        losses = self.model.loss(batch, self.config.count_padding)
        self.optimizer.zero_grad()
        losses.loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        logged: dict[str, Tensor | float] = {}
        for name, value in losses._asdict().items():
            if value.dim():
                logged |= {f"{name}_{i}": part for i, part in enumerate(value.detach())}
            else:
                logged[name] = value.detach()
        every = self.config.validate_every
        if every and self.schedule.last_epoch % every == 0:
            logged["val_nats"] = self._look()
        return logged

    def _look(self) -> float:
        assert self.validate is not None
        model = self.current.eval()
        with torch.no_grad():
            nats = self.validate(model)
        if nats < self.best_nats:
            self.best_nats = nats
            self.best = {name: value.clone() for name, value in model.state_dict().items()}
        return nats

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "best": self.best,
            "best_nats": self.best_nats,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best, self.best_nats = state["best"], state["best_nats"]
