"""GANs, tiny. That they overfit is told by the energy coefficient of what they make."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.gan import (
    ConditionalGANConfig,
    GANConfig,
    GANLearner,
    GANLossConfig,
    WGANConfig,
    WGANLearner,
    WGANLossConfig,
)
from tests.generative.families.common import Family, pictures, points, wrong_images

PAIRS = GANLossConfig(
    objective="relativistic", r1=0.3, r2=0.3, lr=4e-3, critic_lr=4e-3, lr_end=0.1, beta1=0.0,
    beta2=0.9, ema=0.9,
)  # fmt: skip


def with_labels(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.arange(len(x)) % 3


def height(model, x: Tensor) -> Tensor:
    """GANs have no single loss; wrong input is told so by the score."""
    return model.heights(x).mean()


FAMILIES = {
    "GAN": Family(
        make=lambda: GANConfig((3, 16, 16), 8, (8, 16), dropout=0.0, spectral_norm=True).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: GANLearner(
            model,
            GANLossConfig(
                noise_direction="inward", clip=0.0, lr=4e-3, critic_lr=4e-3, lr_end=0.1
            ),
            steps,
        ),
        logged="energy",
        below=0.25,
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_gan",
        loss=height,
    ),
    "GAN of points": Family(
        make=lambda: GANConfig(
                (2,), 2, (32, 32), batch_norm="none", bias=True, dropout=0.0, num_waves=3
            ).build(),
        examples=points,
        learner=lambda model, steps: GANLearner(model, PAIRS, steps),
        logged="energy",
        below=0.0,  # what fresh draws of the examples have on average, or less where there are few
        steps=200,
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        loss=height,
    ),
    "WGAN": Family(
        make=lambda: WGANConfig((3, 16, 16), 8, (8, 16), batch_norm="none", dropout=0.0).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: WGANLearner(
            model,
            WGANLossConfig(
                alpha="uniform", norm_eps=1e-12, lr=4e-3, critic_lr=4e-3, lr_end=0.1, ema=0.9
            ),
            steps,
        ),
        logged="energy",
        below=0.25,
        steps=100,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_wgan",
        loss=height,
    ),
    "ConditionalGAN": Family(
        make=lambda: ConditionalGANConfig(
                (3, 16, 16), 8, (8, 16), batch_norm="none", dropout=0.0, num_classes=3,
                conditioning="projection",
            ).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: GANLearner(model, PAIRS, steps),
        logged="energy",
        below=0.25,
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_conditional_gan",
        loss=lambda model, x: model.heights(x, torch.zeros(len(x), dtype=torch.int64)).mean(),
        to_batch=with_labels,
    ),
}  # fmt: skip
