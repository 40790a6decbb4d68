"""GANs with attention: objects far apart that should agree; sprites of a class, and truncation."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]

TRUNCATIONS = (2.0, 1.0, 0.5, 0.04)
"""Bounds of the noise in the book's picture of the truncation trick (figure 10-18)."""


def sagan_equal_objects(settings: Settings) -> list[Line]:
    """Share of scenes whose objects differ in colour, and whose number of objects is wrong.

    Two, three or four equal objects stand in nine cells; the number is asked for. Beside it the
    same networks with residual blocks of as many weights in place of attention.
    """
    from generative.attention_gan import AttentionGAN
    from scripts import train_attention_gan

    found = {}
    for kind in ("pooled", "residual"):
        args = train_attention_gan.PRESETS["objects"]
        model = replace(args.model, attention=kind)
        args = replace(args, out=settings.work / kind, seed=settings.seed, model=model)
        if settings.smoke:
            small = replace(model, widths=(8,) * len(model.widths))
            features = replace(args.features, steps=3)
            args = replace(args, steps=3, batch_size=8, model=small, features=features)
        gan = AttentionGAN.from_pretrained(train_attention_gan.main(args))
        num = 300 if settings.smoke else 6000
        found[kind] = train_attention_gan.objects_of(gan, num, settings.seed)
    lines = []
    for what, name in (("objects of unequal colour", "colours"), ("wrong number", "count")):
        wrong, without = (1 - getattr(found[kind], name) for kind in ("pooled", "residual"))
        share = wrong / max(without, 1e-9)
        lines.append(
            Line(f"scenes with {what}, as a share of those without attention", wrong, without,
                 "without attention", share, 0.5)
        )  # fmt: skip
    rejected, without = (1 - found[kind].valid for kind in ("pooled", "residual"))
    return [
        *lines,
        Line("scenes with a cell that is no object", rejected, without, "without attention",
             rejected, 0.5),
    ]  # fmt: skip


def biggan_sprites(settings: Settings) -> list[Line]:
    """Share of sprites of another class than asked for, and what truncation does to it.

    Each sample is the sprite that it is nearest to; its class is the shape and colour. Truncated
    samples are made with batch statistics of their own. Coverage is the share of all sprites that
    some sample is nearest to.
    """
    import math

    import numpy as np
    import torch

    from generative.attention_gan import AttentionGAN
    from generative.gan import coverage
    from scripts import train_attention_gan
    from scripts.common.images import classes_of, load_images

    args = train_attention_gan.PRESETS["sprites"]
    args = replace(args, out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=8, features=replace(args.features, steps=3))
    gan = AttentionGAN.from_pretrained(train_attention_gan.main(args))
    c, height, width = gan.shape
    everything = load_images("sprites", args.data_dir, (c, height, width))
    classes = classes_of(everything, args.label, gan.num_classes)
    num = 96 if settings.smoke else 9600
    right, covered = [], []
    for truncation in (None, *TRUNCATIONS):
        generator = torch.Generator().manual_seed(settings.seed)
        model = gan if truncation is None else gan.standing(truncation, generator)
        parts = [model.sample(96, generator, None, truncation) for _ in range(0, num, 96)]
        near = coverage(torch.cat(parts), everything, within=math.inf)
        asked = np.arange(num) % 96 % gan.num_classes
        right.append(float((classes[near.index.numpy()] == asked).mean()))
        covered.append(near.recall)
    shown = ", ".join(f"{c:g}" for c in TRUNCATIONS)
    fall = max(a - b for a, b in pairwise(right[1:]))
    rise = max(b - a for a, b in pairwise(covered[1:]))
    return [
        Line("samples of another class", 1 - right[0], 0.0, "none", 1 - right[0], 0.02),
        Line(f"largest fall of the share of the class asked for over c = {shown}", fall, 0.0,
             "no fall", fall, 0.001),
        Line(f"largest rise of the share of sprites reached over c = {shown}", rise, 0.0,
             "no rise", rise, 0.001),
        Line("sprites reached at c = 0.04, as a share of those at 2", covered[-1], covered[1],
             "c = 2", covered[-1] / covered[1], 0.5),
        Line("sprites that no sample is nearest to", 1 - covered[0],
             math.exp(num * math.log1p(-1 / len(everything))), "even draws", 1 - covered[0], 0.27),
    ]  # fmt: skip


CERTIFICATES = {
    "sagan-equal-objects": Certificate("SAGAN", sagan_equal_objects, 10),
    "biggan-sprites": Certificate("BigGAN", biggan_sprites, 10),
}
