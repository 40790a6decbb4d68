"""Train a StyleGAN2: modulated weights, no growth, even path lengths in the space of styles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from generative.stylegan.config import STYLEGAN2, StyleGAN2Config, StyleGANLossConfig
from generative.training.cli import start
from generative.training.ranges import Folder
from scripts import train_progan
from scripts.train_conditional_gan import OF_SPRITES, projected_by
from scripts.train_stylegan import styled


@dataclass(frozen=True)
class Args(train_progan.Args):
    """Train a StyleGAN2: modulated weights, no growth, even path lengths in the space of styles."""

    out: Folder = Path("runs/stylegan2")
    model: StyleGAN2Config = field(default_factory=StyleGAN2Config)
    loss: StyleGANLossConfig = STYLEGAN2

    def __post_init__(self) -> None:
        if self.loss.phase_images:
            raise ValueError(
                f"loss.phase_images is {self.loss.phase_images}; a StyleGAN2 does not grow: give "
                "0, or train with train_stylegan or train_progan, whose networks do"
            )
        super().__post_init__()


DEFAULT_PRESET = "sprites"
CELEBA = StyleGAN2Config((3, 64, 64), 256, 8192, 256, style_dim=256)
# Few steps: the layers that map z to w learn faster than published.
SPRITES = StyleGAN2Config((3, 32, 32), 32, 128, 64, style_dim=64, mapping_layers=2, mapping_lr=0.1)
SPRITES_PAIRS = Args(
    data="sprites",
    model=SPRITES,
    loss=styled(train_progan.PAIRS, phase_images=0, penalty_end=1.0, path_weight=2.0),
    steps=1800,
    batch_size=32,
    picture_every=300,
)
PRESETS = {
    "paper": Args(data="folder"),
    "paper-half": Args(data="folder", model=StyleGAN2Config(channel_base=16_384)),
    "book": Args(
        model=CELEBA,
        loss=replace(
            STYLEGAN2, objective="wasserstein", gradient_penalty=10.0, drift=1e-3, r1=0.0,
            path_every=16, mixing_kind="layers",
        ),
        steps=62_500,
        batch_size=32,
    ),
    "celeba": Args(model=CELEBA, loss=STYLEGAN2, steps=62_500, batch_size=32),
    "sprites": Args(
        data="sprites",
        model=replace(
            SPRITES, channel_base=512, projected=projected_by((3, 32, 32), 16, 32, 64, 64)
        ),
        features=OF_SPRITES,
        # Weights that are scaled where they are used need a higher rate to keep up with the heads.
        loss=StyleGANLossConfig(
            phase_images=0, objective="hinge", r1=0.0, lr=1e-2, critic_lr=2e-3, lr_end=0.05,
            ema=0.998, mixing=0.5, path_weight=2.0,
        ),
        steps=5000,
        batch_size=64,
        picture_every=300,
    ),
    "sprites-pairs": SPRITES_PAIRS,
    "fashion": replace(
        SPRITES_PAIRS, data="fashion-mnist", model=replace(SPRITES_PAIRS.model, shape=(1, 32, 32))
    ),
    "smoke": Args(
        data="sprites",
        model=StyleGAN2Config((3, 32, 32), 8, 128, 8, style_dim=8, mapping_layers=2),
        loss=replace(STYLEGAN2, penalty_every=4, path_every=4),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    from generative.stylegan import StyleGANLearner

    return train_progan.train(args, "train_stylegan2", StyleGANLearner)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
