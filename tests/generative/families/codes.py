"""VQ-VAE, VQ-GAN, ViT VQ-GAN and the priors of their codes, tiny."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generative.codes import (
    CodeTransformerConfig,
    FSQConfig,
    PatchCriticConfig,
    PriorConfig,
    PriorLearner,
    PriorLossConfig,
    QuantiserConfig,
    ViTVQGANConfig,
    VQGANConfig,
    VQGANLearner,
    VQGANLossConfig,
    VQVAEConfig,
    VQVAELearner,
    VQVAELossConfig,
)
from generative.nets.config import gpt2_block, vit_block
from generative.pixelcnn import GatedConfig
from tests.generative.families.common import Family, pictures, wrong_images

CRITIC = PatchCriticConfig(4, 1)


def vqvae(quantiser, script: str | None = None) -> Family:
    return Family(
        make=lambda: VQVAEConfig((3, 16, 16), (8, 16), 8, 1, quantiser).build(),
        examples=pictures(3, 16),
        learner=lambda model, steps: VQVAELearner(
            model, VQVAELossConfig(lr=1e-2, final_lr=1e-3), steps
        ),
        logged="recon",
        below=0.02,
        steps=150,
        wrong=wrong_images(3, 16),
        script=script,
    )


def vqgan(config, script: str | None = None) -> Family:
    """The critic has a part in no loss of the model; its heights are one of their own."""
    return Family(
        make=config.build,
        examples=pictures(3, 16),
        learner=lambda model, steps: VQGANLearner(
            model,
            VQGANLossConfig(
                "l2", perceptual=0.0, lr=5e-3, critic_lr=5e-3, adversarial=0.1, begin=0.5
            ),
            steps,
        ),
        logged="mse",
        below=0.03,
        steps=150,
        wrong=wrong_images(3, 16),
        script=script,
        loss=lambda model, x: model.loss(x).loss + model.patch_heights(x).mean(),
    )


def grids(n: int) -> Tensor:
    """4x4 grids of five codes."""
    return torch.from_numpy(np.random.default_rng(0).integers(5, size=(n, 4, 4)))


def prior(network, script: str | None = None, **more) -> Family:
    return Family(
        make=lambda: PriorConfig((4, 4), 5, network).build(),
        examples=grids,
        learner=lambda model, steps: PriorLearner(
            model, PriorLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9), steps
        ),
        logged="loss",
        below=6.0,  # 16 ln 5 = 25.8 for an even choice, ln 8 = 2.1 for the eight
        steps=150,
        wrong=(
            (grids(2)[:, 1:], r"\(2, 3, 4\).*int64 \(B, 4, 4\)"),
            (grids(2).float(), r"float32.*int64 \(B, 4, 4\)"),
            (grids(2) + 1, r"from \d to 5.*0 to 4"),
        ),
        sample_range=(0, 4),
        script=script,
        **more,
    )


def with_labels(codes: Tensor):
    return codes, torch.arange(len(codes)) % 2


def trained_codes(folder: Path) -> tuple[object, ...]:
    """A tiny VQ-VAE in folder, and the words that name it and its data."""
    torch.manual_seed(0)
    model = VQVAEConfig((3, 32, 32), (4, 4, 4), 4, 1, QuantiserConfig(8, 4)).build()
    model.save_pretrained(folder / "vqvae")
    return ("--codes", folder / "vqvae", "--data", "sprites")


TRANSFORMER = CodeTransformerConfig(1, gpt2_block(16, 2, dropout=0.0))
FAMILIES = {
    "VQVAE": vqvae(QuantiserConfig(16, 8), script="train_vqvae"),
    "VQVAE, list by loss": vqvae(QuantiserConfig(16, 8, learning="loss")),
    "VQVAE, FSQ": vqvae(FSQConfig((9, 9, 9))),
    "VQGAN": vqgan(VQGANConfig((3, 16, 16), 8, (1, 2, 2), 1, (2,), QuantiserConfig(16, 8), CRITIC)),
    "ViTVQGAN": vqgan(
        ViTVQGANConfig(
            (3, 16, 16), 4, 1, vit_block(32, 2), QuantiserConfig(16, 4, "cosine", "loss"), CRITIC
        ),
        script="train_vqgan",
    ),
    "PixelCNN of codes": prior(GatedConfig(hidden_dim=16, num_layers=3, embed_dim=8)),
    "GPT of codes": prior(TRANSFORMER, script="train_code_prior", words=trained_codes),
    "GPT of codes, classes": prior(
        CodeTransformerConfig(1, gpt2_block(16, 2, dropout=0.0), 2), to_batch=with_labels
    ),
}
