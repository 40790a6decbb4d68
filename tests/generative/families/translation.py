"""Translators, tiny: sources are edges, and the second set is the first with colours reversed."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.gan import GANLossConfig
from generative.translation import (
    CycleGANConfig,
    CycleGANLearner,
    CycleGANLossConfig,
    Pix2PixConfig,
    Pix2PixLearner,
    Pix2PixLossConfig,
    edges,
)
from tests.generative.families.common import Family, pictures, wrong_images

PAIRS = GANLossConfig(
    objective="relativistic", r1=0.3, r2=0.3, lr=4e-3, critic_lr=4e-3, lr_end=0.1, beta1=0.0,
    beta2=0.9, ema=0.9,
)  # fmt: skip
SQUARES = GANLossConfig(objective="squares", label_noise=0.0, lr=4e-3, critic_lr=4e-3, lr_end=0.1)


def heights_of_pairs(model, x: Tensor) -> Tensor:
    kind = x.dtype if x.is_floating_point() else torch.float32
    return model.heights(torch.zeros(len(x), 1, 16, 16, dtype=kind), x).mean()


def with_edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return edges(x.float()).to(x.dtype), x


FAMILIES = {
    "Pix2Pix": Family(
        make=lambda: Pix2PixConfig(
            (3, 16, 16), 1, 8, 3, num_dropout=1, critic_width=8, critic_levels=1
        ).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: Pix2PixLearner(model, Pix2PixLossConfig(PAIRS), steps),
        logged="l1",
        below=0.1,
        steps=60,
        wrong=wrong_images(3, 16),
        script="train_pix2pix",
        loss=heights_of_pairs,
        to_batch=with_edges,
    ),
    "CycleGAN": Family(
        make=lambda: CycleGANConfig((3, 16, 16), 4, 1, 8, 1).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: CycleGANLearner(
            model, CycleGANLossConfig(SQUARES, buffer_size=5), steps
        ),
        logged="cycle",
        below=0.08,
        steps=60,
        wrong=wrong_images(3, 16),
        script="train_cyclegan",
        loss=lambda model, x: model.heights(x).mean() + model.heights(x, back=True).mean(),
        to_batch=lambda x: (x, x.flip(1)),
    ),
}
