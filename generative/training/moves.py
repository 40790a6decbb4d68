"""Record of how the weights of networks moved in a step, for `fit` to find what was not finite.

    with recorded() as moves:
        learner.update(batch)            # each `Optimisation.move` adds a `Move`
    moves[0].size                        # not finite where an entry of the gradient is not

Nothing is recorded elsewhere, and nothing is waited for: sizes stay on their device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Move", "record", "recorded"]


class Move(NamedTuple):
    """A move of one network."""

    name: str
    """Name of the network, such as generator."""
    size: Tensor
    """Norm of its gradient, or the sum of those of its tensors, (). It is infinite from entries of
    1e19 on, whose squares in Adam's averages are, too."""
    loss: Tensor | None
    """Loss of which the gradient is, (); None if it is not known."""


_moves: ContextVar[list[Move] | None] = ContextVar("moves", default=None)


@contextmanager
def recorded() -> Iterator[list[Move]]:
    """List to which the moves are added while the context lasts, in their order."""
    moves: list[Move] = []
    token = _moves.set(moves)
    try:
        yield moves
    finally:
        _moves.reset(token)


@torch.no_grad()
def record(
    name: str, parameters: Iterable[nn.Parameter], loss: Tensor | None, norm: Tensor | None = None
) -> None:
    """Add the present gradients of parameters to the record, if there is one.

    Args:
        norm: of all of them together, if it is known; it then is the size.
    """
    moves = _moves.get()
    if moves is None:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if norm is None and gradients:
        # One call for all tensors, by the norm of squares: that of largest entries takes 10 times
        # as long on a CPU.
        norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
        norm = torch.stack(norms).sum()
    if norm is not None:
        moves.append(Move(name, norm, loss))
