"""Diffusion: a network learns to take noise away, and images come of pure noise, step by step.

The book's model (Foster 2023, chapter 8), DDPM (Ho, Jain & Abbeel 2020) and DDIM (Song, Meng &
Ermon 2021) differ in schedule, loss and sampler, which are settings here:

    model = Diffusion.from_pretrained("runs/diffusion/model")
    images = model.sample(16)                            # (16, 3, 64, 64) in [0, 1], 20 steps
    better = model.sample(16, steps=200, eta=1.0)        # DDPM

In reading order: `schedules` says how fast the signal fades, `samplers` goes from noise to data
with any denoiser, `networks` has denoisers that learn, `exact` the best one there is for data whose
density is known, `model` joins them and trains.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
