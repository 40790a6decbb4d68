"""Presets named after a publication build networks with the number of weights that it has."""

import pytest
import torch

from scripts import (
    train_attention_gan,
    train_clip,
    train_cyclegan,
    train_kl_autoencoder,
    train_pix2pix,
    train_progan,
    train_stylegan2,
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
