"""A DALL.E 2 of scenes that nobody trained, for the code in docstrings and on pages."""

from __future__ import annotations

from generative.clip import CLIPConfig
from generative.clip.config import clip_vit
from generative.data.caption_tokens import CaptionTokeniser
from generative.diffusion import ScheduleConfig
from generative.known.captions import WORDS
from generative.nets.config import ConditionalUNetConfig, TextEncoderConfig, clip_block, gpt2_block
from generative.priors import DiffusionPriorConfig
from generative.text_to_image import DallE2, ImageDecoderConfig

__all__ = ["tiny_dalle2"]


def tiny_dalle2() -> DallE2:
    """Of pictures of 24x24 pixels and the words of the micro-world."""
    text = TextEncoderConfig(4 + len(WORDS), 24, 1, clip_block(8, 2))
    clip = CLIPConfig(clip_vit((3, 24, 24), 8, 1, 8, 2), text, 8).build()
    prior = DiffusionPriorConfig(8, 8, 8, 24, 1, gpt2_block(8, 2, dropout=0.0), steps=2).build()
    network = ConditionalUNetConfig(
        8, (1,), attention=(0,), head_dim=8, context_dim=8, vector_dim=16, patch=8
    )
    decoder = ImageDecoderConfig(
        (3, 24, 24), tuple(WORDS), text, network, ScheduleConfig(), "data", 2, embedding_dim=8
    ).build()
    return DallE2(clip, prior, decoder, CaptionTokeniser(tuple(WORDS), 24)).eval()
