"""What follows the loss in a step of training: gradient, optimiser, falling rate, average.

optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
optimisation = Optimisation(model, optimizer, steps=1000, final_lr=1e-5, clip=1.0, ema=0.999)
optimisation.step(model.loss(batch).loss)
optimisation.kept                    # a copy of the model with the average of its weights
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from generative.training.average import warm_average

__all__ = ["Optimisation"]

M = TypeVar("M", bound=nn.Module)


class Optimisation(Generic[M]):
    """An optimiser whose rate falls along a cosine, and an average of the weights it makes.

    Args:
        model: whose weights are moved; its weights are part of the state here.
        optimizer: of its parameters; several, each of some of them.
        steps: over which the learning rate falls.
        final_lr: to which it falls.
        clip: largest norm of the gradient of all weights together; 0 leaves it as it is.
        ema: decay of the average, see `warm_average`; 0 keeps none.
        average_buffers: average buffers too, in place of taking over the last ones.
        rate: step -> share of the first learning rate, in place of the cosine.
    """

    def __init__(
        self,
        model: M,
        optimizer: Optimizer | Sequence[Optimizer],
        steps: int,
        final_lr: float = 0.0,
        clip: float = 0.0,
        ema: float = 0.0,
        average_buffers: bool = False,
        rate: Callable[[int], float] | None = None,
    ):
        self.model, self.clip = model, clip
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)

        def schedule(one: Optimizer) -> LRScheduler:
            if rate is not None:
                return LambdaLR(one, rate)
            return CosineAnnealingLR(one, T_max=max(steps, 1), eta_min=final_lr)

        self.schedules = [schedule(one) for one in self.optimizers]
        self.average = (
            AveragedModel(model, multi_avg_fn=warm_average(ema), use_buffers=average_buffers)
            if ema
            else None
        )

    @property
    def current(self) -> M:
        """The model itself, or the average of its weights."""
        return self.model if self.average is None else cast("M", self.average.module)

    @property
    def kept(self) -> M:
        """A copy of the model with the weights that sampling and scoring should use."""
        return copy.deepcopy(self.current).eval()

    @property
    def step_number(self) -> int:
        """How many steps have been made."""
        return self.schedules[0].last_epoch

    def step(self, loss: Tensor) -> None:
        """Move the weights against the gradient of the loss, a scalar."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict:
        """Model, optimisers, schedules, and the average if there is one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave; what else is in there does no harm."""
        self.model.load_state_dict(state["model"])
        for name in ("optimizers", "schedules"):
            for own, loaded in zip(getattr(self, name), state[name], strict=True):
                own.load_state_dict(loaded)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
