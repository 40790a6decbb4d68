"""Flamingo, tiny: texts about two pictures, every weight of it learning."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.flamingo import (
    FlamingoConfig,
    FlamingoLearner,
    FlamingoLossConfig,
    NFNetConfig,
    ResamplerConfig,
)
from generative.flamingo.model import FlamingoBatch
from generative.text.config import GPTConfig, gpt2_block
from tests.generative.families.common import Family, wrong_tokens

VOCABULARY, LENGTH = 11, 8
IMAGE, CHUNK = 2, 3


def texts(n: int) -> Tensor:
    """An image, two words, the end of the chunk, an image, two words, the end."""
    words = torch.randint(4, VOCABULARY, (n, 4), generator=torch.Generator().manual_seed(0))
    image, chunk = torch.full((n, 1), IMAGE), torch.full((n, 1), CHUNK)
    return torch.cat([image, words[:, :2], chunk, image, words[:, 2:], chunk], 1)


def images(x: Tensor) -> Tensor:
    """Two pictures for each text, whose brightness tells the words."""
    words = x[:, [1, 2, 5, 6]].float() if x.shape[1] > 6 else torch.zeros(len(x), 4)
    grey = (words / VOCABULARY).unflatten(1, (2, 2)).repeat_interleave(4, 2)
    return grey[:, :, None, :, None].expand(-1, -1, 3, -1, 8).clamp(0, 1)


def loss(model, x: Tensor) -> Tensor:
    shown = images(x if x.dim() == 2 and x.dtype == torch.int64 else texts(2))
    return model.loss(x, shown.to(next(model.parameters()).dtype)).loss


class Learner(FlamingoLearner):
    """Shows images in the model's own type, which a batch of texts does not tell."""

    def update(self, batch: FlamingoBatch) -> dict[str, Tensor]:
        shown = batch.images.to(next(self.model.parameters()).dtype)
        return super().update(batch._replace(images=shown))


FAMILIES = {
    "Flamingo": Family(
        make=lambda: FlamingoConfig(
            GPTConfig(VOCABULARY, LENGTH, 2, gpt2_block(16, 2, 0.0)),
            NFNetConfig((3, 8, 8), (4,), (1,), (8,), (1,), (2,)),
            ResamplerConfig(2, 1, 2, max_frames=1),
            num_heads=2,
        ).build(),
        examples=texts,
        learner=lambda model, steps: Learner(
            model, FlamingoLossConfig(lr=2e-2, final_lr=1e-3, warmup=5), steps, vision=True
        ),
        logged="loss",
        below=1.0,  # the GPT stays as it began; log 7 = 1.95 for a word by guessing
        steps=150,
        wrong=wrong_tokens(VOCABULARY, LENGTH),
        script="train_flamingo",
        loss=loss,
        to_batch=lambda x: FlamingoBatch(x, images(x)),
    ),
}
