"""Flows, tiny."""

from __future__ import annotations

import torch

from generative.flow import (
    FFJORDConfig,
    FFJORDLearner,
    FlowLearner,
    FlowLossConfig,
    GlowConfig,
    ImageRealNVPConfig,
    RealNVPConfig,
)
from tests.generative.families.common import Family, grey_levels, points, wrong_images

FAMILIES = {
    "RealNVP": Family(
        make=lambda: RealNVPConfig(num_couplings=4, hidden_dim=16, num_hidden=2).build(),
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
        make=lambda: RealNVPConfig(
                coupling="spline", num_couplings=4, hidden_dim=16, num_hidden=1, num_bins=8,
                num_waves=2, actnorm=True, activation="silu",
            ).build(),
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
        make=lambda: ImageRealNVPConfig(
                RealNVPConfig(
                    (1, 4, 4), ("checkerboard", "rows"), coupling="spline", num_couplings=4,
                    hidden_dim=32, num_hidden=1, num_bins=8, actnorm=True,
                ),
                levels=5,
            ).build(),
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
    "Glow": Family(
        make=GlowConfig(
            (1, 4, 4), num_scales=2, num_steps=2, hidden_dim=16, levels=5
        ).build,
        examples=grey_levels,
        learner=lambda model, steps: FlowLearner(
            model, FlowLossConfig(lr=1e-2, final_lr=1e-3, clip=50.0), steps
        ),
        logged="bits_per_dim",
        below=1.5,
        steps=150,
        wrong=(*wrong_images(1, 4), (torch.full((1, 1, 4, 4), 0.3), "multiples of 1/4")),
        sample_range=(0.0, 1.0),
        script="train_glow",
    ),
    "multi-scale RealNVP": Family(
        make=lambda: GlowConfig(
                (1, 4, 4), num_scales=1, num_steps=2, mixing="reverse", checkerboard=2,
                coupling="spline", num_bins=4, hidden_dim=8, num_blocks=1, learnt_prior=False,
                levels=5, margin=0.05,
            ).build(),
        examples=grey_levels,
        learner=lambda model, steps: FlowLearner(
            model, FlowLossConfig(lr=1e-2, final_lr=1e-3, clip=50.0), steps
        ),
        logged="bits_per_dim",
        below=1.5,
        steps=100,
        wrong=wrong_images(1, 4),
        sample_range=(0.0, 1.0),
    ),
    "FFJORD": Family(
        make=FFJORDConfig(hidden_dim=16, num_hidden=2, num_steps=3, fine_steps=3).build,
        examples=points,
        learner=lambda model, steps: FFJORDLearner(
            model, FlowLossConfig(lr=2e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=1.5,  # 2.8 nats for a standard normal
        steps=100,
        wrong=(
            (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
            (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
        ),
        sample_range=(-100.0, 100.0),
        script="train_ffjord",
    ),
}  # fmt: skip
