"""The table of families names the verbs that their classes have."""

import re

import pytest

from tests.commands import ROOT
from tests.generative.families import FAMILIES
from tests.generative.families.common import VOCABULARY

PAGE = (ROOT / "docs/families.md").read_text("utf-8")
TABLE = PAGE.partition("## The families\n")[2].partition("\n## ")[0]
ROWS = {
    cells[0]: cells[2]
    for line in TABLE.splitlines()
    if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split(" | ")])
    and cells[0] != "family"
}  # fmt: skip
MODELS = {
    "autoencoder, denoising": ["ConvAutoencoder"],
    "linear autoencoder": ["LinearAutoencoder"],
    "classifiers": ["MLPClassifier", "CNNClassifier", "ViTClassifier"],
    "VAE of any images": ["ImageVAE", "importance-weighted VAE"],
    "linear VAE": ["LinearVAE"],
    "VAE for 64x64 frames": ["ConvVAE"],
    "GAN (DCGAN": ["GAN", "GAN of points"],
    "Wasserstein GAN": ["WGAN"],
    "pix2pix": ["Pix2Pix"],
    "CycleGAN": ["CycleGAN"],
    "conditional GAN": ["ConditionalGAN"],
    "ProGAN": ["ProGAN"],
    "StyleGAN,": ["StyleGAN"],
    "StyleGAN2": ["StyleGAN2"],
    "SAGAN": ["SAGAN", "BigGAN"],
    "PixelCNN, gated": ["PixelCNN", "gated PixelCNN", "PixelCNN++"],
    "PixelRNN": ["PixelRNN"],
    "VQ-VAE": ["VQVAE", "VQGAN", "ViTVQGAN"],
    "priors of codes": ["PixelCNN of codes", "GPT of codes"],
    "VAE-GAN": ["VAEGAN"],
    "RealNVP, affine": ["RealNVP", "spline flow"],
    "RealNVP for images": ["ImageRealNVP"],
    "Glow": ["Glow"],
    "FFJORD": ["FFJORD"],
    "deep energy": ["ConvEnergy", "PointEnergy"],
    "Boltzmann machines": ["RBM", "BoltzmannMachine", "DeepBeliefNetwork"],
    "noise-conditional": ["ScoreNetwork", "image ScoreNetwork"],
    "diffusion (DDPM": ["ImageDiffusion", "ImageDiffusion with a DiT"],
    "diffusion of points": ["PointDiffusion"],
    "GLIDE": ["GLIDE", "Imagen", "LatentDiffusion"],
    "upsamplers": ["Upsampler", "ImageDecoder"],
    "latent diffusion with": ["LatentDiffusion"],
    "autoencoder with a grid": ["KLAutoencoder"],
    "diffusion with EDM": ["PointEDM"],
    "flow matching of points": ["PointFlowMatching"],
    "flow matching of images": ["ImageFlowMatching"],
    "MeanFlow": ["PointMeanFlow", "ImageMeanFlow"],
    "LSTM, GRU of texts": ["LSTM of texts", "Bidirectional"],
    "GPT, with": ["GPT", "GPT-2"],
    "GPT of tasks": ["GPT"],
    "Toolformer": ["GPT"],
    "BERT": ["BERT", "BERTClassifier"],
    "T5": ["T5"],
    "Flamingo": ["Flamingo"],
    "reward model": ["RewardModel"],
    "policies": ["GPT"],
    "Music Transformer": ["MusicTransformer"],
    "LSTM, GRU of piano rolls": ["MusicRNN, LSTM", "MusicRNN, GRU"],
    "CLIP": ["CLIP"],
    "priors of DALL.E 2": ["DiffusionPrior", "AutoregressivePrior"],
    "DALL.E, Parti, MUSE": ["DALLE", "Parti", "MUSE"],
    "MuseGAN": ["MuseGAN"],
}
"""Families of the tests, by the beginning of their row."""
ONE_CLASS_FOR_ALL = {"diffusion (DDPM", "diffusion of points", "flow matching of images"}
"""Rows whose class has verbs that are of no use to such data."""


def test_every_row_is_looked_at():
    assert len(ROWS) == len(MODELS)
    for row in ROWS:
        assert sum(row.startswith(beginning) for beginning in MODELS) == 1, row


@pytest.mark.parametrize("beginning", MODELS)
def test_a_row_names_the_verbs_of_its_models(beginning):
    [(_, cell)] = [pair for pair in ROWS.items() if pair[0].startswith(beginning)]
    has: set[str] = set()
    for name in MODELS[beginning]:
        family = FAMILIES[name]
        model = family.make()
        every = {verb for verb in VOCABULARY if hasattr(model, verb)}
        has |= every - family.without if beginning in ONE_CLASS_FOR_ALL else every
    assert set(re.findall(r"\w+", cell)) & VOCABULARY == has
