"""Measures of VQ-VAE, VQ-GAN and their priors, most of them where all images are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scripts.common.images import ImageData

if TYPE_CHECKING:
    from torch import Tensor

    from generative.codes import VQVAE
    from generative.data.image_set import ImageSet

__all__ = [
    "all_codes",
    "collapse",
    "entropy_of",
    "objects_read",
    "reconstruction_scores",
    "sample_scores",
]

SPRITE = (3, 32, 32)
"""Shape of a sprite as it is drawn."""


def reconstruction_scores(
    model: VQVAE, images: ImageSet, data: ImageData, most: int = 2000
) -> dict[str, float]:
    """Errors of a model's reconstructions, over a limited number at even distances.

    `gradient_energy` is the share of the images' that is left, 1 where they are as sharp. Of scenes
    `objects_read` is the share of objects that are read right, of sprites `sprites_kept` the share
    of sprites that are nearest to themselves; of both, `valid` is that of `sample_scores`.
    """
    import numpy as np
    import torch

    from generative.codes import gradient_energy, psnr
    from generative.known.sprites import nearest, sprites
    from generative.nets.quantiser import count_codes, perplexity

    images, device = images.thin(most), next(model.parameters()).device
    x = images.as_tensor(device=device)
    with torch.no_grad():
        codes = torch.cat([model.encode(part) for part in x.split(200)])
        again = torch.cat([model.decode(part) for part in codes.split(200)])
    counts = count_codes(codes, model.num_codes)
    found = {
        "mse": float((again - x).square().mean()),
        "psnr": float(psnr(again, x)),
        "gradient_energy": float(gradient_energy(again) / gradient_energy(x)),
        "codes": model.num_codes,
        "codes_used": int((counts > 0).sum()),
        "perplexity": float(perplexity(counts)),
    }
    if data == "scenes":
        found["objects_read"] = objects_read(again, images)
    if data == "sprites" and tuple(x.shape[1:]) == SPRITE:
        pixels = again.mul(255).round().byte().movedim(1, -1).cpu().numpy()
        everything = sprites()
        factors = everything.factors[nearest(everything, pixels)[0]]
        found["sprites_kept"] = float(np.all(factors == images.factors, 1).mean())
    return found | {k: x for k, x in sample_scores(again.cpu(), data).items() if k == "valid"}


def objects_read(again: Tensor, images: ImageSet) -> float:
    """Share of the objects of scenes that are read right in other pictures of them.

    Args:
        again: the other pictures, (N, 3, H, W).
        images: the scenes, whose factors are their nine cells.
    """
    import torch

    from generative.known import scenes

    border = (again.shape[-1] - scenes.SIDE * scenes.CELL) // 2
    cells = torch.from_numpy(images.factors)
    read = scenes.read(again.cpu(), border).cells
    return float((read == cells)[cells != scenes.EMPTY].float().mean())


def sample_scores(samples: Tensor, data: ImageData) -> dict[str, float]:
    """Share of images (N, C, H, W) that are one of the data, where all of these are known."""
    from generative.gan import coverage
    from generative.known import scenes
    from generative.known.sprites import sprites

    if data == "scenes":
        border = (samples.shape[-1] - scenes.SIDE * scenes.CELL) // 2
        drawn = scenes.valid(samples, border)
        two = (scenes.read(samples, border).cells != scenes.EMPTY).sum(1) == 2
        return {"valid": float((drawn & two).float().mean())}
    if data == "sprites" and tuple(samples.shape[1:]) == SPRITE:
        found = coverage(samples, sprites())
        return {"valid": found.precision, "reached": found.recall}
    return {}


def all_codes(model: VQVAE, images: ImageSet, rows: int = 200) -> Tensor:
    """Codes of all images, int64 (N, h, w), on the CPU."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [
            model.encode(images.as_tensor(slice(first, first + rows), device)).cpu()
            for first in range(0, len(images), rows)
        ]
    return torch.cat(parts)


def entropy_of(codes: Tensor) -> float:
    """Entropy of a complete list of grids (N, h, w) that are drawn evenly, nats.

    It is ln N where no two grids are equal.
    """
    import torch

    _, counts = torch.unique(codes.flatten(1), dim=0, return_counts=True)
    return math.log(len(codes)) - float((counts * counts.log()).sum()) / len(codes)


def collapse(model: VQVAE, used: int) -> str:
    """Warning about a list of codes of which hardly any are in use; "" if many are.

    Args:
        used: codes that occur in the images.
    """
    from generative.nets.quantiser import VectorQuantiser

    quantiser = model.quantiser
    if not isinstance(quantiser, VectorQuantiser) or used > max(2, quantiser.num_codes // 10):
        return ""
    revive = quantiser.config.revive
    remedy = (
        "set --model.quantiser.revive 20, which puts unused codes where they are needed"
        if not revive
        else f"lower --model.quantiser.revive (it is {revive}), train longer, or take codes "
        "without a list (presets scenes-fsq and sprites-fsq, whose --model.quantiser.levels says "
        "how many)"
    )
    return (
        f"the list of codes has collapsed: {used} of {quantiser.num_codes} are in use, so that "
        f"images look alike; {remedy}"
    )
