"""VAE-GAN, tiny."""

from __future__ import annotations

from generative.vae_gan import VAEGANConfig, VAEGANLearner, VAEGANLossConfig
from tests.generative.families.common import Family, pictures, wrong_images

FAMILIES = {
    "VAEGAN": Family(
        make=lambda: VAEGANConfig((3, 16, 16), 8, (8, 16), critic_widths=(8, 16)).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: VAEGANLearner(
            model, VAEGANLossConfig(lr=5e-3, critic_lr=5e-3, pixels=0.1, beta=0.01), steps
        ),
        logged="mse",
        below=0.03,
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_vae_gan",
        loss=lambda model, x: model.loss(x).loss + model.heights(x).mean(),
    ),
}
