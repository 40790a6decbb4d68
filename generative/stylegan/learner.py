"""Training of GANs that grow and of GANs with styles.

Both networks take a step of Adam on the same examples, in steps of growth that follow the number of
images seen. Penalties are part of the critic's loss, or now and then a step of their own.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from generative.gan.learner import AdversarialLearner
from generative.gan.losses import (
    critic_objective,
    generator_objective,
    gradient_penalty,
    squared_slope,
)
from generative.gan.measures import energy_coefficient
from generative.gan.networks import to_network
from generative.stylegan.config import ProGANLossConfig, StyleGANLossConfig
from generative.stylegan.growing import Stage, reduce, stage_of
from generative.stylegan.model import ProGAN, StyleGAN
from generative.training.checks import check_images, check_some

__all__ = ["ProGANLearner", "StyleGANLearner", "mix", "path_lengths"]


class ProGANLearner(AdversarialLearner[ProGAN]):
    """Adam on both networks while they grow; `kept` holds the weights to keep.

    A layer that is not yet used has no gradient, so its average of gradients begins with it.

    Args:
        model: the pair.
        config: settings.
        steps: updates over which the learning rates fall.
    Raises:
        ValueError: phases of growth, and a generator that does not grow.
    """

    def __init__(self, model: ProGAN, config: ProGANLossConfig, steps: int):
        if config.phase_images and not model.grows:
            raise ValueError(
                f"phase_images is {config.phase_images}, and the generator does not grow, as that "
                "of StyleGAN2; give 0"
            )
        self.config, self.images = config, 0
        # Steps of their own for penalties are further steps of the same optimiser; its rate and
        # decays are scaled so that an update moves and forgets as much as without them.
        generator, critic = self._share_of_losses(), 1.0
        if self._lazy:
            critic = config.penalty_every / (config.penalty_every + 1)
        lr, critic_lr = generator * config.lr, critic * config.critic_lr
        make = partial(torch.optim.Adam, eps=config.adam_eps)
        super().__init__(model, steps, lr, critic_lr, config.lr_end, config.ema, make)
        for name, share in (("generator", generator), ("critic", critic)):
            for group in self.optimizers[name].param_groups:
                group["betas"] = (config.beta1**share, config.beta2**share)

    def _share_of_losses(self) -> float:
        """Share of the generator's steps that are on its loss and not on a penalty."""
        return 1.0

    @property
    def _lazy(self) -> bool:
        config = self.config
        return config.penalty_every > 1 and bool(config.gradient_penalty or config.r1 or config.r2)

    @property
    def stage(self) -> Stage:
        """Stage of growth of the next update."""
        side, phase_images = self.model.shape[-1], self.config.phase_images
        return stage_of(self.images, side, phase_images) if phase_images else Stage(side, 1.0)

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One update on images (B, *shape) in [0, 1], which are reduced to the present stage.

        Returns:
            c_loss, g_loss; penalty where one was taken; side and alpha, the stage; energy and
            spread, see `energy_coefficient`.
        """
        x = check_some(check_images(batch, self.model.shape, self.model), self.model)
        stage = self.stage
        real = reduce(to_network(x), stage)
        logged = self._step(real, stage)
        if self._lazy and self._steps_done % self.config.penalty_every == 0:
            logged["penalty"] = self._penalty_step(real, stage)
        self._regularise(len(real), stage, logged)
        self.images += len(x)
        self.advance()
        return {**logged, "side": float(stage.side), "alpha": stage.alpha}

    def _step(self, real: Tensor, stage: Stage) -> dict[str, Tensor | float]:
        """Move both networks against the gradients of their losses at the same examples."""
        config, in_loss = self.config, not self._lazy
        if in_loss and config.r1:
            real = real.detach().requires_grad_()
        fake = self._fake(len(real), stage)
        real_heights, fake_heights = (self._heights(x, stage) for x in (real, fake))
        c_loss = critic_objective(real_heights, fake_heights, config.objective)
        g_loss = generator_objective(fake_heights, real_heights.detach(), config.objective)
        logged: dict[str, Tensor | float] = {"c_loss": c_loss.detach(), "g_loss": g_loss.detach()}
        if config.drift:
            c_loss = c_loss + config.drift * real_heights.square().mean()
        penalty = self._penalty(real, real_heights, fake, fake_heights, stage) if in_loss else None
        if penalty is not None:
            c_loss, logged["penalty"] = c_loss + penalty, penalty.detach()
        losses = {"critic": c_loss, "generator": g_loss}
        gradients = {name: self.gradients(name, losses[name], True) for name in losses}
        for name in losses:
            self.move(name, gradients[name])
        return {**logged, **energy_coefficient(real.detach(), fake.detach())._asdict()}

    def _penalty_step(self, real: Tensor, stage: Stage) -> Tensor:
        """Move the critic against the gradient of its penalty alone; returns the penalty."""
        with torch.no_grad():
            fake = self._fake(len(real), stage)
        real, fake = (x.detach().requires_grad_() for x in (real, fake))
        heights = [self._heights(x, stage) for x in (real, fake)]
        penalty = self._penalty(real, heights[0], fake, heights[1], stage)
        assert penalty is not None
        self.move("critic", self.gradients("critic", self.config.penalty_every * penalty))
        return penalty.detach()

    def _penalty(
        self, real: Tensor, real_heights: Tensor, fake: Tensor, fake_heights: Tensor, stage: Stage
    ) -> Tensor | None:
        """R1, R2 and the gradient penalty with their weights; None if all are 0."""
        config = self.config
        left = config.penalty_end ** min(self._steps_done / self.steps, 1)
        pairs = ((config.r1, real_heights, real), (config.r2, fake_heights, fake))
        terms = [left * w / 2 * squared_slope(heights, x) for w, heights, x in pairs if w]
        if config.gradient_penalty:
            slope = gradient_penalty(_Judge(self, stage), real.detach(), fake.detach())
            terms.append(config.gradient_penalty * slope)
        return torch.stack(terms).sum() if terms else None

    def _regularise(self, n: int, stage: Stage, logged: dict[str, Tensor | float]) -> None:
        """Further steps of the generator; adds what they log."""

    @property
    def _steps_done(self) -> int:
        return self.parts["generator"].step_number

    def _fake(self, n: int, stage: Stage) -> Tensor:
        grown = (stage.side, stage.alpha) if self.config.phase_images else ()
        return self.model.generator(self.model.draw_z(n), *grown)

    def _heights(self, x: Tensor, stage: Stage) -> Tensor:
        return self.model.critic(x, *((stage.alpha,) if self.config.phase_images else ()))

    def gradients(self, name: str, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        """Those of one network, None for layers that are not used; the other's stay as they are."""
        self.parts[name].loss = loss.detach()
        return list(
            torch.autograd.grad(
                loss, self._trained(name), retain_graph=retain_graph, allow_unused=True
            )
        )

    def state_dict(self) -> dict:
        """The state of `AdversarialLearner`, and the number of images seen: where growth is."""
        return {**super().state_dict(), "images": self.images}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.images = state["images"]


class _Judge(nn.Module):
    """The critic at a stage."""

    def __init__(self, learner: ProGANLearner, stage: Stage):
        super().__init__()
        self.forward = lambda x: learner._heights(x, stage)


class StyleGANLearner(ProGANLearner):
    """The same with two styles an image, noise in every layer, and even path lengths in w."""

    model: StyleGAN
    config: StyleGANLossConfig

    def __init__(self, model: StyleGAN, config: StyleGANLossConfig, steps: int):
        super().__init__(model, config, steps)
        device = next(model.parameters()).device
        self.path_mean = torch.zeros((), dtype=torch.float32, device=device)

    def _share_of_losses(self) -> float:
        every = self.config.path_every
        return every / (every + 1) if self.config.path_weight else 1.0

    def _fake(self, n: int, stage: Stage) -> Tensor:
        return self._synthesis(self._styles(n), stage)

    def _styles(self, n: int) -> Tensor:
        """A style for each layer of n images, some of them of two kinds."""
        model, config = self.model, self.config
        w = model.styles(model.draw_z(n))
        if not config.mixing:
            return w
        return mix(w, model.styles(model.draw_z(n)), config.mixing, config.mixing_kind)

    def _synthesis(self, w: Tensor, stage: Stage) -> Tensor:
        grown = (stage.side, stage.alpha) if self.config.phase_images else ()
        return self.model.styled.synthesis(w, self.model.draw_noise(len(w)), *grown)

    def _regularise(self, n: int, stage: Stage, logged: dict[str, Tensor | float]) -> None:
        """Every few updates, a step that evens out path lengths (Karras et al. 2020, section 3.2).

        The mean that they are drawn to follows them.
        """
        config = self.config
        if not config.path_weight or self._steps_done % config.path_every:
            return
        w = self._styles(max(n // config.path_shrink, 1))
        lengths = path_lengths(self._synthesis(w, stage), w)
        mean = lengths.detach().mean().to(self.path_mean)
        self.path_mean = self.path_mean + config.path_decay * (mean - self.path_mean)
        penalty = (lengths - self.path_mean.to(lengths)).square().mean()
        loss = config.path_every * config.path_weight * penalty
        self.move("generator", self.gradients("generator", loss))
        logged |= {"path_length": mean, "path_penalty": penalty.detach()}

    def state_dict(self) -> dict:
        """That of a GAN that grows, and the mean path length."""
        return {**super().state_dict(), "path_mean": self.path_mean}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.path_mean = state["path_mean"]


def mix(first: Tensor, second: Tensor, share: float, kind: str = "crossover") -> Tensor:
    """Styles (B, K, D) of which some images have two (Karras et al. 2019, section 3.1).

    Args:
        share: of the images that are mixed.
        kind: "crossover" takes the first style up to a layer at random, from 1 to K - 1, and the
            second from there on; "layers" takes one of the two at random in each layer.
    """
    n, k, _ = first.shape
    placed = {"device": first.device, "dtype": first.dtype}
    if kind == "crossover":
        start = torch.randint(1, k, (n, 1), device=first.device)
        other = torch.arange(k, device=first.device) >= start
    else:
        other = torch.rand(n, k, **placed) < 0.5
    other &= torch.rand(n, 1, **placed) < share
    return torch.where(other[:, :, None], second, first)


def path_lengths(images: Tensor, w: Tensor, eps: float = 1e-12) -> Tensor:
    """Length of J^T y for each image, where J = d image / d w and y is an image of noise, (B,).

    On average over y it tells how far an image moves for a small step in w. With a style for each
    layer it is the root mean square over layers.

    Args:
        images: (B, C, H, W), computed from w.
        w: (B, K, D) with a gradient.
        eps: added under the root, which has no slope at 0.
    """
    y = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    (slope,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    return (slope.square().sum(2).mean(1) + eps).sqrt()
