"""ProGAN and StyleGAN2 on sprites, of which every image is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from scripts.certified.common import Certificate, Line, Settings
from scripts.certified.gan import colours_shown

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from generative.gan.config import ProjectedCriticConfig
    from generative.stylegan import ProGAN, StyleGAN

__all__ = ["CERTIFICATES"]


def progan_sprites(settings: Settings) -> list[Line]:
    """Sprites that are never made and samples that are fragments, with what the conditional GAN of
    the chapter before had; and the first for a critic that does not compare examples."""
    from generative.stylegan import ProGAN
    from scripts import train_progan

    preset = train_progan.PRESETS["sprites"]
    critic = preset.model.projected
    assert critic is not None

    def found_with(critic: ProjectedCriticConfig, out: Path) -> Found:
        model = replace(preset.model, projected=critic)
        args = replace(preset, out=out, seed=settings.seed, model=model)
        if settings.smoke:
            loss = replace(args.loss, phase_images=8)
            small = replace(model, channel_base=128, channel_max=8)
            features = replace(args.features, steps=3)
            args = replace(args, steps=7, batch_size=8, loss=loss, model=small, features=features)
        return measure(ProGAN.from_pretrained(train_progan.main(args)), settings)

    found = found_with(critic, settings.work / "std")
    without = found_with(replace(critic, std_group=0), settings.work / "no-std")
    more = found.unreached - without.unreached
    return [
        Line(
            "sprites that no sample is nearest to",
            found.unreached, 0.269, "conditional GAN", found.unreached, 0.269,
        ),
        Line(
            "samples nearest to a sprite of another colour than they show",
            found.fragments, 0.052, "conditional GAN", found.fragments, 0.052,
        ),
        Line(
            "sprites never reached, less those without minibatch deviation",
            found.unreached, without.unreached, "without it", more, 0.0,
        ),
    ]  # fmt: skip


def stylegan_sprites(settings: Settings) -> list[Line]:
    """Samples that are sprites, sprites that are reached, and whether w is easier than z: how much
    of a sprite's factors is linear in either, and how far images move on straight ways."""
    from scripts import train_stylegan

    args = replace(train_stylegan.PRESETS["sprites"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        small = replace(args.model, channel_base=128, channel_max=8)
        features = replace(args.features, steps=3)
        args = replace(args, steps=7, batch_size=8, model=small, features=features)
        args = replace(args, loss=replace(args.loss, phase_images=8))
    return _styled(train_stylegan.main(args), settings)


def stylegan2_sprites(settings: Settings) -> list[Line]:
    """The same of a StyleGAN2, which does not grow."""
    from scripts import train_stylegan2

    args = replace(train_stylegan2.PRESETS["sprites"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        small = replace(args.model, channel_base=128, channel_max=8)
        features = replace(args.features, steps=3)
        args = replace(args, steps=3, batch_size=8, model=small, features=features)
    return _styled(train_stylegan2.main(args), settings)


def _styled(folder: Path, settings: Settings) -> list[Line]:
    """Lines of a trained StyleGAN or StyleGAN2."""
    from generative.stylegan import StyleGAN

    gan = StyleGAN.from_pretrained(folder)
    found = measure(gan, settings)
    in_z, in_w = linearity(gan, settings)
    ratio = path_length(gan, settings, "w") / path_length(gan, settings, "z")
    return [
        Line("samples that are no sprite", found.invalid, 0.0, "none", found.invalid, 0.05),
        Line(
            "sprites that no sample is nearest to",
            found.unreached, 0.0, "none", found.unreached, 0.2,
        ),
        Line(
            "share of factors that is linear in z, less that in w", in_z, in_w, "in w",
            in_z - in_w, 0.0,
        ),
        Line("path length in w, by that in z", ratio, 1.0, "equal", ratio, 1.0),
    ]  # fmt: skip


class Found(NamedTuple):
    """Result of `measure`."""

    invalid: float
    """Share of samples that are not within `coverage`'s distance of a sprite."""
    fragments: float
    """Share of samples whose nearest sprite has another colour than most of their pixels."""
    unreached: float
    """Share of sprites that no sample is nearest to."""


def measure(gan: ProGAN, settings: Settings) -> Found:
    """Five samples for each sprite, compared with all sprites."""
    import numpy as np
    import torch

    from generative.gan import coverage
    from generative.known.sprites import sprites

    everything = sprites()
    num = 120 if settings.smoke else 5 * len(everything)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = [gan.sample(min(500, num - i), generator) for i in range(0, num, 500)]
    images = torch.cat(parts)
    shown = np.concatenate([colours_shown(part.movedim(1, -1).numpy()) for part in parts])
    nearest = coverage(images, everything, within=math.inf)
    colour = everything.factors[nearest.index, everything.factor_names.index("colour")]
    return Found(
        1 - coverage(images, everything).precision,
        float(np.mean(colour != shown)),
        1 - nearest.recall,
    )


def linearity(gan: StyleGAN, settings: Settings) -> tuple[float, float]:
    """Share of the factors of the nearest sprite that is linear in z, and in w.

    R^2 of a regression on half of 4,000 samples, of the other half; mean over factors, of shape and
    colour of their indicators.
    """
    import torch
    from torch.nn import functional as F

    from generative.gan import coverage
    from generative.known.sprites import FACTORS, sprites
    from generative.nets.equalised import pixel_norm

    everything = sprites()
    num = 400 if settings.smoke else 4000
    generator = torch.Generator().manual_seed(settings.seed)
    z = gan.draw_z(num, generator)
    w = gan.styles(z)
    with torch.no_grad():
        images = torch.cat([gan.synthesise(part) for part in w.split(500)])
    rows = coverage(images, everything, within=math.inf).index.numpy()
    factors = torch.from_numpy(everything.factors[rows])
    targets = [
        F.one_hot(factors[:, i], count) if name in ("shape", "colour") else factors[:, i : i + 1]
        for i, (name, count) in enumerate(FACTORS.items())
    ]

    def explained(x: Tensor) -> float:
        """Mean R^2 of the factors."""
        x = torch.cat([x.double(), torch.ones(num, 1, dtype=torch.float64)], 1)
        half, shares = num // 2, []
        for target in targets:
            y = target.double()
            fit = torch.linalg.lstsq(x[:half], y[:half], driver="gelsd").solution
            error = (y[half:] - x[half:] @ fit).square().sum()
            shares.append(1 - error / (y[half:] - y[half:].mean(0)).square().sum())
        return float(torch.stack(shares).mean())

    return explained(pixel_norm(z)), explained(w[:, 0].detach())


def path_length(gan: StyleGAN, settings: Settings, space: str, step: float = 1e-3) -> float:
    """Mean of |image(t + step) - image(t)|^2 / step^2 on ways between two draws, per value.

    Ways are straight in w and arcs in z, as of Karras et al. 2019, section 4.1, whose distance is
    perceptual.
    """
    import torch

    from generative.interpolation import slerp

    num = 40 if settings.smoke else 1000
    generator = torch.Generator().manual_seed(settings.seed)
    ends = gan.draw_z(2 * num, generator).double()
    t = torch.rand(num, generator=generator, dtype=torch.float64)
    gan = gan.double()
    images = []
    with torch.no_grad():
        for u in (t, t + step):
            if space == "z":
                pairs = zip(ends[:num], ends[num:], u, strict=True)
                w = gan.styles(torch.cat([slerp(a, b, at[None]) for a, b, at in pairs]))
            else:
                first, second = gan.styles(ends).chunk(2)
                w = torch.lerp(first, second, u[:, None, None])
            images.append(torch.cat([gan.synthesise(part) for part in w.split(250)]))
    gan.float()
    return float(((images[1] - images[0]) / step).square().mean())


CERTIFICATES = {
    "progan-sprites": Certificate(
        "ProGAN, hinge, critic with features of a classifier", progan_sprites, 10
    ),
    "stylegan-sprites": Certificate(
        "StyleGAN, hinge, critic with features of a classifier", stylegan_sprites, 10
    ),
    "stylegan2-sprites": Certificate(
        "StyleGAN2, hinge, critic with features of a classifier", stylegan2_sprites, 10
    ),
}
