"""The VAE-GAN and its training: three networks, each with a loss and an optimiser of its own.

    L_prior    = KL(q(z | x) || p(z))
    L_features = 1/2 |f(x) - f(x')|^2, f the critic's features, x' decoded from z ~ q(z | x)
    L_GAN      = the critic's loss on images x, on x' and on images decoded from z ~ p(z)

The encoder minimises L_prior + L_features, the critic L_GAN, and the decoder gamma L_features plus
the generator's side of the game (Larsen et al. 2016, section 2.3). In the paper's algorithm 1 the
sign of L_GAN is that of a loss of the critic, while its equation 4 defines the opposite; descended
as printed, with the equation, decoder and critic would help each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.gan.config import GANLossConfig
from generative.gan.losses import critic_loss, generator_loss, squared_slope
from generative.gan.networks import Critic, to_network
from generative.nets.projected import ProjectedCritic
from generative.training.checks import check_images, check_some
from generative.training.optimisation import Optimisation
from generative.vae.gaussian import gaussian_kl, sample_gaussian
from generative.vae.model import VAE
from generative.vae_gan.config import VAEGANConfig, VAEGANLossConfig

__all__ = ["VAEGAN", "VAEGANLearner"]


class VAEGAN(VAE):
    """A VAE of images with a critic of them.

    All that a `VAE` can do it does the same; `loss` is that of the VAE without its critic.

    Args:
        vae: encoder, posterior, decoder, likelihood and prior.
        critic: images from -1 to 1 -> heights (B,), or (B, K) of K heads, by way of its `features`
            and `head`.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"VAEGAN": VAEGANConfig}
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, vae: VAE, critic: Critic | ProjectedCritic, config: VAEGANConfig | None = None
    ):
        parts = vae.encoder, vae.posterior, vae.decoder, vae.likelihood, vae.prior
        super().__init__(*parts, vae.image_shape, config)
        self.critic = critic

    def heights(self, x: Tensor) -> Tensor:
        """The critic's height of each image in [0, 1], (B, C, H, W) -> (B,); of several heads the
        mean.

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        found = self.critic(to_network(check_images(x, self.image_shape, self)))
        return found if found.dim() == 1 else found.mean(1)


class VAEGANLearner:
    """Adam on encoder, decoder and critic, each against its own loss.

    Args:
        model: see `VAEGAN`; a learned noise of pixels or prior moves with the decoder.
        config: see `VAEGANLossConfig`.
        steps: updates over which the learning rates fall.
    """

    def __init__(self, model: VAEGAN, config: VAEGANLossConfig, steps: int):
        self.model, self.config = model, config
        self.gan = GANLossConfig(config.objective, label_noise=0.0)
        parts = {
            "encoder": nn.ModuleList([model.encoder, model.posterior]),
            "decoder": nn.ModuleList(
                part
                for part in (model.decoder, model.likelihood, model.prior)
                if isinstance(part, nn.Module)
            ),
            "critic": model.critic,
        }
        betas, eps = (config.beta1, config.beta2), config.adam_eps
        self.parts: dict[str, Optimisation[nn.Module]] = {}
        for name, part in parts.items():
            lr = config.critic_lr if name == "critic" else config.lr
            optimizer = torch.optim.Adam(part.parameters(), lr=lr, betas=betas, eps=eps)
            self.parts[name] = Optimisation(part, optimizer, steps, lr * config.lr_end, name=name)

    def update(self, x: Tensor) -> dict[str, Tensor | float]:
        """One step of all three on images (B, C, H, W) in [0, 1].

        Returns:
            kl in nats; features and pixels, the reconstruction terms without weights; g_loss and
            c_loss, the two sides of the game; mse, the squared error of pixels.
        """
        config, model = self.config, self.model
        mu, logvar = model.encode_mu_logvar(check_some(x, model))
        logits = model.decode_logits(sample_gaussian(mu, logvar))
        again = model.likelihood.mean(logits)
        drawn = model.likelihood.mean(model.decode_logits(model.prior.sample(len(x))))
        kl = gaussian_kl(mu, logvar).sum(1).mean()
        seen, told = (model.critic.features(to_network(part)) for part in (x, again))
        features = 0.5 * (seen.detach() - told).flatten(1).square().sum(1).mean()
        pixels = -model.log_likelihood(logits, x).mean()
        recon = config.features * features + config.pixels * pixels
        of_drawn = model.critic.features(to_network(drawn))
        real, *fakes = (
            model.critic.head(part).flatten(1) for part in (seen.detach(), told, of_drawn)
        )
        real = real.detach()
        g_loss = torch.stack([generator_loss(fake, real, self.gan) for fake in fakes]).mean()
        losses = {
            "encoder": config.beta * kl + recon,
            "decoder": config.gamma * recon + config.adversarial * g_loss,
        }
        gradients = {name: self._gradients(name, loss) for name, loss in losses.items()}
        c_loss = self._critic_step(x, (again.detach(), drawn.detach()))
        for name, found in gradients.items():
            self._move(name, found)
        for part in self.parts.values():
            part.advance()
        logged = {
            "kl": kl, "features": features, "pixels": pixels, "g_loss": g_loss, "c_loss": c_loss,
            "mse": (again - x).square().mean(),
        }  # fmt: skip
        return {name: value.detach() for name, value in logged.items()}

    def _critic_step(self, x: Tensor, fakes: tuple[Tensor, Tensor]) -> Tensor:
        config, critic = self.config, self.model.critic
        real = to_network(x).requires_grad_(bool(config.r1))
        heights = critic(real)
        loss, c_loss = x.new_zeros(()), x.new_zeros(())
        if config.r1:
            loss = config.r1 / 2 * squared_slope(heights, real)
        for fake in fakes:
            fake = to_network(fake).requires_grad_(bool(config.r2))
            of_fake = critic(fake)
            c_loss = c_loss + critic_loss(heights, of_fake, self.gan) / len(fakes)
            if config.r2:
                loss = loss + config.r2 / 2 * squared_slope(of_fake, fake) / len(fakes)
        self._move("critic", self._gradients("critic", loss + c_loss))
        return c_loss

    def _gradients(self, name: str, loss: Tensor) -> list[Tensor]:
        """Those of one part; no other weight gets any."""
        weights = self._weights(name)
        self.parts[name].loss = loss.detach()
        found = torch.autograd.grad(
            loss, weights, retain_graph=name == "encoder", allow_unused=True, materialize_grads=True
        )
        return list(found)

    def _weights(self, name: str) -> list[nn.Parameter]:
        """Those that are trained; those of a classifier that a critic looks through are not."""
        return [w for w in self.parts[name].model.parameters() if w.requires_grad]

    def _move(self, name: str, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self._weights(name), gradients, strict=True):
            parameter.grad = gradient
        self.parts[name].move()

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
