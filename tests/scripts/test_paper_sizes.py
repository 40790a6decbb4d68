"""Presets named after a publication build networks with the number of weights that it has."""

import pytest
import torch
from torch import nn

from generative.text_to_image.config import ControlNetConfig, LatentDiffusionConfig
from scripts import (
    train_attention_gan,
    train_clip,
    train_cyclegan,
    train_flamingo,
    train_kl_autoencoder,
    train_pix2pix,
    train_prior,
    train_progan,
    train_stylegan2,
    train_text_to_codes,
    train_text_to_image,
)

TOTALS = {
    (train_attention_gan, "biggan-paper"): (70_433_988 - 898 * 128, 87_982_370 - 898 * 1536),
    (train_clip, "paper"): (151_277_313,),
    (train_cyclegan, "paper"): (2 * 11_378_179, 2 * 2_764_737),
    (train_kl_autoencoder, "paper"): (83_653_863,),
    (train_pix2pix, "paper-grey"): (54_413_955 - 2 * 64 * 16, 2_768_705 - 2 * 64 * 16),
    (train_progan, "paper"): (23_079_115, 23_087_249),
    (train_stylegan2, "paper"): (30_370_060, 29_012_513),
}
"""Weights of the generator and of the critic of a GAN, else of the model. BigGAN has the 102
classes of Oxford's flowers in place of 1,000, each a row of two embeddings; pix2pix from grey
values has one channel in place of three, which its first convolutions of 4x4 see."""


@pytest.mark.parametrize(
    ("script", "preset"), TOTALS, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_a_preset_of_a_publication_has_its_size(script, preset):
    with torch.device("meta"):
        model = script.PRESETS[preset].model.build()
    parts = [model]
    if hasattr(model, "critic"):
        parts = [model.generator, model.critic]
    found = tuple(sum(p.numel() for p in part.parameters()) for part in parts)
    assert found == TOTALS[script, preset]


PARTS = {
    (train_text_to_image, "stable-diffusion"): {
        "diffusion.network": 859_520_964,
        "text": 123_060_480,
        "autoencoder": 83_653_863,
    },
    (train_text_to_image, "stable-diffusion-2"): {
        "diffusion.network": 865_910_724,
        "text": 340_387_840,
        "autoencoder": 83_653_863,
    },
}
"""Weights of each part of a model."""


@pytest.mark.parametrize(
    ("script", "preset"), PARTS, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_parts_of_a_preset_have_their_sizes(script, preset):
    model, wanted = built(script, preset), PARTS[script, preset]
    assert {name: weights(model.get_submodule(name)) for name in wanted} == wanted


def test_a_controlnet_of_stable_diffusion_trains_as_many_weights_as_the_published_one():
    base = train_text_to_image.PRESETS["stable-diffusion"].model
    assert isinstance(base, LatentDiffusionConfig)
    with torch.device("meta"):
        model = ControlNetConfig(base, hint_channels=3, hint="other").build()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 361_279_120


M, B = 10**6, 10**9
STATED = {
    # Rounding alone: a total of one or two digits stands for all that is rounded to it.
    (train_prior, "paper", ""): (1 * B, 0.5 * B),
    (train_text_to_codes, "paper", ""): (12 * B, 0.5 * B),
    (train_text_to_codes, "paper-muse", "decoder"): (3 * B, 0.5 * B),
    (train_text_to_image, "paper", ""): (3.5 * B, 0.05 * B),
    (train_text_to_image, "paper-decoder", ""): (3.5 * B, 0.05 * B),
    (train_text_to_image, "paper-imagen", "diffusion.network"): (2 * B, 0.5 * B),
    (train_flamingo, "paper", "resampler"): (194 * M, 0.5 * M),
    (train_flamingo, "paper", "vision"): (435 * M, 0.5 * M),
    (train_flamingo, "paper-9b", "resampler"): (194 * M, 0.5 * M),
    (train_flamingo, "paper-3b", "resampler"): (194 * M, 0.5 * M),
    (train_flamingo, "paper-3b", "gated"): (1.2 * B, 0.05 * B),
    # Its sides change by residual blocks, here by convolutions, which are 0.1 billion fewer; its
    # attention to texts has no queries of its own. "Roughly" is the publication's word.
    (train_text_to_image, "paper", "diffusion.network"): (2.3 * B, 0.1 * B),
    # The layers of its text encoder are not stated; those of the base model make 0.35 billion.
    (train_text_to_image, "paper-upsampler", ""): (1.5 * B, 0.1 * B),
    # Stated for the whole of T5-XXL's encoder: here it has 0.13 billion for its vocabulary.
    (train_text_to_image, "paper-imagen", "text"): (4.6 * B, 0.2 * B),
    # Names more than totals. Blocks alone are within 2.1 %; vectors of pieces, codes and places,
    # which no source has counted, are 34 to 137 million, a tenth of the smallest.
    (train_text_to_codes, "paper-parti", ""): (20 * B, 0.03 * 20 * B),
    (train_text_to_codes, "paper-parti-3b", ""): (3 * B, 0.04 * 3 * B),
    (train_text_to_codes, "paper-parti-750m", ""): (750 * M, 0.06 * 750 * M),
    (train_text_to_codes, "paper-parti-350m", ""): (350 * M, 0.11 * 350 * M),
}
"""Totals that publications state in words, and how far ours may be from them: of a part of the
model, or of all of it."""


@pytest.mark.parametrize(
    ("script", "preset", "part"), STATED, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_a_preset_is_near_the_total_that_its_publication_states(script, preset, part):
    stated, tolerance = STATED[script, preset, part]
    assert abs(weights(built(script, preset).get_submodule(part)) - stated) <= tolerance


LARGE = [
    (script, preset)
    for script in (train_flamingo, train_prior, train_text_to_codes, train_text_to_image)
    for preset in script.PRESETS
    if preset.startswith(("paper", "stable-diffusion", "released"))
]


@pytest.mark.parametrize(
    ("script", "preset"), LARGE, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_a_large_preset_is_built_without_memory(script, preset):
    model = built(script, preset)
    assert {x.device.type for x in (*model.parameters(), *model.buffers())} == {"meta"}


def built(script, preset: str) -> nn.Module:
    """The model of a preset, without memory for its weights."""
    with torch.device("meta"):
        return script.PRESETS[preset].model.build()


def weights(part: nn.Module) -> int:
    """Number of weights of a network."""
    return sum(p.numel() for p in part.parameters())
