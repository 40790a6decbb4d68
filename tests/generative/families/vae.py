"""VAEs, tiny."""

from __future__ import annotations

from generative.vae import (
    ConvVAEConfig,
    ImageVAEConfig,
    ImageVAELearner,
    ImageVAELossConfig,
    LinearVAE,
    LinearVAEConfig,
    VAELearner,
    VAELossConfig,
)
from tests.generative.families.common import (
    Family,
    pictures,
    recorded_frames,
    to_frames,
    wrong_images,
)

FAMILIES = {
    "ConvVAE": Family(
        make=lambda: ConvVAEConfig(8, (8, 16, 32, 32)).build(),
        examples=pictures(3, 64),
        learner=lambda model, steps: VAELearner(
            model, VAELossConfig(lr=5e-3, final_lr=5e-4), steps
        ),
        logged="recon",
        below=800.0,  # 948 where all reconstructions are alike
        steps=150,
        wrong=wrong_images(3, 64)[:2],
        sample_range=(0.0, 1.0),
        script="train_vae",
        words=recorded_frames,
        to_batch=to_frames,
    ),
    "ImageVAE": Family(
        make=ImageVAEConfig(
            (3, 16, 16), 4, (8, 16), batch_norm=True, likelihood="gaussian"
        ).build,
        examples=pictures(3, 16),
        learner=lambda model, steps: ImageVAELearner(
            model, ImageVAELossConfig(lr=1e-2, final_lr=1e-3, free_bits=0.1, ema=0.9), steps
        ),
        logged="recon",
        below=0.0,  # 768 * (log(2 pi e) / 2 + log 0.3) = 165 for the best constant image
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_image_vae",
    ),
    "importance-weighted VAE": Family(
        make=ImageVAEConfig(
            (1, 8, 8), 4, channels=(), hidden_dim=32, prior_components=3
        ).build,
        examples=lambda n: pictures(1, 8)(n).round(),
        learner=lambda model, steps: ImageVAELearner(
            model, ImageVAELossConfig(lr=1e-2, final_lr=1e-3, num_draws=5, warmup=20), steps
        ),
        logged="loss",
        below=8.0,  # log 8 = 2.08 nats for the eight, 64 log 2 = 44 for any image
        steps=150,
        wrong=wrong_images(1, 8),
        sample_range=(0.0, 1.0),
    ),
    "LinearVAE": Family(
        make=lambda: LinearVAE(LinearVAEConfig((1, 8, 8), 4)),
        examples=pictures(1, 8),
        learner=lambda model, steps: ImageVAELearner(
            model, ImageVAELossConfig(lr=5e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.0,  # 64 * (log(2 pi e) / 2 + log 0.35) = 24 for the best mean and variance
        steps=150,
        wrong=wrong_images(1, 8),
        sample_range=(-100.0, 100.0),
    ),
}  # fmt: skip
