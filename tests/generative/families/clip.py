"""CLIP, tiny: a Vision Transformer or convolutions beside a text encoder, and both objectives."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.clip import (
    CLIPBatch,
    CLIPConfig,
    CLIPLearner,
    CLIPLossConfig,
    ConvImageConfig,
    TextEncoderConfig,
    clip_block,
    clip_vit,
)
from tests.generative.families.common import Family, pictures, wrong_images

VIT = clip_vit((3, 16, 16), 8, 1, 16, 2)
TEXT = TextEncoderConfig(20, 8, 1, clip_block(16, 2))


def captions(n: int) -> Tensor:
    """A caption of two words for each of n images; the images of `pictures` differ as well."""
    rows = torch.zeros(n, 6, dtype=torch.int64)
    rows[:, 0] = 2
    rows[:, 1] = 4 + torch.arange(n) % 3
    rows[:, 2] = 7 + torch.arange(n)
    rows[:, 3] = 3
    return rows


def to_batch(x: Tensor) -> CLIPBatch:
    return CLIPBatch(x, captions(len(x)))


def clip(config: CLIPConfig, script: str | None = None, below: float = 0.6) -> Family:
    return Family(
        make=config.build,
        examples=pictures(3, 16),
        learner=lambda model, steps: CLIPLearner(
            model, CLIPLossConfig(lr=4e-3, final_lr=1e-3, clip=1.0, ema=0.5), steps
        ),
        logged="loss",
        below=below,
        steps=150,
        wrong=wrong_images(3, 16),
        script=script,
        loss=lambda model, x: model.loss(x, captions(len(x))).loss,
        to_batch=to_batch,
    )


FAMILIES = {
    "CLIP": clip(CLIPConfig(VIT, TEXT, 16), script="train_clip"),
    "CLIP, convolutions": clip(CLIPConfig(ConvImageConfig((3, 16, 16), (8, 16), 2), TEXT, 16)),
    "CLIP, sigmoid": clip(CLIPConfig(VIT, TEXT, 16, "sigmoid", 10.0), below=2.0),
}
