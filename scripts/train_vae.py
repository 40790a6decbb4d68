"""Train V, the variational autoencoder, on recorded frames."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.vision import QUICK_VAE, train_vae
from agents.rounds.vision import VAETraining as Args
from generative.training.cli import start
from generative.training.settings import recast
from generative.vae.config import ConvVAEConfig

PRESETS = {
    "paper": Args(),
    "quick": recast(Args, QUICK_VAE),
    "smoke": Args(model=ConvVAEConfig(channels=(4, 4, 8, 8)), steps=5, batch_size=8),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained V."""
    return train_vae(args)


if __name__ == "__main__":
    start(main, PRESETS)
