"""Flow matching and MeanFlow, tiny."""

from __future__ import annotations

import torch

from generative.flow_matching import (
    FlowMatchingLearner,
    FlowMatchingLossConfig,
    ImageFlowMatchingConfig,
    ImageMeanFlowConfig,
    MeanFlowLearner,
    MeanFlowLossConfig,
    PointFlowMatchingConfig,
    PointMeanFlowConfig,
)
from generative.nets.config import ConditionedMLPConfig, UNetConfig
from tests.generative.families.common import Family, pictures, points, wrong_images

NETWORK = ConditionedMLPConfig(hidden_dim=32, num_hidden=2)
UNET = UNetConfig((8, 16), depth=1, attention=(1,), max_frequency=8.0)
WRONG_POINTS = (
    (torch.zeros(2, 3), r"\(2, 3\).*\(B, 2\)"),
    (torch.zeros(2, 2, dtype=torch.int64), r"int64.*float"),
)
FAMILIES = {
    "PointFlowMatching": Family(
        make=PointFlowMatchingConfig(network=NETWORK, steps=10, ode_steps=40).build,
        examples=points,
        learner=lambda model, steps: FlowMatchingLearner(
            model, FlowMatchingLossConfig(lr=1e-2, final_lr=1e-3, clip=0.0, ema=0.9), steps
        ),
        logged="loss",
        below=1.4,  # 1.57 for standard normal data, and 1 + the variance at first
        steps=150,
        to_batch=lambda x: x.repeat(32, 1),
        wrong=WRONG_POINTS,
        sample_range=(-100.0, 100.0),
        # What is trained on is not the likelihood; the test of its gradients is a family's own.
        loss=lambda model, x: -model.log_prob(x).mean(),
        script="train_flow_matching",
    ),
    "ImageFlowMatching": Family(
        make=ImageFlowMatchingConfig((3, 8, 8), UNET, steps=3, ode_steps=3).build,
        examples=pictures(3, 8),
        learner=lambda model, steps: FlowMatchingLearner(
            model, FlowMatchingLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="loss",
        below=0.5,
        steps=150,
        wrong=wrong_images(3, 8),
        sample_range=(0.0, 1.0),
        without=frozenset({"log_prob"}),
    ),
    "PointMeanFlow": Family(
        make=PointMeanFlowConfig(network=NETWORK).build,
        examples=points,
        learner=lambda model, steps: MeanFlowLearner(
            model,
            MeanFlowLossConfig(instant=0.75, lr=1e-2, final_lr=1e-3, clip=1.0, ema=0.9),
            steps,
        ),
        logged="velocity",  # both sides of the identity move while it is learned
        below=1.45,
        steps=150,
        to_batch=lambda x: x.repeat(32, 1),
        wrong=WRONG_POINTS,
        sample_range=(-100.0, 100.0),
    ),
    "ImageMeanFlow": Family(
        make=ImageMeanFlowConfig((3, 8, 8), UNET).build,
        examples=pictures(3, 8),
        learner=lambda model, steps: MeanFlowLearner(
            model, MeanFlowLossConfig(instant=0.75, lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="velocity",
        below=1.2,
        steps=150,
        wrong=wrong_images(3, 8),
        sample_range=(0.0, 1.0),
    ),
}
