"""Variational autoencoders (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

Read in this order: `gaussian` has what all of them share, the noisy code and the bound; `images`
the book's VAE and the ones that improve on it; `linear` the VAE whose optimum is known; `frames`
the 64x64 VAE of World Models with its fast training.

    vae = ImageVAE.from_pretrained("runs/image-vae/model")
    z = vae.encode(images)                          # (B, 1, 32, 32) in [0, 1] -> (B, 2)
    vae.bound(images, num_draws=100)                # below log p of each image, nats, (B,)
    vae.sample(16)
"""

from generative.configs.vae import (
    ConvVAEConfig,
    ImageVAEConfig,
    ImageVAELossConfig,
    LinearVAEConfig,
    VAELossConfig,
)
from generative.vae.frames import (
    ConvVAE,
    VAELearner,
    decode_logits_as_blocks,
    to_float_bchw,
    to_uint8_bhwc,
    vae_loss,
)
from generative.vae.gaussian import (
    VAELosses,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    sample_gaussian,
)
from generative.vae.images import ImageVAE, ImageVAELearner
from generative.vae.linear import LinearVAE, ProbabilisticPCA, probabilistic_pca

__all__ = [
    "ConvVAE",
    "ConvVAEConfig",
    "ImageVAE",
    "ImageVAEConfig",
    "ImageVAELearner",
    "ImageVAELossConfig",
    "LinearVAE",
    "LinearVAEConfig",
    "ProbabilisticPCA",
    "VAELearner",
    "VAELossConfig",
    "VAELosses",
    "decode_logits_as_blocks",
    "gaussian_kl",
    "gaussian_log_prob",
    "importance_bound",
    "probabilistic_pca",
    "sample_gaussian",
    "to_float_bchw",
    "to_uint8_bhwc",
    "vae_loss",
]
