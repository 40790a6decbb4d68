"""Training of a generator against a critic: with the losses of GANs, or as a Wasserstein GAN."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from generative.gan.config import GANLossConfig, WGANLossConfig
from generative.gan.losses import (
    critic_loss,
    generator_loss,
    gradient_penalty,
    orthogonal_penalty,
    squared_slope,
)
from generative.gan.measures import energy_coefficient
from generative.gan.model import GAN, check_examples, draw_z
from generative.gan.networks import to_network
from generative.training.checks import check_some
from generative.training.optimisation import Optimisation

__all__ = ["AdversarialLearner", "Batch", "GANLearner", "WGANLearner"]

M = TypeVar("M", bound=nn.Module)
Batch: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""Examples, or examples and the label of each."""


class AdversarialLearner(Generic[M]):
    """Base of the learners of GANs: an optimiser for each network, an average of the generator.

    Args:
        model: has a `generator` and a `critic`.
        steps: updates over which the learning rates fall.
        lr, critic_lr: of the generator and of the critic; `lr_end` is their last share.
        ema: decay of the average of the generator's weights; 0 keeps the last ones.
        make: parameters and learning rate -> optimiser.
    """

    def __init__(
        self,
        model: M,
        steps: int,
        lr: float,
        critic_lr: float,
        lr_end: float,
        ema: float,
        make: Callable[..., torch.optim.Optimizer],
    ):
        self.model, self.steps = model, max(steps, 1)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.parts: dict[str, Optimisation[nn.Module]] = {}
        for name, first, decay in (("generator", lr, ema), ("critic", critic_lr, 0.0)):
            network = cast("nn.Module", getattr(model, name))
            trained = [p for p in network.parameters() if p.requires_grad]
            self.optimizers[name] = optimizer = make(trained, lr=first)
            self.parts[name] = Optimisation(
                network, optimizer, steps, first * lr_end, ema=decay, name=name
            )

    @property
    def kept(self) -> M:
        """A copy of the model with the generator that should be sampled."""
        kept = copy.deepcopy(self.model).eval()
        generator = self.parts["generator"].current.state_dict()
        cast("nn.Module", kept.generator).load_state_dict(generator)
        return kept

    def _trained(self, name: str) -> list[nn.Parameter]:
        return [p for p in self.parts[name].model.parameters() if p.requires_grad]

    def gradients(self, name: str, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        """Those of one network; the other's stay as they are."""
        parameters, self.parts[name].loss = self._trained(name), loss.detach()
        return list(torch.autograd.grad(loss, parameters, retain_graph=retain_graph))

    def move(self, name: str, gradients: list[Tensor]) -> None:
        """Move the weights of one network against these gradients."""
        parameters = self._trained(name)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.parts[name].move()

    def advance(self, *inputs: Any) -> None:
        """End an update.

        Args:
            inputs: what the generator was given. Its average is given them too, so that its batch
                statistics are of its own weights: averages of those of other weights fit less well.
        """
        for part in self.parts.values():
            part.advance()
        average = self.parts["generator"].average
        if average is not None and any(True for _ in average.module.buffers()):
            with torch.no_grad():
                average.module.train()(*inputs)

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class GANLearner(AdversarialLearner[GAN]):
    """Adam on both networks; `kept` holds the weights to keep.

    A step computes the gradients of both networks before either moves, as the book does. Of a
    conditional GAN, batches are examples and their labels.
    """

    def __init__(self, model: GAN, config: GANLossConfig, steps: int):
        self.config = config
        betas = (config.beta1, config.beta2)
        make = partial(torch.optim.Adam, betas=betas, eps=config.adam_eps)
        rates = (config.lr, config.critic_lr, config.lr_end)
        super().__init__(model, steps, *rates, config.ema, make)

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """One update on examples (B, *shape), or on (examples, labels (B,)).

        Returns:
            c_loss, g_loss; real_accuracy and fake_accuracy, the shares of each that the
            critic tells rightly, and accuracy, their mean (of pairs accuracy alone, the share in
            which the real example is the higher one); energy and spread, see
            `energy_coefficient`; penalty, if there is one.
        """
        x, given = split_batch(batch)
        real = to_network(check_some(check_examples(x, self.model), self.model))
        for _ in range(self.config.critic_steps - 1):
            self._step(real, self._draw(real), given, ("critic",))
        for _ in range(self.config.generator_steps - 1):
            self._step(real, self._draw(real), given, ("generator",))
        z = self._draw(real)
        logged = self._step(real, z, given, ("critic", "generator"))
        self.advance(z, *given)
        return logged

    def _draw(self, real: Tensor) -> Tensor:
        return draw_z(self.model, len(real))

    def _step(
        self, real: Tensor, z: Tensor, given: tuple[Tensor, ...], moving: tuple[str, ...]
    ) -> dict[str, Tensor | float]:
        config, model = self.config, self.model
        fake = model.generator(z, *given)
        penalised = self.parts["generator"].step_number % config.penalty_every == 0
        if config.r1 and penalised:
            real = real.detach().requires_grad_()
        real_heights, fake_heights = (model.critic(x, *given) for x in (real, fake))
        c_loss = critic_loss(real_heights, fake_heights, config)
        losses = {
            "critic": c_loss,
            "generator": generator_loss(fake_heights, real_heights.detach(), config),
        }
        penalty = self._penalty(real, real_heights, fake, fake_heights) if penalised else None
        if penalty is not None:
            losses["critic"] = c_loss + penalty
        g_loss = losses["generator"].detach()
        if config.orthogonal and "generator" in moving:
            added = config.orthogonal * orthogonal_penalty(model.generator)
            losses["generator"] = losses["generator"] + added
        gradients = {name: self.gradients(name, losses[name], True) for name in moving}
        for name in moving:
            self.move(name, gradients[name])
        told = _accuracies(real_heights.detach(), fake_heights.detach(), config)
        return {
            "c_loss": c_loss.detach(),
            "g_loss": g_loss,
            **({} if penalty is None else {"penalty": penalty.detach()}),
            **told,
            **energy_coefficient(real.detach(), fake.detach())._asdict(),
        }

    def _penalty(
        self, real: Tensor, real_heights: Tensor, fake: Tensor, fake_heights: Tensor
    ) -> Tensor | None:
        """r1 / 2 |slope at real|^2 + r2 / 2 |slope at fake|^2; none if both weights are 0."""
        every = self.config.penalty_every
        weights = every * self.config.r1, every * self.config.r2
        pairs = ((weights[0], real_heights, real), (weights[1], fake_heights, fake))
        terms = [weight / 2 * squared_slope(heights, x) for weight, heights, x in pairs if weight]
        done = min(self.parts["generator"].step_number / self.steps, 1)
        return self.config.penalty_end**done * torch.stack(terms).sum() if terms else None


def _accuracies(real: Tensor, fake: Tensor, config: GANLossConfig) -> dict[str, Tensor]:
    # Heights of pairs are compared with each other alone: those of two labels may lie anywhere.
    if config.objective == "relativistic":
        return {"accuracy": (real > fake).float().mean()}
    middle = 0.5 if config.objective == "squares" else 0.0
    of_real, of_fake = (real > middle).float().mean(), (fake <= middle).float().mean()
    accuracy = (of_real + of_fake) / 2
    return {"real_accuracy": of_real, "fake_accuracy": of_fake, "accuracy": accuracy}


def split_batch(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Examples, and their conditions: none, or their labels."""
    return (batch, ()) if isinstance(batch, Tensor) else (batch[0], batch[1:])


class WGANLearner(AdversarialLearner[GAN]):
    """Several steps of the critic on one batch, then one of the generator; `kept` holds the weights
    to keep.

    Of a conditional GAN, batches are examples and their labels.
    """

    def __init__(self, model: GAN, config: WGANLossConfig, steps: int):
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
        g_loss = -self.model.critic(fake, *given).mean()
        self.move("generator", self.gradients("generator", g_loss))
        self.advance(z, *given)
        energy = energy_coefficient(real, fake.detach())._asdict()
        return {**logged, "g_loss": g_loss.detach(), **energy}

    def _critic_step(self, real: Tensor, given: tuple[Tensor, ...]) -> dict[str, Tensor]:
        config, critic = self.config, self.model.critic
        with torch.no_grad():
            fake = self.model.generator(draw_z(self.model, len(real)), *given)
        c_wass = critic(fake, *given).mean() - critic(real, *given).mean()
        if config.lipschitz == "clipping":
            self.move("critic", self.gradients("critic", c_wass))
            with torch.no_grad():
                for parameter in critic.parameters():
                    parameter.clamp_(-config.clip, config.clip)
            return {"c_loss": c_wass.detach()}
        c_gp = gradient_penalty(
            critic, real, fake, *given, alpha=config.alpha, norm_eps=config.norm_eps
        )
        c_loss = c_wass + config.penalty * c_gp
        self.move("critic", self.gradients("critic", c_loss))
        return {"c_wass": c_wass.detach(), "c_gp": c_gp.detach(), "c_loss": c_loss.detach()}
