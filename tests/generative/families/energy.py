"""Energy-based models, Boltzmann machines and score networks, tiny."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from generative.energy import (
    ConvEnergyConfig,
    EnergyLearner,
    LangevinConfig,
    PointEnergyConfig,
)
from generative.energy.config import ENERGY_BOOK
from generative.rbm import (
    RBM,
    BoltzmannConfig,
    BoltzmannLearner,
    BoltzmannMachine,
    DBNConfig,
    DBNLearner,
    DeepBeliefNetwork,
    RBMConfig,
    RBMLossConfig,
)
from generative.score_matching import ScoreConfig, ScoreLearner, ScoreLossConfig
from tests.generative.families.common import Family, pictures, points, wrong_images


def bits(*shape: int):
    """n examples of random bits."""

    def make(n: int) -> Tensor:
        rng = np.random.default_rng(0)
        return torch.from_numpy(rng.integers(2, size=(n, *shape))).float()

    return make


def negative_log_prob(model, x: Tensor) -> Tensor:
    return -model.log_prob(x).mean()


WRONG_BITS = (
    (torch.zeros(2, 1, 3, 4), r"\(2, 1, 3, 4\).*\(B, 1, 4, 4\)"),
    (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), r"uint8.*float"),
    (torch.full((2, 1, 4, 4), 0.5), r"not bits.*x >= 0.5"),
)

FAMILIES = {
    "ConvEnergy": Family(
        make=lambda: ConvEnergyConfig((1, 8, 8), (8, 16), 16, LangevinConfig(steps=5)).build(),
        examples=pictures(1, 8),
        learner=lambda model, steps: EnergyLearner(
            model,
            replace(
                ENERGY_BOOK, langevin=LangevinConfig(steps=1, step_size=0.1), buffer_size=32,
                fresh=0.9, lr=3e-3, ema=0.9,
            ),
            steps,
        ),
        # Walks too short to come near the eight, which so are told from them.
        logged="cdiv",
        below=-1.0,
        steps=80,
        wrong=wrong_images(1, 8),
        sample_range=(0.0, 1.0),
        loss=lambda model, x: model.energy(x).mean(),
    ),
    "PointEnergy": Family(
        make=PointEnergyConfig(
            hidden_dim=16, num_hidden=1, step_size=0.5, sample_sweeps=5
        ).build,
        examples=points,
        learner=lambda model, steps: EnergyLearner(
            model,
            replace(
                ENERGY_BOOK, sampler="mala", langevin=LangevinConfig(steps=3), buffer_size=32,
                fresh=0.5, alpha=0.0, lr=1e-2,
            ),
            steps,
        ),
        # The steps of the walk, which shrink to the width of what is learned: eight spikes.
        logged="step_size",
        below=0.15,
        steps=200,
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        script="train_energy",
        loss=negative_log_prob,
    ),
    "RBM": Family(
        make=lambda: RBM(RBMConfig((1, 4, 4), hidden_dim=12, sample_steps=5)),
        examples=bits(1, 4, 4),
        learner=lambda model, steps: BoltzmannLearner(
            model, RBMLossConfig("pcd", num_chains=50, optimizer="adam", lr=0.05), steps
        ),
        logged="reconstruction",
        below=0.1,  # 0.25 where all bits are equally likely
        steps=200,
        wrong=WRONG_BITS,
        sample_range=(0.0, 1.0),
        script="train_rbm",
        loss=negative_log_prob,
    ),
    "tempered RBM": Family(
        make=lambda: RBM(RBMConfig((1, 4, 4), hidden_dim=12, sample_steps=5)),
        examples=bits(1, 4, 4),
        learner=lambda model, steps: BoltzmannLearner(
            model,
            RBMLossConfig(
                "pcd", num_chains=20, num_temperatures=4, optimizer="adam", lr=0.05, ema=0.9
            ),
            steps,
        ),
        logged="reconstruction",
        below=0.1,
        steps=200,
        wrong=WRONG_BITS,
        sample_range=(0.0, 1.0),
        loss=negative_log_prob,
    ),
    "BoltzmannMachine": Family(
        make=lambda: BoltzmannMachine(BoltzmannConfig((6,), hidden_dim=3, sample_steps=3)),
        examples=bits(6),
        learner=lambda model, steps: BoltzmannLearner(
            model, RBMLossConfig("exact", optimizer="adam", lr=0.1), steps
        ),
        logged="loss",
        below=2.3,  # 4.16 for random bits, log 8 = 2.08 for the eight
        steps=150,
        wrong=(
            (torch.zeros(2, 5), r"\(2, 5\).*\(B, 6\)"),
            (torch.full((2, 6), 0.5), "not bits"),
        ),
        sample_range=(0.0, 1.0),
        loss=negative_log_prob,
    ),
    "DeepBeliefNetwork": Family(
        make=lambda: DeepBeliefNetwork(DBNConfig((1, 4, 4), (16, 12), sample_steps=5)),
        examples=bits(1, 4, 4),
        learner=lambda model, steps: DBNLearner(
            model, RBMLossConfig("cd", optimizer="adam", lr=0.05, ema=0.9), steps
        ),
        logged="reconstruction",
        below=0.15,
        steps=300,
        wrong=WRONG_BITS,
        sample_range=(0.0, 1.0),
        loss=lambda model, x: model.encode(x).mean(),
    ),
    "ScoreNetwork": Family(
        make=lambda: ScoreConfig(
                sigma_min=0.1, hidden_dim=32, num_hidden=2, num_levels=3, sample_steps=3
            ).build(),
        examples=points,
        learner=lambda model, steps: ScoreLearner(
            model, ScoreLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.3,  # 1/2 for the answer 0; small noise on eight points is easy to tell
        steps=200,
        to_batch=lambda x: x.repeat(32, 1),
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        script="train_score",
    ),
    "image ScoreNetwork": Family(
        make=ScoreConfig(
            (1, 8, 8), hidden_dim=8, num_hidden=1, num_levels=3, sample_steps=3
        ).build,
        examples=pictures(1, 8),
        learner=lambda model, steps: ScoreLearner(
            model, ScoreLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9, clip=1.0), steps
        ),
        logged="loss",
        below=0.25,
        steps=120,
        to_batch=lambda x: x.repeat(4, 1, 1, 1),
        wrong=wrong_images(1, 8),
        sample_range=(0.0, 1.0),
    ),
}  # fmt: skip
