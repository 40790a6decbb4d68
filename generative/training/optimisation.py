"""A training step after its loss: gradient, optimiser, learning rate schedule, average.

optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-3)
optimisation = Optimisation(model, optimizer, steps=1000, final_lr=1e-5, clip=1.0, ema=0.999)
optimisation.step(model.loss(batch).loss)
optimisation.kept                    # a copy of the model with the average of its weights
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from generative.training.average import warm_average
from generative.training.config import MuonConfig
from generative.training.moves import record
from generative.training.muon import Muon

__all__ = ["Optimisation", "learning_rate", "make_optimizers", "matrices", "parameter_groups"]

M = TypeVar("M", bound=nn.Module)


def learning_rate(
    step: int, steps: int, first: float, final: float = 0.0, warmup: int = 0
) -> float:
    """Learning rate of a step: from 0 to `first` in `warmup` steps, then by a cosine to `final`.

    It depends on its arguments alone. From step `steps` on it is `final`.
    """
    if step >= steps:
        return final
    if step < warmup:
        return first * (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    return final + (first - final) * 0.5 * (1 + math.cos(math.pi * done))


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear, convolutional, recurrent and embedding layers of a model.

    Biases, norms, scales, logits and other direct parameters of a module are left out: their size
    has a meaning, so they must not decay. A table of biases is one of them.
    """
    layers = (nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
    found = {
        id(parameter)
        for path, layer in model.named_modules()
        if isinstance(layer, layers) and "bias" not in path
        for name, parameter in layer.named_parameters(recurse=False)
        if name.startswith("weight")
    }
    return [parameter for parameter in model.parameters() if id(parameter) in found]


def parameter_groups(
    model: nn.Module, weight_decay: float, apart: Collection[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Parameter groups of a model for an optimiser: its `matrices`, which decay, and the others.

    Args:
        apart: parameters that belong to another optimiser.
    """
    decaying, elsewhere = {id(p) for p in matrices(model)}, {id(p) for p in apart}
    parameters = [p for p in model.parameters() if id(p) not in elsewhere]
    groups = [
        {"params": [p for p in parameters if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizers(
    model: nn.Module, config: MuonConfig, fixed: Collection[nn.Parameter] = ()
) -> list[Optimizer]:
    """AdamW, and Muon for the matrices of modules with `takes_muon`, such as Transformer blocks.

    Args:
        fixed: parameters that neither moves.
    Raises:
        ValueError: Muon is asked for, and there are no such matrices.
    """
    decay, betas, still = config.weight_decay, (0.9, config.beta2), {id(p) for p in fixed}
    hidden = {
        id(layer.weight): cast("nn.Parameter", layer.weight)
        for block in model.modules()
        if config.optimizer == "muon" and getattr(block, "takes_muon", False)
        for layer in block.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and id(layer.weight) not in still
    }
    matrices_of_muon = list(hidden.values())
    groups = parameter_groups(model, decay, [*matrices_of_muon, *fixed])
    optimizers: list[Optimizer] = [AdamW(groups, lr=config.lr, betas=betas, eps=config.adam_eps)]
    if hidden:
        optimizers.append(
            Muon(matrices_of_muon, lr=config.lr, weight_decay=decay, adjust="match_rms_adamw")
        )
    elif config.optimizer == "muon":
        raise ValueError(
            f"optimizer is 'muon', and a {type(model).__name__} has no hidden matrices between "
            "its embeddings and its output that Muon could move; give 'adam'"
        )
    return optimizers


class Optimisation(Generic[M]):
    """Optimisers with a cosine schedule of the learning rate, and an average of the weights.

    Args:
        model: model to train; its weights are part of the state here.
        optimizer: optimiser of its parameters, or several, each of some of them. The learning rate
            of a group is its initial one.
        steps: steps over which the learning rate falls; see `learning_rate`.
        final_lr: learning rate at the end.
        clip: largest norm of the gradient of all weights together; 0 for no limit.
        ema: decay of the average, see `warm_average`; 0 keeps none. Buffers are averaged like
            weights, as batch statistics of the last weights fit only these.
        warmup: steps over which the learning rate rises from 0.
        clip_value: largest absolute value of an entry of the gradient; 0 for no limit.
        rate: step -> learning rate of all parameters, in place of the cosine.
        name: what errors call the model.
    """

    def __init__(
        self,
        model: M,
        optimizer: Optimizer | Sequence[Optimizer],
        steps: int,
        final_lr: float = 0.0,
        clip: float = 0.0,
        ema: float = 0.0,
        warmup: int = 0,
        clip_value: float = 0.0,
        rate: Callable[[int], float] | None = None,
        name: str = "model",
    ):
        self.model, self.clip, self.clip_value, self.rate = model, clip, clip_value, rate
        self.name = name
        self.loss: Tensor | None = None
        """Loss of the gradients that the next `move` follows, for errors; None if unknown."""
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self.steps, self.final_lr, self.warmup = steps, final_lr, warmup
        self._first = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.average = (
            AveragedModel(model, multi_avg_fn=warm_average(ema), use_buffers=True) if ema else None
        )
        self.step_number = 0
        """Number of steps taken."""
        self._set_rates()

    @property
    def current(self) -> M:
        """The average of the model's weights, or without one the model itself."""
        return self.model if self.average is None else cast("M", self.average.module)

    @property
    def kept(self) -> M:
        """A copy of the model with the weights that sampling and scoring should use."""
        return copy.deepcopy(self.current).eval()

    def step(self, loss: Tensor) -> None:
        """Move the weights against the gradient of the loss, a scalar."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.loss = loss.detach()
        self.move()
        self.advance()

    def move(self) -> None:
        """Move the weights against their present gradients, as a part of a step.

        `fit` is told how large these are, see `generative.training.moves`.
        """
        norm = None
        if self.clip:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        record(self.name, (p for group in groups for p in group["params"]), self.loss, norm)
        self.loss = None
        if self.clip_value:
            nn.utils.clip_grad_value_(self.model.parameters(), self.clip_value)
        for optimizer in self.optimizers:
            optimizer.step()

    def advance(self) -> None:
        """End a step: update the average of the weights, and set the next learning rates."""
        self.step_number += 1
        self._set_rates()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _set_rates(self) -> None:
        for optimizer, rates in zip(self.optimizers, self._first, strict=True):
            for group, first in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = (
                    self.rate(self.step_number)
                    if self.rate is not None
                    else learning_rate(
                        self.step_number, self.steps, first, self.final_lr, self.warmup
                    )
                )

    def state_dict(self) -> dict:
        """Model, optimisers, the number of steps taken, and the average if there is one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step_number,
        }
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take over a `state_dict`; other keys in it are ignored.

        The learning rates follow `steps` of this object, so that a run can be made longer.
        """
        self.model.load_state_dict(state["model"])
        for own, loaded in zip(self.optimizers, state["optimizers"], strict=True):
            own.load_state_dict(loaded)
        self.step_number = state["step"]
        self._set_rates()
        if self.average is not None:
            self.average.load_state_dict(state["average"])
