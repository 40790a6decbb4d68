"""VAE-GAN on sprites: what a critic adds to a VAE of the same size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from scripts.train_vae_gan import Args

__all__ = ["CERTIFICATES"]


def vae_gan_sprites(settings: Settings) -> list[Line]:
    """Sharpness of reconstructions of test sprites, and what of a sprite they keep, beside a VAE of
    the same networks, which compares pixels."""
    from scripts import train_vae_gan

    args = replace(train_vae_gan.PRESETS["sprites"], seed=settings.seed)
    vae = replace(args.loss, features=0.0, pixels=1.0, adversarial=0.0)
    found = measure(replace(args, out=settings.work / "vae-gan"), settings)
    plain = measure(replace(args, out=settings.work / "vae", loss=vae), settings)
    away, blurred = abs(found.energy - 1), abs(plain.energy - 1)
    return [
        Line("gradient energy of reconstructions, share of the images'", found.energy, 1.0,
             "images", away, 0.1),
        Line("how far that is from 1, less that of a VAE", found.energy, plain.energy, "VAE",
             away - blurred, 0.0),
        Line("test sprites that come back in another colour", found.colour, plain.colour, "VAE",
             found.colour, 0.05),
        Line("in another shape", found.shape, plain.shape, "VAE", found.shape, 0.05),
        Line("somewhere else or of another size", found.place, plain.place, "VAE", found.place,
             0.05),
    ]  # fmt: skip


class Found(NamedTuple):
    """Result of `measure`: of reconstructions of the test sprites."""

    energy: float
    """Gradient energy, as a share of that of the images."""
    colour: float
    """Share whose nearest sprite has another colour."""
    shape: float
    """Share whose nearest sprite has another shape."""
    place: float
    """Share whose nearest sprite is elsewhere, or has another size."""


def measure(args: Args, settings: Settings) -> Found:
    """Train with these settings, and compare all test sprites with their reconstructions."""
    import numpy as np
    import torch

    from generative.gan import coverage
    from generative.known.sprites import sprites
    from generative.training.run import read_result
    from generative.vae_gan import VAEGAN
    from scripts import train_vae_gan
    from scripts.common.images import load_images

    if settings.smoke:
        args = replace(args, steps=3, batch_size=4)
    model = VAEGAN.from_pretrained(train_vae_gan.main(args))
    test = load_images("sprites", args.data_dir, args.model.image_shape).part("test")
    with torch.no_grad():
        again = torch.cat([model.reconstruct(part) for part in test.as_tensor().split(500)])
    everything = sprites()
    factors = everything.factors[coverage(again, everything, within=float("inf")).index]
    wrong = factors != test.factors
    shape, colour, *place = (
        wrong[:, everything.factor_names.index(name)]
        for name in ("shape", "colour", "x", "y", "size")
    )
    return Found(
        read_result(args.out)["test_gradient_energy"],
        float(colour.mean()), float(shape.mean()), float(np.any(place, 0).mean()),
    )  # fmt: skip


CERTIFICATES = {
    "vae-gan-sprites": Certificate("VAE-GAN, relativistic with R1 and R2", vae_gan_sprites, 10)
}
