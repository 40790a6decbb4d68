"""Methods that keep a graph for gradients only if somebody can use it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["graph_if_wanted"]

Method = TypeVar("Method", bound=Callable[..., Any])


def graph_if_wanted(method: Method) -> Method:
    """Let a method of a model keep a graph only if its gradient may be wanted.

    That is in training mode, and in any mode if an argument requires a gradient. Otherwise a model
    in evaluation mode, as from `from_pretrained`, returns plain values: the graph of an equation
    that is solved in many steps, or of a mean over many draws, takes far more memory than all the
    rest. For the gradient of the weights call `model.train()`.
    """

    @functools.wraps(method)
    def wrapper(model: Any, *args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        wanted = model.training or any(isinstance(x, Tensor) and x.requires_grad for x in given)
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            return method(model, *args, **kwargs)

    return cast("Method", wrapper)
