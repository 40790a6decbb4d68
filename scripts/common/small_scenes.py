"""Scenes of the micro-world that were shrunk: read, judged, and the measures of what draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.scene_scores import Accuracy
    from generative.known.scenes import Reading
    from generative.text_to_image import TextToImage

__all__ = ["read_small", "small_accuracy", "small_scores"]


def read_small(images: Tensor) -> tuple[Reading, float]:
    """Read shrunk scenes without a border: the nearest shrunk template of every cell.

    Args:
        images: (n, 3, side, side), side 12, 6 or 3; averages over squares of a scene's pixels.
    Returns:
        what is read, and the root mean square below which a cell cannot be read wrongly: half the
        distance of the two templates that are closest, 0.0154 with 6 pixels on a side.
    """
    import torch

    from generative.known.scene_denoiser import small_objects
    from generative.known.scenes import CELLS, SIDE, Reading

    side = images.shape[-1] // SIDE
    known = small_objects(side).flatten(1).to(images.device)
    known = torch.cat([known, torch.zeros_like(known[:1])])  # the empty cell
    tiles = images.double().unflatten(3, (SIDE, side)).unflatten(2, (SIDE, side))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, known.shape[1])
    exact = "donot_use_mm_for_euclid_dist"
    nearest, cells = torch.cdist(tiles, known, compute_mode=exact).min(1)
    apart = torch.nn.functional.pdist(known).min() / 2
    root, shape = known.shape[1] ** 0.5, (len(images), CELLS)
    return Reading(cells.view(shape), (nearest / root).view(shape)), float(apart / root)


def small_accuracy(images: Tensor, captions: Sequence[str]) -> Accuracy:
    """Share of shrunk scenes that fit their captions, and of those that are none.

    As of whole scenes, half of what would let a cell be read wrongly is let pass.
    """
    from generative.known.scene_scores import accuracy
    from generative.known.scenes import draw

    reading, apart = read_small(images)
    whole = draw(reading.cells)
    rejected = (reading.residual > apart / 2).any(1)
    whole[rejected] = 0.5  # no picture of the world
    return accuracy(whole, captions)


def small_scores(
    model: TextToImage,
    world: CaptionedScenes,
    scales: Sequence[float],
    generator: Generator,
    n: int,
) -> dict[str, float]:
    """Draw shrunk scenes for n captions of a world, and read them.

    For each scale of guidance: `satisfied_at_scale_S` and `rejected_at_scale_S`.
    """
    import torch

    found = {}
    for scale in scales:
        drawn = torch.Generator(model.device).manual_seed(0)
        texts, _ = world.draw(n, generator)
        accuracy = small_accuracy(model.sample(texts, drawn, scale=scale).cpu(), texts)
        found[f"satisfied_at_scale_{scale:g}"] = accuracy.satisfied.share
        found[f"rejected_at_scale_{scale:g}"] = accuracy.rejected.share
    return found
