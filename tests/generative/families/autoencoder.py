"""Autoencoders, tiny."""

from __future__ import annotations

from generative.autoencoder import (
    AutoencoderLearner,
    AutoencoderLossConfig,
    ConvAutoencoderConfig,
    LinearAutoencoderConfig,
)
from tests.generative.families.common import Family, pictures, wrong_images

FAMILIES = {
    "ConvAutoencoder": Family(
        make=lambda: ConvAutoencoderConfig((3, 16, 16), 4, (8, 16)).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: AutoencoderLearner(
            model, AutoencoderLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="mse",
        below=0.005,
        steps=150,
        wrong=wrong_images(3, 16),
        script="train_autoencoder",
    ),
    "LinearAutoencoder": Family(
        make=lambda: LinearAutoencoderConfig((1, 8, 8), 8).build(),
        examples=pictures(1, 8),
        learner=lambda model, steps: AutoencoderLearner(
            model, AutoencoderLossConfig("mse", lr=2e-2, final_lr=1e-3), steps
        ),
        logged="mse",
        below=0.001,
        steps=200,
        wrong=wrong_images(1, 8),
    ),
}  # fmt: skip
