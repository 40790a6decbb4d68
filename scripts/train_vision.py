"""Train an autoencoder as V on recorded frames: its code takes the place of a VAE's z."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agents.rounds.vision import AutoencoderTraining as Args
from agents.rounds.vision import train_autoencoder
from generative.autoencoder.config import ConvAutoencoderConfig
from generative.training.cli import start

DEFAULT_PRESET = "autoencoder"
PRESETS = {
    "autoencoder": Args(),
    "denoising": Args(loss=replace(Args().loss, noise=0.1)),
    "smoke": Args(
        model=ConvAutoencoderConfig((3, 64, 64), 32, channels=(4, 4, 8, 8)), steps=5, batch_size=8
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained V."""
    return train_autoencoder(args)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
