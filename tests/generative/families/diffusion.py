"""Diffusion models, tiny."""

from __future__ import annotations

from dataclasses import replace

import torch

from generative.diffusion import (
    DiffusionLearner,
    DiffusionLossConfig,
    EDMLearner,
    EDMLossConfig,
    ImageDiffusionConfig,
    ImageEDMConfig,
    PointDiffusionConfig,
    PointEDMConfig,
    ScheduleConfig,
    UNetConfig,
)
from generative.diffusion.config import DIFFUSION_BOOK
from generative.nets.config import UNET_BOOK, ConditionedMLPConfig, DiTConfig
from tests.generative.families.common import Family, pictures, points, wrong_images

FAMILIES = {
    "PointDiffusion": Family(
        make=PointDiffusionConfig(hidden_dim=32, num_hidden=2, steps=10, ode_steps=40).build,
        examples=points,
        learner=lambda model, steps: DiffusionLearner(
            model,
            DiffusionLossConfig(weighting="noise", lr=1e-2, final_lr=1e-3, clip=0.0, ema=0.9),
            steps,
        ),
        logged="loss",
        below=0.24,  # 0.28 for standard normal data
        steps=150,
        to_batch=lambda x: x.repeat(32, 1),
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        without=frozenset({"bound"}),
        # What is trained on is not the likelihood; the test of its gradients is a family's own.
        loss=lambda model, x: -model.log_prob(x).mean(),
    ),
    "ImageDiffusion": Family(
        make=ImageDiffusionConfig(
            (3, 8, 8), replace(UNET_BOOK, channels=(8, 16), depth=1), steps=4, levels=11
        ).build,
        examples=pictures(3, 8),
        learner=lambda model, steps: DiffusionLearner(
            model, replace(DIFFUSION_BOOK, lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="noise_mae",
        below=0.3,  # 0.8 where no noise is found
        steps=150,
        wrong=wrong_images(3, 8),
        sample_range=(0.0, 1.0),
        without=frozenset({"log_prob"}),
        script="train_diffusion",
    ),
    "corrected ImageDiffusion": Family(
        make=lambda: ImageDiffusionConfig(
                (1, 8, 8),
                UNetConfig((8, 16), depth=1, attention=(1,)),
                ScheduleConfig(max_signal=0.999),
                "velocity",
                steps=4,
                levels=11,
            ).build(),
        examples=pictures(1, 8),
        learner=lambda model, steps: DiffusionLearner(
            model, DiffusionLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="noise_mse",
        below=0.35,
        steps=150,
        wrong=wrong_images(1, 8),
        sample_range=(0.0, 1.0),
        without=frozenset({"log_prob"}),
    ),
    "ImageDiffusion with a DiT": Family(
        make=lambda: ImageDiffusionConfig(
                (1, 8, 8),
                DiTConfig(patch=2, dim=16, num_layers=2, num_heads=2),
                ScheduleConfig(max_signal=0.999),
                "velocity",
                steps=4,
                levels=11,
            ).build(),
        examples=pictures(1, 8),
        learner=lambda model, steps: DiffusionLearner(
            model, DiffusionLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="noise_mse",
        below=0.35,
        steps=150,
        wrong=wrong_images(1, 8),
        sample_range=(0.0, 1.0),
        without=frozenset({"log_prob"}),
    ),
    "PointEDM": Family(
        make=PointEDMConfig(
            network=ConditionedMLPConfig(hidden_dim=32, num_hidden=2), steps=6, ode_steps=40
        ).build,
        examples=points,
        learner=lambda model, steps: EDMLearner(
            model, EDMLossConfig(lr=1e-2, final_lr=1e-3, clip=0.0, ema=0.9), steps
        ),
        logged="loss",
        below=0.9,
        steps=150,
        to_batch=lambda x: x.repeat(32, 1),
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-1000.0, 1000.0),
        # What is trained on is not the likelihood; the test of its gradients is a family's own.
        loss=lambda model, x: -model.log_prob(x).mean(),
    ),
    "ImageEDM": Family(
        make=ImageEDMConfig(
            (3, 8, 8), UNetConfig((8, 16), depth=1), steps=3, ode_steps=3
        ).build,
        examples=pictures(3, 8),
        learner=lambda model, steps: EDMLearner(
            model, EDMLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="loss",
        below=0.6,
        steps=150,
        wrong=wrong_images(3, 8),
        sample_range=(0.0, 1.0),
        without=frozenset({"log_prob"}),
    ),
}  # fmt: skip
