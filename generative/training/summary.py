"""Table of a model: its layers, with the output shape and the number of parameters of each.

print(summary(CNNClassifierConfig().build(), torch.zeros(1, 3, 32, 32), "logits"))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["LayerRow", "Summary", "summary"]


class LayerRow(NamedTuple):
    """A layer that the input passed."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Shape of its output, without the batch."""
    trained: int
    """Number of trainable parameters."""
    kept: int
    """Number of floating-point buffer entries, such as averages of a batch normalisation."""


class Summary(NamedTuple):
    """All layers in the order in which the input passes them; `str` makes a table."""

    layers: tuple[LayerRow, ...]
    trained: int
    """Number of parameters in the whole model; shared ones count once."""
    kept: int
    """Number of floating-point buffer entries in the whole model."""

    def __str__(self) -> str:
        rows = [("layer", "kind", "output", "numbers")]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            rows.append((layer.name, layer.kind, shape, f"{layer.trained + layer.kept:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in rows
        ]
        total = f"{self.trained + self.kept:,} in all, {self.trained:,} of them trained"
        return "\n".join([*lines, total])


def summary(model: nn.Module, x: Tensor, method: str = "forward") -> Summary:
    """Pass x through model and list every layer without layers inside.

    A layer that x does not pass is not listed, but counts in the totals.

    Args:
        model: is not changed, and stays in its mode of training or evaluation.
        x: input, batch first.
        method: method of the model that takes x, e.g. "encode".
    """
    layers: list[LayerRow] = []

    def note(name: str, layer: nn.Module):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()
            layers.append(LayerRow(name, type(layer).__name__, shape, *_count(layer)))

        return hook

    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children())]
    hooks = [m.register_forward_hook(note(n, m)) for n, m in leaves]
    modes = {m: m.training for m in model.modules()}
    try:
        with torch.no_grad():
            getattr(model.eval(), method)(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return Summary(tuple(layers), *_count(model))


def _count(module: nn.Module) -> tuple[int, int]:
    trained = sum(p.numel() for p in module.parameters())
    return trained, sum(b.numel() for b in module.buffers() if b.is_floating_point())
