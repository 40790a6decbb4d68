"""Training of translators: pix2pix on pairs, CycleGAN on a batch of each set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from generative.gan.config import GANLossConfig
from generative.gan.learner import AdversarialLearner
from generative.gan.losses import critic_loss, generator_loss, squared_slope
from generative.gan.networks import to_network
from generative.training.checks import check_images, check_some
from generative.translation.config import CycleGANLossConfig, Pix2PixLossConfig
from generative.translation.model import CycleGAN, Pix2Pix, check_pairs

__all__ = ["CycleGANLearner", "FakeBuffer", "Pix2PixLearner"]

M = TypeVar("M", bound=nn.Module)
Critic = Callable[[Tensor], Tensor]


class _TranslationLearner(AdversarialLearner[M]):
    """Parts of both learners: Adam, rates that fall in a straight line, the critic's loss."""

    def __init__(self, model: M, gan: GANLossConfig, constant: float, steps: int):
        self.gan = gan
        make = partial(torch.optim.Adam, betas=(gan.beta1, gan.beta2), eps=gan.adam_eps)
        super().__init__(model, steps, gan.lr, gan.critic_lr, gan.lr_end, gan.ema, make)
        for name, first in (("generator", gan.lr), ("critic", gan.critic_lr)):
            part = self.parts[name]
            part.rate = partial(_straight, steps=steps, constant=constant, first=first,
                                end=gan.lr_end)  # fmt: skip

    def critic_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of a critic of patches with its penalties, from images that are not trained."""
        gan, done = self.gan, self.parts["critic"].step_number
        every = 0 if done % gan.penalty_every else gan.penalty_every
        left = every * gan.penalty_end ** min(done / self.steps, 1)
        weights = left * gan.r1, left * gan.r2
        pair = [
            x.detach().requires_grad_(w > 0) for x, w in zip((real, fake), weights, strict=True)
        ]
        heights = [critic(x) for x in pair]
        loss = critic_loss(heights[0], heights[1], gan)
        for weight, height, x in zip(weights, heights, pair, strict=True):
            if weight:
                loss = loss + weight / 2 * squared_slope(height.flatten(1).mean(1), x)
        return loss

    def generator_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of a generator by its critic, a mean over patches."""
        with torch.no_grad():
            height = critic(real)
        return generator_loss(critic(fake), height, self.gan)


def _straight(step: int, steps: int, constant: float, first: float, end: float) -> float:
    """Learning rate that is constant for a share of the steps, and then falls to end * first."""
    done = max(0.0, step / max(steps, 1) - constant) / max(1 - constant, 1e-12)
    return first * (1 - (1 - end) * min(done, 1.0))


class Pix2PixLearner(_TranslationLearner[Pix2Pix]):
    """Adam on both networks, the critic first; `kept` holds the weights to keep."""

    def __init__(self, model: Pix2Pix, config: Pix2PixLossConfig, steps: int):
        self.config = config
        super().__init__(model, config.gan, config.constant, steps)

    def update(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """One update on sources (B, C', H, W) and their images (B, C, H, W), in [0, 1].

        Returns:
            l1, the mean absolute difference of pixels in [0, 1]; loss, of the generator; with a
            critic also c_loss and g_loss, the critic's part of the generator's.
        """
        config, model = self.config, self.model
        source, image = batch
        check_pairs(source, image)
        x = to_network(
            check_images(check_some(source, model), model.source_shape, model, "sources")
        )
        real = to_network(check_images(image, model.shape, model))

        def critic(y: Tensor) -> Tensor:
            return model.critic(torch.cat([y, x], 1))

        fake, logged = model.generator(x), {}
        for i in range(self.gan.critic_steps if config.gan_weight else 0):
            fake = model.generator(x) if i else fake
            c_loss = self.critic_loss(critic, real, fake)
            self.move("critic", self.gradients("critic", c_loss))
            logged["c_loss"] = c_loss.detach()
        for i in range(self.gan.generator_steps):
            fake = model.generator(x) if i else fake
            l1 = (fake - real).abs().mean()
            loss = config.l1 * l1
            if config.gan_weight:
                g_loss = self.generator_loss(critic, real, fake)
                loss = loss + config.gan_weight * g_loss
                logged["g_loss"] = g_loss.detach()
            self.move("generator", self.gradients("generator", loss))
            logged |= {"l1": l1.detach() / 2, "loss": loss.detach()}
        self.advance(x)
        return logged


class FakeBuffer:
    """Earlier generated images, of which a critic sees one in place of every second new one.

    It keeps the critic from forgetting what it has learned to tell (Shrivastava et al. 2017,
    section 2.3).

    Args:
        size: how many are kept; 0 leaves all as it is.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: Tensor | None = None
        """(N, C, H, W); None before the first."""

    def exchange(self, images: Tensor) -> Tensor:
        """Put images (B, C, H, W) in, and give as many back: the new ones until the buffer is full,
        then each with a chance of 1/2 the earlier one whose place it takes."""
        if not self.size:
            return images
        images = images.detach().clone()
        old = images[:0] if self.images is None else self.images
        room = min(self.size - len(old), len(images))
        self.images = torch.cat([old, images[:room]])
        for i in range(room, len(images)):
            if float(torch.rand(())) < 0.5:
                place = int(torch.randint(self.size, ()))
                new = images[i].clone()
                images[i] = self.images[place]
                self.images[place] = new
        return images


class CycleGANLearner(_TranslationLearner[CycleGAN]):
    """Adam on both generators, then on both critics; `kept` holds the weights to keep."""

    def __init__(self, model: CycleGAN, config: CycleGANLossConfig, steps: int):
        self.config = config
        super().__init__(model, config.gan, config.constant, steps)
        self.buffers = {name: FakeBuffer(config.buffer_size) for name in ("there", "back")}

    def update(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """One update on images (B, C, H, W) of the first and of the second set, in [0, 1].

        Returns:
            c_loss and g_loss, sums over both critics; cycle and identity, mean absolute differences
            of pixels in [0, 1]; loss, of the generators.
        """
        config, model = self.config, self.model
        a, b = (to_network(check_images(check_some(x, model), model.shape, model)) for x in batch)
        # By the name of the direction: its critic, and the images that are real to it.
        critics = [(model.critic[name], real) for name, real in (("there", b), ("back", a))]
        logged: dict[str, Tensor | float] = {}
        fakes = []
        for _ in range(self.gan.generator_steps):
            there, back = model.generator["there"], model.generator["back"]
            fakes = [there(a), back(b)]
            cycle = _l1(back(fakes[0]), a) + _l1(there(fakes[1]), b)
            g_loss = torch.stack(
                [self.generator_loss(c, real, fake)
                 for (c, real), fake in zip(critics, fakes, strict=True)]
            ).sum()  # fmt: skip
            loss = g_loss + config.cycle * cycle
            if config.identity:
                identity = _l1(there(b), b) + _l1(back(a), a)
                loss = loss + config.identity * identity
                logged["identity"] = identity.detach() / 4
            self.move("generator", self.gradients("generator", loss))
            logged |= {"g_loss": g_loss.detach(), "cycle": cycle.detach() / 4}
            logged["loss"] = loss.detach()
        for _ in range(self.gan.critic_steps):
            shown = [
                buffer.exchange(fake)
                for buffer, fake in zip(self.buffers.values(), fakes, strict=True)
            ]
            c_loss = torch.stack(
                [self.critic_loss(c, real, fake)
                 for (c, real), fake in zip(critics, shown, strict=True)]
            ).sum()  # fmt: skip
            self.move("critic", self.gradients("critic", c_loss))
            logged["c_loss"] = c_loss.detach()
        for part in self.parts.values():
            part.advance()
        return logged

    def state_dict(self) -> dict:
        return {
            **super().state_dict(),
            "buffers": {name: buffer.images for name, buffer in self.buffers.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        device = next(self.model.parameters()).device
        for name, buffer in self.buffers.items():
            images = state["buffers"][name]
            buffer.images = None if images is None else images.to(device, copy=True)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean()
