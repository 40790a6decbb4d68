"""Diffusion: a network learns to take noise away, and images come of pure noise, step by step.

The book's model (Foster 2023, chapter 8), DDPM (Ho, Jain & Abbeel 2020) and DDIM (Song, Meng &
Ermon 2021) differ in schedule, loss and sampler, which are settings here:

    model = ImageDiffusion.from_pretrained("runs/diffusion/model")
    images = model.sample(16)                            # (16, 3, 64, 64) in [0, 1], 20 steps
    better = model.sample(16, steps=200, eta=1.0)        # DDPM

In reading order: `schedules` says how fast the signal fades, `samplers` goes from noise to data
with any denoiser, `networks` has denoisers that learn, `exact` the best one there is for data whose
density is known, `model` joins them and trains.
"""

from generative.diffusion.exact import MixtureDenoiser
from generative.diffusion.model import (
    DiffusionLearner,
    DiffusionLossConfig,
    DiffusionLosses,
    ImageDiffusion,
    ImageDiffusionConfig,
    PointDiffusion,
    PointDiffusionConfig,
    diffusion_loss,
    estimates,
)
from generative.diffusion.networks import DenoisingMLP, UNet, UNetConfig, sinusoidal_embedding
from generative.diffusion.samplers import (
    Clip,
    Denoiser,
    Step,
    clip_data,
    ddim_noise,
    ddim_step,
    ddpm_step,
    denoising_path,
    noising_path,
    ode_flow,
    ode_log_prob,
    slerp,
    variational_gap,
)
from generative.diffusion.schedules import (
    Schedule,
    ScheduleConfig,
    cosine_betas,
    linear_betas,
    log_snr_of,
    scaled_linear_betas,
    signal_and_noise,
)

__all__ = [
    "Clip",
    "Denoiser",
    "DenoisingMLP",
    "DiffusionLearner",
    "DiffusionLossConfig",
    "DiffusionLosses",
    "ImageDiffusion",
    "ImageDiffusionConfig",
    "MixtureDenoiser",
    "PointDiffusion",
    "PointDiffusionConfig",
    "Schedule",
    "ScheduleConfig",
    "Step",
    "UNet",
    "UNetConfig",
    "clip_data",
    "cosine_betas",
    "ddim_noise",
    "ddim_step",
    "ddpm_step",
    "denoising_path",
    "diffusion_loss",
    "estimates",
    "linear_betas",
    "log_snr_of",
    "noising_path",
    "ode_flow",
    "ode_log_prob",
    "scaled_linear_betas",
    "signal_and_noise",
    "sinusoidal_embedding",
    "slerp",
    "variational_gap",
]
