"""Training MuseGAN, as a Wasserstein GAN with a gradient penalty."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generative.gan import AdversarialLearner, energy_coefficient, gradient_penalty
from generative.musegan.config import MuseGANLossConfig
from generative.musegan.model import MuseGAN
from generative.training.checks import check_images, check_some

__all__ = ["MuseGANLearner", "track_penalty"]


def track_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    alpha: str = "normal",
    norm_eps: float = 0.0,
) -> Tensor:
    """Gradient penalty of the book's program, with one norm per track.

    Rolls (B, tracks, ...); see `generative.gan.losses.gradient_penalty` for the paper's.
    """
    draw = torch.rand if alpha == "uniform" else torch.randn
    share = draw(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    x = (real + share * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = (slope.flatten(2).square().sum(2) + norm_eps).sqrt()
    return (norm - 1).square().mean()


class MuseGANLearner(AdversarialLearner[MuseGAN]):
    """Takes several steps of the critic, each on new noise, then one of the generator."""

    def __init__(self, model: MuseGAN, config: MuseGANLossConfig, steps: int):
        self.config = config
        betas = (config.beta1, config.beta2)
        make = partial(torch.optim.Adam, betas=betas, eps=config.adam_eps)
        rates = (config.lr, config.critic_lr, config.lr_end)
        super().__init__(model, steps, *rates, config.ema, make)

    def update(self, rolls: Tensor) -> dict[str, Tensor | float]:
        """One update on rolls (B, tracks, bars, steps, pitches) in [0, 1]; see `MuseGAN.split`.

        Returns:
            c_loss = c_wass + penalty * c_gp at the critic's last step, where -c_wass estimates the
            Wasserstein distance; g_loss; energy and spread, see `energy_coefficient`.
        """
        model, logged = self.model, {}
        real, given = model.split(rolls)
        real = 2 * check_some(check_images(real, model.shape, model, "rolls"), model) - 1
        known = None if given is None else 2 * given - 1
        for _ in range(self.config.critic_steps):
            logged = self._critic_step(real, known)
        noise = model.draw_noise(len(real))
        fake = model.generator(noise, known)
        g_loss = -self._height(fake, known).mean()
        self.move("generator", self.gradients("generator", g_loss))
        self.advance(noise, known)
        energy = energy_coefficient(real, fake.detach())._asdict()
        return {**logged, "g_loss": g_loss.detach(), **energy}

    def _critic_step(self, real: Tensor, known: Tensor | None) -> dict[str, Tensor]:
        config, model = self.config, self.model
        with torch.no_grad():
            fake = model.generator(model.draw_noise(len(real)), known)
        c_wass = self._height(fake, known).mean() - self._height(real, known).mean()

        def critic(x: Tensor) -> Tensor:
            return self._height(x, known)

        penalty: Any = track_penalty if config.penalty_norm == "track" else gradient_penalty
        c_gp = penalty(critic, real, fake, alpha=config.alpha, norm_eps=config.norm_eps)
        c_loss = c_wass + config.penalty * c_gp
        self.move("critic", self.gradients("critic", c_loss))
        return {"c_wass": c_wass.detach(), "c_gp": c_gp.detach(), "c_loss": c_loss.detach()}

    def _height(self, x: Tensor, known: Tensor | None) -> Tensor:
        return self.model.critic(x, known if self.model.given == "bar" else None)
