"""Learners of the gradient loop: the protocol, and the base of learners of one model.

class FlowLearner(ModelLearner[Chain]):
    def __init__(self, model, config, steps):
        super().__init__(model, adamw(model, config, steps))

    def update(self, x):
        return self.descend(self.model.loss(x))
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from generative.training.config import AdamWConfig, MuonConfig
from generative.training.optimisation import Optimisation, make_optimizers, parameter_groups

__all__ = ["Learner", "ModelLearner", "adamw", "muon_or_adamw"]

M = TypeVar("M", bound=nn.Module)


class Learner(Protocol):
    """Modules and optimisers that `fit` trains, with one update of them.

    Random numbers come from torch's global generators only; `fit` seeds them before every step.
    """

    def update(self, batch: Any, /) -> Mapping[str, Tensor | float]:
        """Take one step; returns scalars to log, including the loss."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State that the next step depends on: weights, optimisers, schedules, averages."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ...


def adamw(model: M, config: AdamWConfig, steps: int) -> Optimisation[M]:
    """`Optimisation` of all weights of a model by AdamW; only its `matrices` decay."""
    groups = parameter_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, eps=config.adam_eps)
    return Optimisation(model, optimizer, steps, config.final_lr, config.clip, config.ema)


def muon_or_adamw(
    model: M, config: MuonConfig, steps: int, fixed: Collection[nn.Parameter] = ()
) -> Optimisation[M]:
    """`Optimisation` of the weights of a model by AdamW, or by Muon where the config says so.

    Args:
        fixed: parameters that do not move.
    Raises:
        ValueError: see `generative.training.optimisation.make_optimizers`.
    """
    rates = config.final_lr, config.clip, config.ema, config.warmup
    return Optimisation(model, make_optimizers(model, config, fixed), steps, *rates)


class ModelLearner(Generic[M]):
    """Base of the learners of one model: all state is that of one `Optimisation`.

    A subclass has `update(batch)`, and extends `state_dict` if it keeps more.
    """

    def __init__(self, model: M, optimisation: Optimisation[M]):
        self.model, self.optimisation = model, optimisation

    @property
    def kept(self) -> M:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def descend(self, losses: Any, loss: Tensor | None = None) -> dict[str, Any]:
        """Take one step against `losses.loss`, or the loss given; returns the losses to log."""
        self.optimisation.step(losses.loss if loss is None else loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict[str, Any]:
        """State that the next step depends on."""
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.optimisation.load_state_dict(state)
