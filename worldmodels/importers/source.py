"""Common parts of the importers: their result, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodels.controller import LinearController
from worldmodels.world_model import WorldModel

__all__ = ["ForeignWeightsError", "Imported", "check_shape", "fill", "find"]


class ForeignWeightsError(ValueError):
    """A file of weights cannot become a model of ours; names file, weight and shapes."""


class Imported(NamedTuple):
    """Result of an import."""

    world: WorldModel
    controller: LinearController | None
    """Controller; None if the folder holds none."""
    files: tuple[Path, ...]
    """Files that were read: V's, M's, and C's if there is one."""


def check_shape(path: Path, key: str, got: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Raise ForeignWeightsError if the shapes differ."""
    if tuple(got) != tuple(needed):
        raise ForeignWeightsError(
            f"{path}: {key} has shape {tuple(got)}, needed is {tuple(needed)}"
        )


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Load weights for exactly the parameters of a model; returns it in evaluation mode."""
    model.float().load_state_dict({name: w.float().contiguous() for name, w in weights.items()})
    return model.eval()


def find(folder: Path, what: str, names: tuple[str, ...]) -> Path:
    """Return the first of these files that the folder has.

    Raises:
        FileNotFoundError: it has none; lists them.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no {what}: looked for {', '.join(names)}")


def lstm_weights(
    weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, prefix: str = "lstm."
) -> dict[str, Tensor]:
    """Parameters of our LSTM, whose second bias is always zero. The gates' order is i, f, g, o.

    Args:
        weight_ih: (4H, inputs).
        weight_hh: (4H, H).
        bias: (4H,), the sum of both biases.
    """
    return {
        f"{prefix}weight_ih_l0": weight_ih,
        f"{prefix}weight_hh_l0": weight_hh,
        f"{prefix}bias_ih_l0": bias,
        f"{prefix}bias_hh_l0": torch.zeros_like(bias),
    }
