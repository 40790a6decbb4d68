"""Muon: hidden matrices move along orthogonalised averages of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalise"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the polynomial of Jordan et al. 2024, whose slope at 0 is large."""
EPS = 1e-7
"""Least norm by which a matrix is divided."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024), quick on processors without instructions for bfloat16.

    `torch.optim.Muon` orthogonalises in bfloat16, matrix by matrix, which is slow on most CPUs.
    Here it is float32 on a CPU, all weights of one shape together. Weights of convolutions are
    matrices too, a row for each output channel.

    Args:
        params: weights of two or more axes.
        lr: learning rate.
        weight_decay: decoupled, as a share of the learning rate.
        momentum: decay of the average of gradients.
        nesterov: look ahead along the average.
        steps: of the Newton-Schulz iteration.
        adjust: size of a step. original: that of the publication; match_rms_adamw: about as large
            as AdamW's (Liu et al. 2025), so that both can have one learning rate.
    Raises:
        ValueError: a parameter has less than two axes.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        adjust: Literal["original", "match_rms_adamw"] = "original",
    ):
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "steps": steps, "adjust": adjust,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2:
                    raise ValueError(
                        f"got a parameter {tuple(p.shape)}; Muon moves matrices and weights of "
                        "convolutions, leave others to another optimiser"
                    )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state, also that of `torch.optim.Muon`, which older runs have."""
        super().__setstate__(state)
        for group in self.param_groups:
            if "steps" not in group:
                group["steps"] = group["ns_steps"]
                group["adjust"] = group["adjust_lr_fn"] or "original"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights that have a gradient; returns what the closure returns, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape, p.device, p.dtype), []).append(p)
            for weights in alike.values():
                self._move(group, weights)
        return loss

    def _move(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        momentum, updates = group["momentum"], []
        for p in weights:
            grad, state = p.grad, self.state[p]
            assert grad is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
            updates.append(grad.lerp(average, momentum) if group["nesterov"] else average)
        matrices = torch.stack(updates).flatten(2)
        rows, columns = matrices.shape[1:]
        ratio = max(1.0, rows / columns) ** 0.5
        if group["adjust"] == "match_rms_adamw":
            ratio = 0.2 * max(rows, columns) ** 0.5
        for p, step in zip(weights, orthogonalise(matrices, group["steps"]), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(step.view_as(p), alpha=group["lr"] * ratio)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of matrices (N, R, C) near 1, by the Newton-Schulz iteration.

    Five steps leave most of them between 0.7 and 1.2. On a CPU it is float32, elsewhere bfloat16.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).contiguous()
    x = x.float() if x.device.type == "cpu" else x.bfloat16()
    x = x / x.flatten(1).norm(dim=1).clamp(min=EPS)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).contiguous().to(matrices.dtype)
