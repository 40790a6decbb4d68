"""Torch's device for the name in a setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return torch's device of this name; "auto" is the GPU if there is one.

    Raises:
        ValueError: this machine has no such device, or torch does not know the name.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}; use auto, cpu, cuda, cuda:0 or mps") from None
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    count = int(counts.get(device.type, 0))
    if (device.index or 0) >= count:
        raise ValueError(
            f"device is {name}, and torch sees {count or 'no'} such "
            f"device{'' if count == 1 else 's'}; use --device cpu, or auto"
        )
    return device
