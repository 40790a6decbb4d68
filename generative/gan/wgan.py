"""Wasserstein GAN, with weight clipping or with a gradient penalty: model, penalty, learner.

The critic gives every example a height instead of a probability. If it is nowhere steeper than 1,
the mean height of real examples above that of generated ones is a lower bound of the Wasserstein
distance between the two, which falls as the samples get better (Arjovsky et al. 2017; Gulrajani et
al. 2017; Foster 2023, chapter 4).

    gan = WGAN.from_pretrained("runs/wgan/model")
    gan.sample(16)                       # (16, 3, 64, 64) in [0, 1]
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from generative.gan.config import WGANConfig, WGANLossConfig
from generative.gan.model import (
    AdversarialLearner,
    Batch,
    Discriminator,
    Generator,
    check_examples,
    draw_z,
    energy_coefficient,
    from_network,
    split_batch,
    to_network,
)
from generative.training.checks import check_some, check_vectors
from generative.training.pretrained import Pretrained

if TYPE_CHECKING:
    from generative.gan.conditional import ConditionalGAN

__all__ = ["WGAN", "WGANConfig", "WGANLearner", "WGANLossConfig", "gradient_penalty"]


class WGAN(Pretrained, nn.Module):
    """Generator and critic; 3,806,083 and 2,764,737 parameters at the book's sizes."""

    config_class = WGANConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample"})

    def __init__(self, config: WGANConfig | None = None):
        super().__init__()
        self.config = config = config or WGANConfig()
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor) -> Tensor:
        """Noise (B, latent_dim) -> images (B, C, H, W) in [0, 1], or points (B, D)."""
        z = check_vectors(z, self.config.latent_dim, "z", self)
        return from_network(self.generator(z))

    def score(self, x: Tensor) -> Tensor:
        """The critic's height at each example, (B, *shape) -> (B,).

        Raises:
            ValueError: another shape or type, or a pixel outside [0, 1].
        """
        return self.discriminator(to_network(check_examples(x, self)))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape): `generate` of standard normal z."""
        return self.generate(draw_z(self, n, generator))


def gradient_penalty(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    *given: Tensor,
    alpha: str = "uniform",
    norm_eps: float = 1e-12,
) -> Tensor:
    """Mean of (|d critic(x) / dx| - 1)^2 at x between real and generated examples.

    x = real + alpha (fake - real), one alpha for each pair (Gulrajani et al. 2017, section 4).

    Args:
        critic: (B, ...) and what is given -> (B,).
        real, fake: examples, (B, ...).
        given: e.g. labels, which stay as they are.
        alpha: "uniform" in [0, 1], or "normal" as in the book's program.
        norm_eps: added to the squared norm under the root. Where the gradient is exactly 0, the
            root has none without it, and training ends in NaN.
    """
    draw = torch.rand if alpha == "uniform" else torch.randn
    share = draw(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    x = (real + share * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x, *given).sum(), x, create_graph=True)
    norm = (slope.flatten(1).square().sum(1) + norm_eps).sqrt()
    return (norm - 1).square().mean()


class WGANLearner(AdversarialLearner["WGAN | ConditionalGAN"]):
    """Several steps of the critic on one batch, then one of the generator; `kept` holds the weights
    to keep.

    Also trains a `ConditionalGAN`, whose batches are examples and their labels.
    """

    def __init__(self, model: WGAN | ConditionalGAN, config: WGANLossConfig, steps: int):
        self.config = config
        if config.optimizer == "rmsprop":
            make = partial(torch.optim.RMSprop, alpha=config.beta2, eps=config.adam_eps)
        else:
            betas = (config.beta1, config.beta2)
            make = partial(torch.optim.Adam, betas=betas, eps=config.adam_eps)
        rates = (config.lr, config.critic_lr, config.lr_end)
        super().__init__(model, steps, *rates, config.ema, make)

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """One update on examples (B, *shape), or on (examples, labels (B,)).

        Returns:
            c_loss = c_wass + weight * c_gp of the last step of the critic, where -c_wass estimates
            the Wasserstein distance; g_loss; energy and spread, see `energy_coefficient`.
        """
        x, given = split_batch(batch)
        real = to_network(check_some(check_examples(x, self.model), self.model))
        logged = {}
        for _ in range(self.config.critic_steps):
            logged = self._critic_step(real, given)
        z = draw_z(self.model, len(real))
        fake = self.model.generator(z, *given)
        g_loss = -self.model.discriminator(fake, *given).mean()
        self.move("generator", self.gradients("generator", g_loss))
        self.advance(z, *given)
        energy = energy_coefficient(real, fake.detach())._asdict()
        return {**logged, "g_loss": g_loss.detach(), **energy}

    def _critic_step(self, real: Tensor, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
        config, critic = self.config, self.model.discriminator
        with torch.no_grad():
            fake = self.model.generator(draw_z(self.model, len(real)), *given)
        c_wass = critic(fake, *given).mean() - critic(real, *given).mean()
        if config.lipschitz == "clipping":
            self.move("discriminator", self.gradients("discriminator", c_wass))
            with torch.no_grad():
                for parameter in critic.parameters():
                    parameter.clamp_(-config.clip, config.clip)
            return {"c_loss": c_wass.detach()}
        c_gp = gradient_penalty(
            critic, real, fake, *given, alpha=config.alpha, norm_eps=config.norm_eps
        )
        c_loss = c_wass + config.penalty * c_gp
        self.move("discriminator", self.gradients("discriminator", c_loss))
        return {"c_loss": c_loss.detach(), "c_wass": c_wass.detach(), "c_gp": c_gp.detach()}
