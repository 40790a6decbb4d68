"""GANs with self-attention, tiny. That they overfit is told by the energy coefficient."""

from __future__ import annotations

from dataclasses import replace

from generative.attention_gan import AttentionGANConfig
from generative.gan import GANLearner, GANLossConfig
from tests.generative.families.common import Family, pictures, wrong_images
from tests.generative.families.gan import PAIRS, height, with_labels

HINGE = GANLossConfig(
    objective="hinge", lr=4e-3, critic_lr=4e-3, lr_end=0.1, beta1=0.0, beta2=0.9, ema=0.9,
    orthogonal=1e-4,
)  # fmt: skip

FAMILIES = {
    "SAGAN": Family(
        make=lambda: AttentionGANConfig((3, 16, 16), 0, 8, (8, 16), attention_side=8).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: GANLearner(model, HINGE, steps),
        logged="energy",
        below=0.25,
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        loss=height,
    ),
    "BigGAN": Family(
        make=lambda: AttentionGANConfig(
            (3, 16, 16),
            3,
            6,
            (8, 16),
            attention_side=8,
            shared_dim=4,
            split_z=True,
            spectral_norm="none",
        ).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: GANLearner(model, replace(PAIRS, penalty_every=4), steps),
        logged="energy",
        below=0.25,
        steps=150,
        wrong=wrong_images(3, 16),
        sample_range=(0.0, 1.0),
        script="train_attention_gan",
        loss=lambda model, x: model.heights(x, with_labels(x)[1]).mean(),
        to_batch=with_labels,
    ),
}
