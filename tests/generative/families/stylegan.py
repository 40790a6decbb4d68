"""GANs that grow and GANs with styles, tiny."""

from __future__ import annotations

from generative.stylegan import (
    ProGANConfig,
    ProGANLearner,
    ProGANLossConfig,
    StyleGAN2Config,
    StyleGANConfig,
    StyleGANLearner,
    StyleGANLossConfig,
)
from tests.generative.families.common import Family, pictures, wrong_images
from tests.generative.families.gan import height

FAST = {
    "objective": "relativistic", "gradient_penalty": 0.0, "drift": 0.0, "r1": 0.1, "r2": 0.1,
    "penalty_every": 2, "lr": 4e-3, "critic_lr": 4e-3, "lr_end": 0.1, "ema": 0.9,
}  # fmt: skip
SHARED = {
    "examples": pictures(3, 8),
    "logged": "energy",
    "wrong": wrong_images(3, 8),
    "sample_range": (0.0, 1.0),
    "loss": height,
}
FAMILIES = {
    "ProGAN": Family(
        make=lambda: ProGANConfig((3, 8, 8), 8, 128, 16).build(),
        learner=lambda model, steps: ProGANLearner(
            model, ProGANLossConfig(phase_images=80, **FAST), steps
        ),
        below=0.15,
        steps=100,
        script="train_progan",
        **SHARED,
    ),
    "StyleGAN": Family(
        make=lambda: StyleGANConfig((3, 8, 8), 8, 128, 16, style_dim=8, mapping_layers=2).build(),
        learner=lambda model, steps: StyleGANLearner(
            model, StyleGANLossConfig(phase_images=80, **FAST), steps
        ),
        below=0.15,
        steps=100,
        script="train_stylegan",
        **SHARED,
    ),
    "StyleGAN2": Family(
        make=lambda: StyleGAN2Config((3, 8, 8), 8, 128, 16, style_dim=8, mapping_layers=2).build(),
        learner=lambda model, steps: StyleGANLearner(
            model, StyleGANLossConfig(phase_images=0, path_weight=0.1, path_every=4, **FAST), steps
        ),
        below=0.15,
        steps=100,
        script="train_stylegan2",
        **SHARED,
    ),
}
