"""GANs on data that are known completely: 25 narrow Gaussians, and all sprites."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CERTIFICATES"]

GAN_BEYOND, GAN_UNEVEN = 0.178, 0.297
"""Shares of `gan_grid_25` with seed 1, in certificates.md."""


def gan_grid_25(settings: Settings) -> list[Line]:
    """Modes found of a grid of 25 Gaussians, and share of samples within 3 deviations of one.

    The usual GAN of Goodfellow et al. finds fewer, and the space between the modes is never quite
    empty, because a network maps the connected noise continuously.
    """
    from scripts import train_gan

    args = train_gan.PRESETS["grid-25"]
    missing, beyond, uneven, truth = grid_figures(train_gan.main, args, settings)
    return [
        Line("modes of 25 that are missing", missing, 0, "all found", missing, 0.5),
        Line("share of samples beyond 3 deviations", beyond, truth, "truth", beyond, 0.4),
        Line("share of samples at the wrong mode", uneven, 0.0, "even shares", uneven, 0.5),
    ]


def wgan_grid_25(settings: Settings) -> list[Line]:
    """The same of Wasserstein GANs, with a gradient penalty and with clipped weights.

    A bound of the critic's slope blurs what it can tell, so samples lie further from the modes than
    those of a GAN of the same size.
    """
    from scripts import train_wgan

    lines = []
    for kind, preset in (("penalty", "grid-25"), ("clipping", "grid-25-clipping")):
        work = replace(settings, work=settings.work / kind)
        args = train_wgan.PRESETS[preset]
        missing, beyond, uneven, _ = grid_figures(train_wgan.main, args, work)
        lines += [
            Line(f"{kind}: modes of 25 that are missing", missing, 0, "all found", missing, 0.5),
            Line(f"{kind}: share of samples beyond 3 deviations", beyond, GAN_BEYOND,
                 "GAN of pairs", beyond, 0.9),
            Line(f"{kind}: share of samples at the wrong mode", uneven, GAN_UNEVEN,
                 "GAN of pairs", uneven, 0.5),
        ]  # fmt: skip
    return lines


def grid_figures(
    train: Callable[[Any], Path], args: Any, settings: Settings
) -> tuple[int, float, float, float]:
    """Train on the grid; returns what its samples are like, and what the best would be.

    Returns:
        modes of 25 that are missing, the shares of samples beyond 3 deviations of all and at the
        wrong mode, and the share beyond 3 deviations of the grid itself.
    """
    import torch

    from generative.gan import GAN
    from generative.known.densities import grid_25

    args = replace(args, out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=16)
    gan = GAN.from_pretrained(train(args))
    grid, generator = grid_25(), torch.Generator().manual_seed(settings.seed)
    mean, std = torch.tensor([grid.mean, grid.std])
    samples = gan.sample(100_000, generator) * std + mean
    modes, share = grid.modes_found(samples)
    nearest = torch.cdist(samples, torch.tensor(grid.centres)).argmin(1)
    shares = torch.bincount(nearest, minlength=25) / len(samples)
    uneven = float((shares - 1 / 25).abs().sum() / 2)
    return 25 - modes, 1 - share, uneven, math.exp(-9 / 2)


def conditional_gan_sprites(settings: Settings) -> list[Line]:
    """Share of samples with the requested shape, colour and size, and number of sprites among them.

    A sample too small or too ragged for any sprite of its own colour may be nearest to one of a
    darker colour. The first line counts it as wrong; the second asks for the colour alone.
    """
    import numpy as np
    import torch

    from generative.gan import GAN, coverage
    from generative.known.sprites import sprites
    from scripts import train_conditional_gan
    from scripts.common.images import classes_of

    args = replace(train_conditional_gan.PRESETS["sprites"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=8, features=replace(args.features, steps=3))
    gan = GAN.from_pretrained(train_conditional_gan.main(args))
    everything = sprites()
    classes = classes_of(everything, args.label, gan.config.num_classes)
    colours = everything.factors[:, everything.factor_names.index("colour")]
    of_class = dict(zip(classes.tolist(), colours.tolist(), strict=True))
    num = 144 if settings.smoke else 5 * len(everything)
    asked = torch.arange(num) % gan.config.num_classes
    generator = torch.Generator().manual_seed(settings.seed)
    parts = [gan.sample(len(a), generator, a) for a in asked.split(1000)]
    shown = np.concatenate([colours_shown(part.movedim(1, -1).numpy()) for part in parts])
    nearest = coverage(torch.cat(parts), everything, within=math.inf)
    rows = nearest.index.numpy()
    wanted = np.array([of_class[int(each)] for each in asked])
    wrong, not_shown = (float(np.mean(found != wanted)) for found in (colours[rows], shown))
    other = float(np.mean(classes[rows] != asked.numpy()))
    # `num` uniform samples would miss each sprite with this probability.
    missed = math.exp(num * math.log1p(-1 / len(everything)))
    unseen = 1 - nearest.recall
    return [
        Line("samples nearest to a sprite of another colour", wrong, 0.0, "none", wrong, 0.01),
        Line("samples in another colour, or black", not_shown, 0.0, "none", not_shown, 0.01),
        Line("samples nearest to one of another class", other, 0.0, "none", other, 0.02),
        Line("sprites that no sample is nearest to", unseen, missed, "even draws", unseen, 0.05),
    ]


def colours_shown(images: np.ndarray) -> np.ndarray:
    """Colour of each image regardless of its shape: the closest one of most of its pixels.

    Args:
        images: (N, H, W, 3) in [0, 1].
    Returns:
        (N,), in the order of `generative.known.sprites.COLOURS`; -1 where all are closest to black.
    """
    import numpy as np

    from generative.known.sprites import COLOURS

    palette = np.array([(0, 0, 0), *COLOURS.values()], dtype=np.float32) / 255
    closest = np.stack([np.square(images - c).sum(-1) for c in palette]).argmin(0)
    counts = np.stack([(closest == c).sum((1, 2)) for c in range(1, len(palette))])
    return np.where(counts.any(0), counts.argmax(0), -1)


CERTIFICATES = {
    "gan-grid-25": Certificate("GAN, relativistic with R1 and R2", gan_grid_25, 4),
    "wgan-grid-25": Certificate("Wasserstein GAN", wgan_grid_25, 4),
    "conditional-gan-sprites": Certificate(
        "Conditional GAN, projection", conditional_gan_sprites, 4
    ),
}
