"""The model that a folder holds: of any family of `generative`, or a V, an M or a C."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import generative.loading

__all__ = ["MODELS", "load_model"]

MODELS: dict[str, str] = {
    **generative.loading.MODELS,
    "LinearController": "worldmodels.controller",
    "MDNRNN": "worldmodels.memory",
    "TransformerMemory": "worldmodels.memory",
    "VectorVision": "worldmodels.vision",
}
"""The module of each class of model, by the name that a saved model carries."""


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The model that a folder holds, in evaluation mode; see `generative.loading.load_model`."""
    return generative.loading.load_model(folder, device, MODELS)
