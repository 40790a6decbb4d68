"""Text-to-image models, tiny."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from generative.diffusion import ScheduleConfig
from generative.nets.config import clip_block
from generative.text.config import T5Config, t5_block
from generative.text_to_image import (
    ConditionalUNetConfig,
    GLIDEConfig,
    ImageDecoderConfig,
    ImagenConfig,
    KLAutoencoderConfig,
    KLAutoencoderLearner,
    KLAutoencoderLossConfig,
    LatentDiffusionConfig,
    TextEncoderConfig,
    TextToImage,
    TextToImageLearner,
    TextToImageLossConfig,
    UpsamplerConfig,
)
from tests.generative.families.common import Family, pictures, wrong_images

WORDS = ("red", "blue", "square", "disc")
TEXT = TextEncoderConfig(8, 6, 1, clip_block(8, 2), causal=False)
NETWORK = ConditionalUNetConfig(8, (1, 2), head_dim=4, context_dim=8, vector_dim=8)
LOSS = TextToImageLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9, drop=0.0, level_mean=0.0)


SCHEDULE = ScheduleConfig(max_signal=0.999)
SAME = (3, 8, 8), WORDS, TEXT
LATENTS = KLAutoencoderConfig((3, 8, 8), 8, (1, 1), 1, channels=2)


def glide() -> TextToImage:
    """A model of 3x8x8 images and four words."""
    return GLIDEConfig(*SAME, NETWORK, SCHEDULE, steps=4).build()


def patches() -> TextToImage:
    """The same, whose U-Net works on squares of 2x2 pixels."""
    return GLIDEConfig(*SAME, replace(NETWORK, patch=2), SCHEDULE, steps=4).build()


def texts(n: int) -> Tensor:
    """A caption for each of n images, as tokens; no two of the first eight are equal."""
    rows = [[2, 4 + i % 4, 4 + i // 4 % 4, 3, 0, 0] for i in range(n)]
    return torch.tensor(rows)


def loss(model: Any, x: Tensor) -> Tensor:
    """Loss of images with their captions, none left out."""
    return model.loss(x, texts(len(x)), LOSS).loss


def with_texts(x: Tensor) -> Any:
    """What a learner takes: images and their captions."""
    return x, texts(len(x))


def told(make: Callable[[], TextToImage], without: frozenset[str] = frozenset(), **how) -> Family:
    """Family of a model that is told captions."""
    return Family(
        make=make,
        examples=pictures(3, 8),
        learner=lambda model, steps: TextToImageLearner(model, LOSS, steps),
        logged="noise_mse",
        below=0.3,
        steps=150,
        to_batch=with_texts,
        wrong=wrong_images(3, 8),
        sample_range=(0.0, 1.0),
        without=without,
        loss=loss,
        **how,
    )


def latent() -> TextToImage:
    """A model of the latents of 3x8x8 images; an untrained autoencoder keeps enough of them."""
    text = TextEncoderConfig(8, 6, 1, clip_block(8, 2))
    network = replace(NETWORK, multipliers=(1, 1))
    config = LatentDiffusionConfig(LATENTS, WORDS, text, network, SCHEDULE, "velocity", steps=4)
    model = config.build()
    model.measure([pictures(3, 8)(8)])
    return model


def decoder() -> TextToImage:
    """A model that could be told embeddings of five numbers, and is not."""
    network = replace(NETWORK, vector_dim=13)
    return ImageDecoderConfig(*SAME, network, SCHEDULE, steps=4, embedding_dim=5).build()


def upsampler() -> TextToImage:
    """A model that sees images of half the sides."""
    network = replace(NETWORK, told_level=True)
    return UpsamplerConfig(*SAME, network, SCHEDULE, steps=4).build()


def imagen() -> TextToImage:
    """A model whose text is read by a T5."""
    text = T5Config(8, 2, 1, t5_block(8, 2, 0.0), max_len=6)
    network = replace(NETWORK, efficient=True, scale_skips=True)
    return ImagenConfig((3, 8, 8), WORDS, text, network, SCHEDULE, steps=4).build()


NOT_ALL_TRAINED = frozenset({"loss"})
"""A gradient does not reach the parts that are not trained."""
FAMILIES = {
    "GLIDE": told(glide, script="train_text_to_image"),
    "GLIDE of patches": told(patches),
    "ImageDecoder": told(decoder, NOT_ALL_TRAINED),
    "Imagen": told(imagen, NOT_ALL_TRAINED),
    "LatentDiffusion": told(latent, NOT_ALL_TRAINED),
    "Upsampler": told(upsampler, frozenset({"sample"})),
    "KLAutoencoder": Family(
        make=LATENTS.build,
        examples=pictures(3, 8),
        learner=lambda model, steps: KLAutoencoderLearner(
            model, KLAutoencoderLossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="recon",
        below=0.08,
        steps=150,
        wrong=wrong_images(3, 8),
        script="train_kl_autoencoder",
    ),
}
