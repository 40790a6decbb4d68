"""Classifiers, tiny."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.classifier import (
    ClassifierLearner,
    ClassifierLossConfig,
    CNNClassifierConfig,
    MLPClassifierConfig,
    ViTClassifierConfig,
)
from generative.nets.config import vit_block
from tests.generative.families.common import Family, pictures, wrong_images


def labels(x: Tensor) -> Tensor:
    """Four classes, none of which the place of the square tells."""
    return torch.arange(len(x)) * 5 // 2 % 4


FAMILIES = {
    "MLPClassifier": Family(
        make=lambda: MLPClassifierConfig((3, 16, 16), 4, (16,)).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: ClassifierLearner(
            model, ClassifierLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.01,  # log 4 = 1.39 by guessing
        steps=100,
        wrong=wrong_images(3, 16),
        loss=lambda model, x: model.loss(x, labels(x)).loss,
        to_batch=lambda x: (x, labels(x)),
    ),
    "CNNClassifier": Family(
        make=CNNClassifierConfig(
            (3, 16, 16), 4, (4, 8), (3, 3), (2, 2), hidden_dim=16, dropout=0.1
        ).build,
        examples=pictures(3, 16),
        learner=lambda model, steps: ClassifierLearner(
            model, ClassifierLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.1,
        steps=100,
        wrong=wrong_images(3, 16),
        script="train_classifier",
        loss=lambda model, x: model.loss(x, labels(x)).loss,
        to_batch=lambda x: (x, labels(x)),
    ),
    "ViTClassifier": Family(
        make=ViTClassifierConfig((3, 16, 16), 4, 8, 1, vit_block(16, 2)).build,
        examples=pictures(3, 16),
        learner=lambda model, steps: ClassifierLearner(
            model, ClassifierLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="loss",
        below=0.1,
        steps=100,
        wrong=wrong_images(3, 16),
        loss=lambda model, x: model.loss(x, labels(x)).loss,
        to_batch=lambda x: (x, labels(x)),
    ),
}
