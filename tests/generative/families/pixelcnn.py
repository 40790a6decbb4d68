"""PixelCNNs, tiny."""

from __future__ import annotations

import torch

from generative.pixelcnn import (
    GatedConfig,
    PixelCNNConfig,
    PixelCNNLearner,
    PixelCNNLossConfig,
    PlainConfig,
    PlusPlusConfig,
    RecurrentConfig,
)
from tests.generative.families.common import Family, grey_levels, wrong_images

WRONG = (*wrong_images(1, 4), (torch.full((1, 1, 4, 4), 0.3), "multiples of 1/4"))


def pixelcnn(network, num_mixtures: int, below: float, script: str | None = None) -> Family:
    return Family(
        make=lambda: PixelCNNConfig((1, 4, 4), 5, num_mixtures, network).build(),
        examples=grey_levels,
        learner=lambda model, steps: PixelCNNLearner(
            model, PixelCNNLossConfig(lr=1e-2, final_lr=1e-3, clip=1.0, ema=0.9), steps
        ),
        logged="bits_per_dim",
        below=below,  # log2(5) = 2.32 for a uniform distribution, log2(8) / 16 = 0.19 for the eight
        steps=150,
        wrong=WRONG,
        sample_range=(0.0, 1.0),
        script=script,
    )


FAMILIES = {
    "PixelCNN": pixelcnn(PlainConfig(hidden_dim=16, num_blocks=2), 0, 0.4),
    "gated PixelCNN": pixelcnn(
        GatedConfig(hidden_dim=16, num_layers=3), 0, 0.4, script="train_pixelcnn"
    ),
    "PixelCNN of classes": pixelcnn(
        GatedConfig(hidden_dim=16, num_layers=3, num_classes=2, num_views=2), 2, 0.4
    ),
    "PixelRNN": pixelcnn(RecurrentConfig(hidden_dim=16, num_recurrent=1, first_kernel=3), 0, 0.4),
    "PixelCNN++": pixelcnn(PlusPlusConfig(num_filters=8, dropout=0.0), 3, 0.6),
}
