"""The model families with tiny settings, for the tests that hold for all of them.

A new family adds an entry here; `test_families.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generative.autoencoder import (
    AutoencoderLearner,
    AutoencoderLossConfig,
    ConvAutoencoder,
    ConvAutoencoderConfig,
    LinearAutoencoder,
    LinearAutoencoderConfig,
)
from generative.realnvp import (
    FlowLearner,
    FlowLossConfig,
    ImageRealNVP,
    ImageRealNVPConfig,
    RealNVP,
    RealNVPConfig,
)
from generative.vae import ConvVAE, ConvVAEConfig, VAELearner, VAELossConfig, vae_loss

VOCABULARY = {"loss", "sample", "log_prob", "bound", "encode", "decode", "reconstruct"}
"""Everything that a family may declare in `capabilities`."""


@dataclass(frozen=True)
class Family:
    """A family as the shared tests need it.

    Args:
        make: the tiny model.
        examples: n examples as the model takes them.
        learner: what trains it in so many steps, and how it takes the examples.
        logged, below: the value of `update` that shows it overfits eight examples, and what it has
            to come below within `steps`.
        wrong: input that is refused, and words of the answer.
        sample_range: smallest and largest value of a sample.
        script, words: command that trains it, and what to tell it besides `smoke` and `--out`;
            words may first prepare files in a folder.
    """

    make: Callable[[], nn.Module]
    examples: Callable[[int], Tensor]
    learner: Callable[[Any, int], Any]
    logged: str
    below: float
    steps: int
    wrong: tuple[tuple[Tensor, str], ...]
    sample_range: tuple[float, float] | None = None
    script: str | None = None
    words: Callable[[Path], tuple[object, ...]] = lambda folder: ()
    capabilities: frozenset[str] = frozenset()
    """Of a family that does not declare its own yet."""
    loss: Callable[[Any, Tensor], Tensor] = lambda model, x: model.loss(x).loss
    to_batch: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    """Examples -> what the learner's update takes."""


def pictures(c: int, side: int) -> Callable[[int], Tensor]:
    """Images of bright squares on dark ground at different places."""

    def make(n: int) -> Tensor:
        x = torch.full((n, c, side, side), 0.1)
        for i in range(n):
            row, column = (3 * i) % (side // 2), (5 * i) % (side // 2)
            x[i, i % c, row : row + side // 2, column : column + side // 2] = 0.9
        return x

    return make


def grey_levels(n: int) -> Tensor:
    """4x4 images of five levels."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(5, size=(n, 1, 4, 4)) / 4).float()


def points(n: int) -> Tensor:
    """Points in the plane."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 2))).float()


def wrong_images(c: int, side: int) -> tuple[tuple[Tensor, str], ...]:
    """What no model of such images takes."""
    good = torch.full((2, c, side, side), 0.5)
    return (
        (good[:, :, 1:], rf"\(2, {c}, {side - 1}, {side}\).*\(B, {c}, {side}, {side}\)"),
        (good.byte(), r"uint8.*float"),
        (255 * good, r"127\.5.*\[0, 1\]"),
    )


def recorded_frames(folder: Path) -> tuple[object, ...]:
    """Two short episodes in folder, and the words that name them."""
    from worldmodels.rollouts import Episode, RolloutStore

    store = RolloutStore(folder / "episodes")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        store.append(
            Episode(
                frames=rng.integers(256, size=(9, 64, 64, 3), dtype=np.uint8),
                actions=np.zeros((8, 3), np.float32),
                rewards=np.zeros(8, np.float32),
                terminated=np.zeros(8, bool),
            )
        )
    return ("--rollouts", folder / "episodes", "--steps", 101)


def to_frames(x: Tensor) -> Tensor:
    """float (B, C, H, W) in [0, 1] -> uint8 (B, H, W, C)."""
    return x.mul(255).round().byte().movedim(1, -1)


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
    "ConvAutoencoder": Family(
        make=lambda: ConvAutoencoder(ConvAutoencoderConfig((3, 16, 16), 4, (8, 16))),
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
        make=lambda: LinearAutoencoder(LinearAutoencoderConfig((1, 8, 8), 8)),
        examples=pictures(1, 8),
        learner=lambda model, steps: AutoencoderLearner(
            model, AutoencoderLossConfig("mse", lr=2e-2, final_lr=1e-3), steps
        ),
        logged="mse",
        below=0.001,
        steps=200,
        wrong=wrong_images(1, 8),
    ),
    "RealNVP": Family(
        make=lambda: RealNVP(RealNVPConfig(num_couplings=4, hidden_dim=16, num_hidden=2)),
        examples=points,
        learner=lambda model, steps: FlowLearner(
            model, FlowLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.5,  # 2.8 nats for a standard normal
        steps=150,
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        script="train_realnvp",
    ),
    "spline flow": Family(
        make=lambda: RealNVP(
            RealNVPConfig(
                coupling="spline", num_couplings=4, hidden_dim=16, num_hidden=1, num_bins=8,
                num_waves=2, actnorm=True, activation="silu",
            )
        ),
        examples=points,
        learner=lambda model, steps: FlowLearner(
            model, FlowLossConfig(lr=1e-2, final_lr=1e-3, clip=1.0, ema=0.9), steps
        ),
        logged="loss",
        below=0.5,
        steps=150,
        wrong=((torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),),
        sample_range=(-100.0, 100.0),
    ),
    "ImageRealNVP": Family(
        make=lambda: ImageRealNVP(
            ImageRealNVPConfig(
                RealNVPConfig(
                    (1, 4, 4), ("checkerboard", "rows"), coupling="spline", num_couplings=4,
                    hidden_dim=32, num_hidden=1, num_bins=8, actnorm=True,
                ),
                levels=5,
            )
        ),
        examples=grey_levels,
        learner=lambda model, steps: FlowLearner(
            model, FlowLossConfig(lr=1e-2, final_lr=1e-3, clip=1.0), steps
        ),
        logged="bits_per_dim",
        below=1.2,  # log2(5) = 2.32 for a uniform density, log2(8) / 16 = 0.19 for the eight
        steps=200,
        wrong=(*wrong_images(1, 4), (torch.full((1, 1, 4, 4), 0.3), "multiples of 1/4")),
        sample_range=(0.0, 1.0),
    ),
}  # fmt: skip
