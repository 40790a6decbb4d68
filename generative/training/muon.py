"""Muon in float32: hidden matrices move along orthogonalised averages of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalise"]


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024), quick on processors without instructions for bfloat16.

    Arguments and state are those of `torch.optim.Muon`. That one orthogonalises in bfloat16, matrix
    by matrix, and on most CPUs takes as long for it as for all else in a step of a small network.
    Here it is float32 on a CPU, and all matrices of one shape together; elsewhere it is torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all matrices; returns what the closure returns, if there is one."""
        if any(p.device.type != "cpu" for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for matrices in alike.values():
                self._move(group, matrices)
        return loss

    def _move(self, group: dict[str, Any], matrices: list[Tensor]) -> None:
        momentum, (rows, columns) = group["momentum"], matrices[0].shape
        updates = []
        for p in matrices:
            grad, state = p.grad, self.state[p]
            assert grad is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
            updates.append(grad.lerp(average, momentum) if group["nesterov"] else average)
        steps = orthogonalise(
            torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        # As large as an update of AdamW is (Liu et al. 2025), or what the publication has.
        ratio = max(rows, columns) ** 0.5 * 0.2
        if group["adjust_lr_fn"] != "match_rms_adamw":
            ratio = max(1.0, rows / columns) ** 0.5
        for p, step in zip(matrices, steps, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"] * ratio)


def orthogonalise(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring the singular values of matrices (N, R, C) near 1, by the Newton-Schulz iteration.

    Five steps with the usual coefficients leave them between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
