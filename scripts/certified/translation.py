"""Translators of sprites: what the edges leave open, and the one pairing of colours that fits."""

from __future__ import annotations

import math
from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def pix2pix_edges(settings: Settings) -> list[Line]:
    """Sprites from their edges, which tell all but the colour.

    The mean absolute difference alone is least for the median of the colours, which is none of
    them. Whoever draws one of the colours pays more, and makes sprites.
    """
    from generative.training.run import read_result
    from scripts import train_pix2pix

    found = {}
    for name in ("sprites-l1", "sprites"):
        folder = settings.work / name
        args = replace(train_pix2pix.PRESETS[name], out=folder, seed=settings.seed)
        if settings.smoke:
            args = replace(args, steps=3, batch_size=4)
        train_pix2pix.main(args)
        found[name] = read_result(folder)
    alone, both = found["sprites-l1"], found["sprites"]
    median, drawn = differences()
    gap = abs(alone["l1_inside"] - median)
    invalid = 1 - both["valid"]
    far = abs(both["l1_inside"] - drawn)
    return [
        Line("without a critic: difference inside", alone["l1_inside"], median, "median colour",
             gap, 0.01),
        Line("the same, share that are sprites", alone["valid"], 0.0, "none", alone["valid"], 0.01),
        Line("with a critic: share that are no sprite", invalid, 0.0, "none", invalid, 0.05),
        Line("the same, difference inside", both["l1_inside"], drawn, "a colour at random",
             far, 0.04),
    ]  # fmt: skip


def differences() -> tuple[float, float]:
    """Mean absolute difference from the colours of sprites, values in [0, 1].

    Returns:
        Of the median of every channel, the least that there is: 0.2810; and of one of the colours
        itself, drawn at random: 0.3217.
    """
    import numpy as np

    from generative.known.sprites import COLOURS

    colours = np.array(list(COLOURS.values())) / 255
    median = np.median(colours, axis=0)
    return float(np.abs(colours - median).mean()), float(np.abs(colours[:, None] - colours).mean())


def cyclegan_palettes(settings: Settings) -> list[Line]:
    """Sprites of two palettes: shape kept, one colour for each, and the pairing that fits."""
    from generative.training.run import read_result
    from scripts import train_cyclegan

    args = replace(train_cyclegan.PRESETS["palettes"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=4)
    train_cyclegan.main(args)
    found = read_result(settings.work)
    lost, spread = 1 - found["shape"], 1 - found["single_valued"]
    wrong = 12 - found["colours_right"]
    chance = 1 - 1 / math.factorial(6)
    return [
        Line("share whose shape is lost", lost, 0.0, "none", lost, 0.01),
        Line("share in another colour than most of theirs", spread, 0.0, "none", spread, 0.01),
        Line("colours of 12, there and back, with the wrong partner", wrong, 0, "the pairing that "
             f"fits; a random one is another in {chance:.1%}", wrong, 0.5),
    ]  # fmt: skip


CERTIFICATES = {
    "pix2pix-edges": Certificate(
        "pix2pix, critic with features of a classifier", pix2pix_edges, 10
    ),
    "cyclegan-palettes": Certificate("CycleGAN, pairs of patches", cyclegan_palettes, 10),
}
