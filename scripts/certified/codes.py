"""Codes of images: a world that is read back exactly, priors at their floor, and sharp sprites."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def vqvae_scenes(settings: Settings) -> list[Line]:
    """Scenes of two objects as nine codes, and how well a PixelCNN knows which nine make a scene.

    The floor of its nats is ln 20,736 where no two scenes have equal codes. Codes that are chosen
    evenly make hardly ever a scene of two objects, which is the book's argument for a prior.
    """
    import torch

    from generative.codes import VQVAE
    from generative.known.scenes import draw, pairs
    from generative.training.run import read_result
    from scripts import train_code_prior, train_vqvae

    args = replace(train_vqvae.PRESETS["scenes"], out=settings.work / "vqvae", seed=settings.seed)
    if settings.smoke:
        small = replace(args.model, channels=(4, 8, 8), residual_dim=4, num_blocks=1)
        args = replace(args, steps=3, batch_size=4, model=small)
    model = VQVAE.from_pretrained(train_vqvae.main(args))
    read = read_result(args.out)["test_objects_read"]
    with torch.no_grad():
        grids = torch.cat([model.encode(draw(part)) for part in pairs().split(1000)])
    distinct = len(grids.flatten(1).unique(dim=0))
    found = _prior(settings, train_code_prior.PRESETS["scenes"], args.out, "prior")
    invalid, even = 1 - found["sample_valid"], found["uniform_valid"]
    return [
        Line("objects of test scenes that are read wrong", 1 - read, 0.0, "none", 1 - read, 0.05),
        _distinct("scenes", distinct, len(grids)),
        _nats("PixelCNN, nats of the nine codes of a test scene", found, len(grids)),
        Line("its samples that are no scene of two objects", invalid, 0.0, "none", invalid, 0.05),
        Line("evenly chosen codes that are one", even, None, "", even, 0.01),
    ]  # fmt: skip


def vqgan_sprites(settings: Settings) -> list[Line]:
    """The same for sprites, whose edges a critic keeps sharp, with a Transformer as the prior.

    The fall at the switch is that of the signal-to-noise ratio of training images, from the steps
    before the critic counts to the worst ones after.
    """
    return _coded_sprites(settings, "sprites")


def vit_vqgan_sprites(settings: Settings) -> list[Line]:
    """The same of a ViT VQ-GAN, whose networks are Transformers on patches of 4x4 pixels."""
    return _coded_sprites(settings, "sprites-vit")


def _coded_sprites(settings: Settings, preset: str) -> list[Line]:
    """Lines of a preset of train_vqgan, its twin without a critic, and a prior of its codes."""
    import torch

    from generative.codes import VQVAE
    from generative.known.sprites import sprites
    from generative.training.metrics import read_metrics
    from generative.training.run import read_result
    from scripts import train_code_prior, train_vqgan
    from scripts.common.codes import all_codes

    sharp: dict[str, float] = {}
    for name in (f"{preset}-plain", preset):
        args = replace(train_vqgan.PRESETS[name], out=settings.work / name, seed=settings.seed)
        if settings.smoke:
            args = replace(args, steps=4, batch_size=4, log_every=1, classifier_steps=3)
        folder = train_vqgan.main(args)
        sharp[name] = read_result(args.out)["test_gradient_energy"]
    begin = args.loss.begin * args.steps
    lines = [(line["step"], -10 * math.log10(line["mse"])) for line in read_metrics(args.out)]
    before = max(db for step, db in lines if step <= begin)
    fall = before - min(db for step, db in lines if step > begin)
    everything = sprites()
    grids = all_codes(VQVAE.from_pretrained(folder), everything)
    distinct = len(torch.unique(grids.flatten(1), dim=0))
    found = _prior(settings, train_code_prior.PRESETS["sprites"], args.out, "prior")
    plain, share = sharp.values()
    away, invalid = abs(share - 1), 1 - found["sample_valid"]
    lost = 1 - read_result(args.out)["test_valid"]
    return [
        Line("fall of the ratio at the switch, dB", fall, None, "", fall, 0.5),
        Line("gradient energy of reconstructions, share of the images'", share, 1.0, "images",
             away, 0.1),
        Line("that of the twin without a critic", plain, share, "with critic", plain - share, 0.0),
        _distinct("sprites", distinct, len(grids)),
        _nats("Transformer, nats of the codes of a test sprite", found, len(grids), 0.05),
        Line("its samples that are no sprite", invalid, lost, "reconstructions", invalid - lost,
             0.1),
        Line("evenly chosen codes that are one", found["uniform_valid"], None, "",
             found["uniform_valid"], 0.01),
    ]  # fmt: skip


def _prior(settings: Settings, preset: Any, codes: Path, name: str) -> dict[str, float]:
    """Result of a prior of these codes."""
    from generative.training.run import read_result
    from scripts import train_code_prior

    args = replace(preset, out=settings.work / name, codes=codes, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=4, num_samples=2, score_samples=4)
    train_code_prior.main(args)
    return read_result(args.out)


def _distinct(what: str, distinct: int, count: int) -> Line:
    """Images that do not have codes of their own."""
    equal = count - distinct
    return Line(f"{what} of {count:,} whose codes are not their own", equal, 0, "none", equal, 0.5)


def _nats(what: str, found: dict[str, float], count: int, bar: float = 0.01) -> Line:
    """Nats of a prior, and how far they are above the floor, as a share of it."""
    nats, floor = found["test_nll"], math.log(count)
    return Line(f"{what}, gap as a share", nats, floor, f"ln {count:,}", nats / floor - 1, bar)


CERTIFICATES = {
    "vqvae-scenes": Certificate("VQ-VAE, PixelCNN prior", vqvae_scenes, 10),
    "vqgan-sprites": Certificate("VQ-GAN, Transformer prior", vqgan_sprites, 10),
    "vit-vqgan-sprites": Certificate("ViT VQ-GAN, Transformer prior", vit_vqgan_sprites, 10),
}
