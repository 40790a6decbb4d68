"""The VAE, tiny."""

from __future__ import annotations

from torch import Tensor

from generative.vae import ConvVAE, ConvVAEConfig, VAELearner, VAELossConfig, vae_loss
from tests.generative.families.common import (
    Family,
    pictures,
    recorded_frames,
    to_frames,
    wrong_images,
)


def conv_vae_loss(model: ConvVAE, x: Tensor) -> Tensor:
    recon, mu, logvar = model(x)
    return vae_loss(recon, x, mu, logvar, free_bits=0.0).loss


FAMILIES = {
    "ConvVAE": Family(
        make=lambda: ConvVAE(ConvVAEConfig(8, (8, 16, 32, 32))),
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
        capabilities=frozenset({"loss", "sample", "encode", "decode", "reconstruct"}),
        loss=conv_vae_loss,
        to_batch=to_frames,
    ),
}  # fmt: skip
