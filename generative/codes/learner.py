"""Training of a VQ-VAE, and of a VQ-GAN against its critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.codes.config import VQGANLossConfig, VQVAELossConfig
from generative.codes.model import VQVAE, Passed, vqvae_loss
from generative.gan.config import GANLossConfig
from generative.gan.losses import critic_loss, generator_loss, squared_slope
from generative.nets.quantiser import VectorQuantiser, count_codes, perplexity
from generative.training.learner import ModelLearner, adamw
from generative.training.optimisation import Optimisation, parameter_groups

__all__ = ["VQGANLearner", "VQVAELearner"]

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images in [0, 1] -> their distances (B,)."""


class VQVAELearner(ModelLearner[VQVAE]):
    """Adam on the loss of a VQ-VAE; the list of codes moves and is revived after each step."""

    def __init__(self, model: VQVAE, config: VQVAELossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, x: Tensor) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1].

        Returns:
            loss, recon and codes as `VQVAELosses`; perplexity and used, of the codes of the batch.
        """
        passed = self.model.through(x)
        step = self.optimisation.step_number
        logged = self.descend(vqvae_loss(passed, x))
        early = step < self.config.revive_until * self.optimisation.steps
        return {**logged, **_observe(self.model, passed, early)}


class VQGANLearner:
    """Adam on the autoencoder and on its critic (Esser et al. 2021, section 3.1).

    The critic is trained from the first step, on images and what was made of them. Its term in the
    autoencoder's loss comes later: begun at once with an untrained critic, it ruins the images.

    Args:
        model: a `VQVAE` with a critic.
        config: see `VQGANLossConfig`.
        steps: updates over which the learning rates fall.
        distance: perceptual distance of images, such as `PerceptualDistance`; only needed where its
            weight is not 0.
    Raises:
        ValueError: the model has no critic, or a distance is needed and not given.
    """

    def __init__(
        self, model: VQVAE, config: VQGANLossConfig, steps: int, distance: Distance | None = None
    ):
        if model.critic is None:
            raise ValueError("the model has no critic; build one of VQGANConfig or ViTVQGANConfig")
        if config.perceptual and distance is None:
            raise ValueError(
                f"perceptual is {config.perceptual} and there is no distance; pass a "
                "PerceptualDistance, or perceptual 0"
            )
        self.model, self.config, self.steps = model, config, max(steps, 1)
        self.distance, self.gan = distance, GANLossConfig(config.objective, label_noise=0.0)
        self.parts: dict[str, Optimisation[nn.Module]] = {}
        betas, eps = (config.beta1, config.beta2), config.adam_eps
        for name, lr, decay in (
            ("autoencoder", config.lr, config.weight_decay),
            ("critic", config.critic_lr, 0.0),
        ):
            part = cast("nn.Module", getattr(model, name))
            groups = parameter_groups(part, decay)
            optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)
            self.parts[name] = Optimisation(part, optimizer, steps, lr * config.lr_end, name=name)

    def update(self, x: Tensor) -> dict[str, Tensor | float]:
        """One step of both networks on images (B, C, H, W) in [0, 1], one after the other.

        Returns:
            loss, the autoencoder's without the critic's term; recon, the error of pixels;
            perceptual, codes, perplexity and used; adversarial, the critic's term, and weight, by
            which it was multiplied; c_loss and c_accuracy of the critic, which is not trained where
            its weight is 0; mse, the squared error.
        """
        config, model = self.config, self.model
        step = self.parts["autoencoder"].step_number
        passed = model.through(x)
        pixels = F.l1_loss if config.recon == "l1" else F.mse_loss
        recon = pixels(passed.images, x)
        perceptual = recon.new_zeros(())
        if config.perceptual and self.distance is not None:
            perceptual = self.distance(passed.images, x).mean()
        content = recon + config.perceptual * perceptual
        loss = content + passed.quantised.loss
        adversarial, weight = self._adversarial(passed, x, content, step)
        gradients = self._gradients("autoencoder", loss + weight * adversarial)
        logged = self._critic_step(x, passed.images.detach()) if config.adversarial else {}
        self._move("autoencoder", gradients)
        for part in self.parts.values():
            part.advance()
        values = {
            "loss": loss, "recon": recon, "perceptual": perceptual,
            "codes": passed.quantised.loss, "adversarial": adversarial, "weight": weight,
            "mse": F.mse_loss(passed.images, x),
        }  # fmt: skip
        logged = {name: value.detach() for name, value in values.items()} | logged
        early = step < config.revive_until * self.steps
        return {**logged, **_observe(model, passed, early)}

    def _adversarial(
        self, passed: Passed, x: Tensor, content: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """The critic's term, and what it is multiplied by: 0 before its time."""
        config, model = self.config, self.model
        if step < config.begin * self.steps or not config.adversarial:
            zero = content.detach().new_zeros(())
            return zero, zero
        fake, real = self._heights(passed.images), self._heights(x).detach()
        term = generator_loss(fake, real, self.gan)
        ratio = content.new_ones(())
        if config.adaptive:
            last = cast("nn.Linear", model.decoder.last).weight
            of_content, of_term = (
                torch.autograd.grad(part, last, retain_graph=True)[0].norm()
                for part in (content, term)
            )
            ratio = (of_content / (of_term + 1e-4)).clamp(0, config.most).detach()
        return term, config.adversarial * ratio

    def _critic_step(self, x: Tensor, fake: Tensor) -> dict[str, Tensor | float]:
        config = self.config
        x = x.detach().requires_grad_(bool(config.r1))
        fake = fake.requires_grad_(bool(config.r2))
        real_heights, fake_heights = self._heights(x), self._heights(fake)
        c_loss = critic_loss(real_heights, fake_heights, self.gan)
        loss = c_loss
        for weight, heights, images in (
            (config.r1, real_heights, x),
            (config.r2, fake_heights, fake),
        ):
            if weight:
                loss = loss + weight / 2 * squared_slope(heights.flatten(1).mean(1), images)
        self._move("critic", self._gradients("critic", loss))
        accuracy = (real_heights > fake_heights).float().mean()
        return {"c_loss": c_loss.detach(), "c_accuracy": accuracy}

    def _heights(self, images: Tensor) -> Tensor:
        assert self.model.critic is not None
        return self.model.critic(2 * images - 1)

    def _gradients(self, name: str, loss: Tensor) -> list[Tensor]:
        """Those of one part; no other weight gets any."""
        self.parts[name].loss = loss.detach()
        return list(torch.autograd.grad(loss, list(self.parts[name].model.parameters())))

    def _move(self, name: str, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.parts[name].model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.parts[name].move()

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def _observe(model: VQVAE, passed: Passed, revive: bool) -> dict[str, Tensor | float]:
    """Let a list of codes learn from a step; returns how many codes the batch has."""
    codes = passed.quantised.codes
    if isinstance(model.quantiser, VectorQuantiser):
        model.quantiser.observe(passed.z, codes, revive)
    counts = count_codes(codes, model.num_codes)
    return {"perplexity": perplexity(counts), "used": (counts > 0).float().sum()}
