"""Contrasts of energies, by which training on images is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from generative.energy.model import ImageEnergy

__all__ = ["contrasts"]


@torch.no_grad()
def contrasts(model: ImageEnergy, test: Tensor, samples: Tensor) -> dict[str, float]:
    """Minus the mean energies of test images, noise and samples, and their differences.

    The book watches the contrast of images with noise, `val_cdiv`. It falls also while samples get
    worse, as any model tells noise from images; `val_cdiv_samples` does not.

    Args:
        model: on any device.
        test: images (N, C, H, W) in [0, 1].
        samples: the model's, in pixels of [-1, 1] on its device.
    """
    device = next(model.parameters()).device
    noise = model.start(len(test), torch.Generator(device).manual_seed(0))
    real = -float(model.energy(test.to(device)).mean())
    from_noise = float(-model.chain_energy(noise).mean())
    from_samples = float(-model.chain_energy(samples).mean())
    return {
        "val_real": real,
        "val_noise": from_noise,
        "val_samples": from_samples,
        "val_cdiv": from_noise - real,
        "val_cdiv_samples": from_samples - real,
    }
