"""GANs on data of which everything is known: 25 narrow Gaussians, and all sprites there are."""

from __future__ import annotations

import math
from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def gan_grid_25(settings: Settings) -> list[Line]:
    """Modes found of a grid of 25 Gaussians, and the share of samples within 3 deviations of one.

    The usual GAN of Goodfellow et al. finds fewer, and the space between the modes is never quite
    empty, because a network maps the connected noise continuously.
    """
    import torch

    from generative.gan import GAN
    from generative.toy import grid_25
    from scripts import train_gan

    args = replace(train_gan.PRESETS["grid-25"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=16)
    gan = GAN.from_pretrained(train_gan.main(args))
    grid, generator = grid_25(), torch.Generator().manual_seed(settings.seed)
    mean, std = torch.tensor([grid.mean, grid.std])
    samples = gan.sample(100_000, generator) * std + mean
    modes, share = grid.modes_found(samples)
    nearest = torch.cdist(samples, torch.tensor(grid.centres)).argmin(1)
    shares = torch.bincount(nearest, minlength=25) / len(samples)
    uneven = float((shares - 1 / 25).abs().sum() / 2)
    truth = 1 - math.exp(-9 / 2)
    return [
        Line("modes of 25 that are missing", 25 - modes, 0, "all found", 25 - modes, 0.5),
        Line("share of samples beyond 3 deviations", 1 - share, 1 - truth, "truth", 1 - share, 0.4),
        Line("share of samples at the wrong mode", uneven, 0.0, "even shares", uneven, 0.5),
    ]


def conditional_gan_sprites(settings: Settings) -> list[Line]:
    """Whether samples have the colour that was asked for, and how many of all sprites they are."""
    import numpy as np
    import torch

    from generative.conditional_gan import ConditionalGAN
    from generative.data.sprites import sprites
    from generative.gan import coverage
    from scripts import train_conditional_gan

    args = replace(train_conditional_gan.PRESETS["sprites"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=8)
    gan = ConditionalGAN.from_pretrained(train_conditional_gan.main(args))
    everything = sprites()
    num = 120 if settings.smoke else 5 * len(everything)
    asked = torch.arange(num) % gan.config.num_classes
    generator = torch.Generator().manual_seed(settings.seed)
    samples = torch.cat([gan.sample(len(a), generator, a) for a in asked.split(1000)])
    nearest = coverage(samples, everything, within=math.inf)
    colour = everything.factors[nearest.index, everything.factor_names.index("colour")]
    wrong = float(np.mean(colour != asked.numpy()))
    # Drawn evenly, so many samples would miss each sprite with this probability.
    missed = math.exp(num * math.log1p(-1 / len(everything)))
    unseen = 1 - nearest.recall
    return [
        Line("samples nearest to a sprite of another colour", wrong, 0.0, "none", wrong, 0.01),
        Line("sprites that no sample is nearest to", unseen, missed, "even draws", unseen, 0.05),
    ]


CERTIFICATES = {
    "gan-grid-25": Certificate("GAN, relativistic with R1 and R2", gan_grid_25),
    "conditional-gan-sprites": Certificate("Conditional GAN, projection", conditional_gan_sprites),
}
