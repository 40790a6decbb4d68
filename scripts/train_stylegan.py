"""Train a StyleGAN: a generator that grows and has a style and noise in every layer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from generative.stylegan.config import BOOK, ProGANLossConfig, StyleGANConfig, StyleGANLossConfig
from generative.training.cli import start
from generative.training.ranges import Folder
from scripts import train_progan
from scripts.train_conditional_gan import OF_SPRITES, projected_by


@dataclass(frozen=True)
class Args(train_progan.Args):
    """Train a StyleGAN: a generator that grows and has a style and noise in every layer."""

    out: Folder = Path("runs/stylegan")
    model: StyleGANConfig = field(default_factory=StyleGANConfig)
    loss: StyleGANLossConfig = field(default_factory=StyleGANLossConfig)


def styled(loss: ProGANLossConfig, **changes: object) -> StyleGANLossConfig:
    """Settings of a GAN that grows, for one with styles."""
    shared = {f.name: getattr(loss, f.name) for f in fields(loss)}
    return StyleGANLossConfig(**shared | changes)  # type: ignore[arg-type]


DEFAULT_PRESET = "sprites"
CELEBA = StyleGANConfig((3, 64, 64), 256, 8192, 256, style_dim=256)
SPRITES_PAIRS = Args(
    data="sprites",
    model=StyleGANConfig((3, 32, 32), 32, 256, 64, style_dim=64, mapping_layers=4),
    loss=styled(train_progan.PAIRS),
    steps=4200,
    picture_every=600,
)
PRESETS = {
    "paper": Args(data="folder"),
    "book": Args(
        model=CELEBA,
        loss=replace(BOOK, phase_images=200_000),
        steps=28_125,
        batch_size=64,
    ),
    "celeba": Args(
        model=CELEBA,
        loss=StyleGANLossConfig(phase_images=200_000),
        steps=28_125,
        batch_size=64,
    ),
    "sprites": Args(
        data="sprites",
        model=StyleGANConfig(
            (3, 32, 32),
            32,
            512,
            64,
            style_dim=64,
            mapping_layers=2,
            mapping_lr=0.1,
            projected=projected_by((3, 32, 32), 16, 32, 64, 64, std_group=8),
        ),
        features=OF_SPRITES,
        loss=styled(train_progan.PRESETS["sprites"].loss, mixing=0.5),
        steps=3500,
        batch_size=64,
        picture_every=500,
    ),
    "sprites-pairs": SPRITES_PAIRS,
    "fashion": replace(
        SPRITES_PAIRS, data="fashion-mnist", model=replace(SPRITES_PAIRS.model, shape=(1, 32, 32))
    ),
    "smoke": Args(
        data="sprites",
        model=StyleGANConfig((3, 32, 32), 8, 128, 8, style_dim=8, mapping_layers=2),
        loss=StyleGANLossConfig(phase_images=16),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    from generative.stylegan import StyleGANLearner

    return train_progan.train(args, "train_stylegan", StyleGANLearner)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
