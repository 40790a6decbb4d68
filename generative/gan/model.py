"""Generative adversarial networks: generator, discriminator, losses, learner, checks of samples.

A generator makes examples of noise, a discriminator learns to tell them from real ones, and the
generator learns to mislead it (Goodfellow et al. 2014). The networks are those of the DCGAN
(Radford et al. 2016; Foster 2023, chapter 4), for points in the plane fully connected ones.

    gan = GAN.from_pretrained("runs/gan/model")
    gan.sample(16)                       # (16, 1, 64, 64) in [0, 1]
    gan.generate(z)                      # noise (B, 100) -> images, the same for the same z
    gan.score(images)                    # logits (B,), above 0 where they are taken for real

`wgan.py` and `conditional_gan.py` use the same networks.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from generative.gan.config import GANConfig, GANLossConfig
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_, normal_
from generative.training.checks import (
    at_least_float32,
    check_images,
    check_some,
    check_vectors,
    checked,
    placed,
)
from generative.training.optimisation import Optimisation
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero

if TYPE_CHECKING:
    from generative.data.image_set import ImageSet
    from generative.gan.conditional import ConditionalGAN
    from generative.gan.wgan import WGAN

__all__ = [
    "GAN",
    "Coverage",
    "Discriminator",
    "GANConfig",
    "GANLearner",
    "GANLossConfig",
    "Generator",
    "coverage",
    "discriminator_loss",
    "energy_coefficient",
    "generator_loss",
    "nearest_images",
    "squared_slope",
]

M = TypeVar("M", bound=nn.Module)
Batch: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""Examples, or examples and the label of each."""


# ---------------------------------------------------------------------------------------------
# Networks; for them images have values from -1 to 1, as the generator's tanh gives them
# ---------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Noise (B, latent_dim) -> images (B, C, H, W) in [-1, 1], or points (B, D).

    3,574,656 parameters at the book's sizes.

    Args:
        config: see `GANConfig`.
        num_given: numbers that follow the noise, such as those of a label.
    """

    def __init__(self, config: GANConfig, num_given: int = 0):
        super().__init__()
        in_dim = config.latent_dim + num_given
        if len(config.shape) == 1:
            hidden = _hidden_layers(in_dim, config)
            self.layers = nn.Sequential(*hidden, _last_layer(config, config.shape[0]))
        else:
            self.layers = nn.Sequential(*_generator_layers(in_dim, config))
        _initialise(self, config)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def _generator_layers(in_dim: int, config: GANConfig) -> Iterator[nn.Module]:
    """From one pixel of `in_dim` channels to a small map, and then double its sides."""
    normalise, widths = config.batch_norm != "none", config.widths[::-1]
    small = _small_sides(config)
    bias = config.bias and not normalise
    yield nn.Unflatten(1, (in_dim, 1, 1))
    yield nn.ConvTranspose2d(in_dim, widths[0], small, bias=bias)
    for i, (before, after) in enumerate(itertools.pairwise((*widths, config.shape[0]))):
        if normalise:
            yield nn.BatchNorm2d(before, eps=1e-3, momentum=0.1)
        yield nn.LeakyReLU(0.2)
        bias = config.bias and (not normalise or i == len(widths) - 1)
        if config.upsample == "transposed":
            yield nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
        else:
            yield nn.Upsample(scale_factor=2)
            # "same" padding of an even kernel has the odd row and column at the end.
            yield nn.ZeroPad2d((1, 2, 1, 2))
            yield nn.Conv2d(before, after, 4, bias=bias)
    yield nn.Tanh()


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [-1, 1], or points (B, D) -> scores (B,), higher for real ones.

    A score is a logit to a GAN and a height to a Wasserstein GAN; no sigmoid follows. 2,763,520
    parameters at the book's sizes.

    Args:
        config: see `GANConfig`.
        num_given: channels (of points: numbers) that follow those of the example.
    """

    def __init__(self, config: GANConfig, num_given: int = 0):
        super().__init__()
        if len(config.shape) == 1:
            in_dim = config.shape[0] + num_given
            waves = [Waves(math.pi / 2, config.num_waves)] if config.num_waves else []
            width = in_dim * (1 + 2 * config.num_waves)
            self.features = nn.Sequential(*waves, *_hidden_layers(width, config, config.dropout))
            self.head = _last_layer(config, 1)
        else:
            channels = (config.shape[0] + num_given, *config.widths)
            self.features = nn.Sequential(*_discriminator_layers(channels, config))
            self.head = nn.Conv2d(channels[-1], 1, _small_sides(config), bias=config.bias)
        _initialise(self, config)
        if config.spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).flatten()


def _discriminator_layers(channels: tuple[int, ...], config: GANConfig) -> Iterator[nn.Module]:
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        normalise = config.batch_norm == "both" and i > 0
        bias = config.bias and not normalise
        yield nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias)
        if normalise:
            yield nn.BatchNorm2d(after, eps=1e-3, momentum=0.1)
        yield nn.LeakyReLU(0.2)
        yield nn.Dropout(config.dropout)


def _hidden_layers(in_dim: int, config: GANConfig, dropout: float = 0.0) -> Iterator[nn.Module]:
    for before, after in itertools.pairwise((in_dim, *config.widths)):
        yield nn.Linear(before, after, bias=config.bias)
        yield nn.LeakyReLU(0.2)
        if dropout:
            yield nn.Dropout(dropout)


def _last_layer(config: GANConfig, out_dim: int) -> nn.Linear:
    return nn.Linear(config.widths[-1], out_dim, bias=config.bias)


def _small_sides(config: GANConfig) -> tuple[int, int]:
    """Height and width of an image after all convolutions of the discriminator."""
    _, h, w = config.shape
    return (h >> len(config.widths), w >> len(config.widths))


def _initialise(network: nn.Module, config: GANConfig) -> None:
    if config.init == "normal" and len(config.shape) == 3:
        normal_(network)
    else:
        glorot_(network)


def to_network(x: Tensor) -> Tensor:
    """Images from [0, 1] to [-1, 1]; points as they are."""
    return 2 * x - 1 if x.dim() == 4 else x


def from_network(x: Tensor) -> Tensor:
    """The inverse."""
    return (x + 1) / 2 if x.dim() == 4 else x


def check_examples(x: Tensor, model: GAN | WGAN | ConditionalGAN) -> Tensor:
    """Return x if it is what this GAN judges, images or points.

    Raises:
        ValueError: another shape or type, or a pixel outside [0, 1].
    """
    shape = model.config.shape
    if len(shape) == 1:
        return check_vectors(x, shape[0], "points", model)
    return check_images(x, shape, model)


# ---------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------


class GAN(Pretrained, nn.Module):
    """Generator and discriminator; the defaults are the book's DCGAN.

    In evaluation mode, as `from_pretrained` and the learner's `kept` give it, a sample depends on
    its own noise alone; in training mode, by batch normalisation, on its neighbours too.
    """

    config_class = GANConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"sample"})

    def __init__(self, config: GANConfig | None = None):
        super().__init__()
        self.config = config = config or GANConfig()
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor) -> Tensor:
        """Noise (B, latent_dim) -> images (B, C, H, W) in [0, 1], or points (B, D)."""
        z = check_vectors(z, self.config.latent_dim, "z", self)
        return from_network(self.generator(z))

    def score(self, x: Tensor) -> Tensor:
        """Logit of each example being real, (B, *shape) -> (B,).

        Raises:
            ValueError: another shape or type, or a pixel outside [0, 1].
        """
        return self.discriminator(to_network(check_examples(x, self)))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape): `generate` of standard normal z."""
        return self.generate(draw_z(self, n, generator))


@checked
def draw_z(model: Any, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise for the generator of a GAN, (n, latent_dim), where its weights are."""
    return torch.randn(n, model.config.latent_dim, generator=generator, **placed(model))


# ---------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------


def discriminator_loss(real: Tensor, fake: Tensor, config: GANLossConfig) -> Tensor:
    """What the discriminator minimises, of the scores (B,) of real and of generated examples."""
    if config.objective == "hinge":
        return (F.relu(1 - real) + F.relu(1 + fake)).mean()
    if config.objective == "relativistic":
        return F.softplus(fake - real).mean()
    real_labels = _noisy_labels(torch.ones_like(real), config)
    fake_labels = _noisy_labels(torch.zeros_like(fake), config)
    of_real = _cross_entropy(real, real_labels, config)
    return (of_real + _cross_entropy(fake, fake_labels, config)) / 2


def generator_loss(fake: Tensor, real: Tensor, config: GANLossConfig) -> Tensor:
    """What the generator minimises, of the same scores; only relativistic looks at `real`."""
    if config.objective == "hinge":
        return -fake.mean()
    if config.objective == "relativistic":
        return F.softplus(real - fake).mean()
    return _cross_entropy(fake, torch.ones_like(fake), config)


def _noisy_labels(labels: Tensor, config: GANLossConfig) -> Tensor:
    """Labels of 0 and 1, some of them turned round, all of them moved."""
    if config.flip:
        labels = torch.where(torch.rand_like(labels) < config.flip, 1 - labels, labels)
    if config.label_noise:
        outward = 2 * labels - 1 if config.noise_direction == "outward" else 1 - 2 * labels
        labels = labels + config.label_noise * torch.rand_like(labels) * outward
    return labels


def _cross_entropy(logits: Tensor, labels: Tensor, config: GANLossConfig) -> Tensor:
    if not config.clip:
        return F.binary_cross_entropy_with_logits(logits, labels)
    p = logits.sigmoid().clamp(config.clip, 1 - config.clip)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


def squared_slope(scores: Tensor, x: Tensor) -> Tensor:
    """Mean over the batch of |d score / d x|^2, which can be differentiated again.

    Args:
        scores: (B,), each computed of one row of x.
        x: (B, ...) with requires_grad.
    """
    (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1).mean()


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class AdversarialLearner(Generic[M]):
    """What learners of GANs share: an optimiser for each network, an average of the generator.

    Args:
        model: has a `generator` and a `discriminator`.
        steps: updates over which the learning rates fall.
        lr, judge_lr: of the generator and of the discriminator; `lr_end` is what is left of both.
        ema: decay of the average of the generator's weights; 0 keeps the last ones.
        make: parameters and learning rate -> optimiser.
    """

    def __init__(
        self,
        model: M,
        steps: int,
        lr: float,
        judge_lr: float,
        lr_end: float,
        ema: float,
        make: Callable[..., torch.optim.Optimizer],
    ):
        self.model, self.steps = model, max(steps, 1)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.parts: dict[str, Optimisation[nn.Module]] = {}
        for name, first, decay in (("generator", lr, ema), ("discriminator", judge_lr, 0.0)):
            network = cast("nn.Module", getattr(model, name))
            self.optimizers[name] = optimizer = make(network.parameters(), lr=first)
            self.parts[name] = Optimisation(network, optimizer, steps, first * lr_end, ema=decay)

    @property
    def kept(self) -> M:
        """A copy of the model with the generator that should be sampled."""
        kept = copy.deepcopy(self.model).eval()
        generator = self.parts["generator"].current.state_dict()
        cast("nn.Module", kept.generator).load_state_dict(generator)
        return kept

    def gradients(self, name: str, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        """Those of one network; the other's stay as they are."""
        parameters = list(self.parts[name].model.parameters())
        return list(torch.autograd.grad(loss, parameters, retain_graph=retain_graph))

    def move(self, name: str, gradients: list[Tensor]) -> None:
        """Move the weights of one network against these gradients."""
        parameters = self.parts[name].model.parameters()
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


class GANLearner(AdversarialLearner["GAN | ConditionalGAN"]):
    """Adam on both networks; `kept` holds the weights to keep.

    A step computes the gradients of both networks before either moves, as the book does. Also
    trains a `ConditionalGAN`, whose batches are examples and their labels.
    """

    def __init__(self, model: GAN | ConditionalGAN, config: GANLossConfig, steps: int):
        self.config = config
        betas = (config.beta1, config.beta2)
        make = partial(torch.optim.Adam, betas=betas, eps=config.adam_eps)
        rates = (config.lr, config.discriminator_lr, config.lr_end)
        super().__init__(model, steps, *rates, config.ema, make)

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """One update on examples (B, *shape), or on (examples, labels (B,)).

        Returns:
            d_loss, g_loss; real_accuracy and fake_accuracy, the shares of each that the
            discriminator tells rightly, and accuracy, their mean; energy and spread, see
            `energy_coefficient`; penalty, if there is one.
        """
        x, given = split_batch(batch)
        real = to_network(check_some(check_examples(x, self.model), self.model))
        for _ in range(self.config.discriminator_steps - 1):
            self._step(real, self._draw(real), given, ("discriminator",))
        for _ in range(self.config.generator_steps - 1):
            self._step(real, self._draw(real), given, ("generator",))
        z = self._draw(real)
        logged = self._step(real, z, given, ("discriminator", "generator"))
        self.advance(z, *given)
        return logged

    def _draw(self, real: Tensor) -> Tensor:
        return draw_z(self.model, len(real))

    def _step(
        self, real: Tensor, z: Tensor, given: tuple[Tensor, ...], moving: tuple[str, ...]
    ) -> dict[str, Tensor | float]:
        config, model = self.config, self.model
        fake = model.generator(z, *given)
        if config.r1:
            real = real.detach().requires_grad_()
        real_scores, fake_scores = (model.discriminator(x, *given) for x in (real, fake))
        d_loss = discriminator_loss(real_scores, fake_scores, config)
        losses = {
            "discriminator": d_loss,
            "generator": generator_loss(fake_scores, real_scores.detach(), config),
        }
        penalty = self._penalty(real, real_scores, fake, fake_scores)
        if penalty is not None:
            losses["discriminator"] = d_loss + penalty
        gradients = {name: self.gradients(name, losses[name], True) for name in moving}
        for name in moving:
            self.move(name, gradients[name])
        told = _accuracies(real_scores.detach(), fake_scores.detach(), config)
        return {
            "d_loss": d_loss.detach(),
            "g_loss": losses["generator"].detach(),
            **({} if penalty is None else {"penalty": penalty.detach()}),
            **told,
            **energy_coefficient(real.detach(), fake.detach())._asdict(),
        }

    def _penalty(
        self, real: Tensor, real_scores: Tensor, fake: Tensor, fake_scores: Tensor
    ) -> Tensor | None:
        """r1 / 2 |slope at real|^2 + r2 / 2 |slope at fake|^2; none if both weights are 0."""
        pairs = ((self.config.r1, real_scores, real), (self.config.r2, fake_scores, fake))
        terms = [weight / 2 * squared_slope(scores, x) for weight, scores, x in pairs if weight]
        done = min(self.parts["generator"].step_number / self.steps, 1)
        return self.config.penalty_end**done * torch.stack(terms).sum() if terms else None


def _accuracies(real: Tensor, fake: Tensor, config: GANLossConfig) -> dict[str, Tensor]:
    # Scores that are only compared with each other have no zero of their own.
    middle = (real.mean() + fake.mean()) / 2 if config.objective == "relativistic" else 0.0
    of_real, of_fake = (real > middle).float().mean(), (fake <= middle).float().mean()
    accuracy = (of_real + of_fake) / 2
    return {"real_accuracy": of_real, "fake_accuracy": of_fake, "accuracy": accuracy}


def split_batch(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Examples, and what is given with them: nothing, or their labels."""
    return (batch, ()) if isinstance(batch, Tensor) else (batch[0], batch[1:])


# ---------------------------------------------------------------------------------------------
# Checks of samples
# ---------------------------------------------------------------------------------------------


class Energy(NamedTuple):
    """How far generated examples are from real ones; neither depends on the discriminator."""

    energy: Tensor
    """1 - (E|X - X'| + E|Y - Y'|) / (2 E|X - Y|): 0 for equal distributions, at most 1."""
    spread: Tensor
    """E|Y - Y'| / E|X - X'|: 1 for equal distributions, 0 if all generated examples are alike."""


def energy_coefficient(real: Tensor, fake: Tensor, most: int = 64) -> Energy:
    """Energy distance of two samples in a form without unit (Szekely & Rizzo 2013, section 2).

    A GAN's losses do not tell how good it is, as the opponent changes too; this does, and a spread
    that falls is mode collapse. Averages are over pairs of different examples, so that small
    samples of equal distributions give 0 on average, and now and then less.

    Args:
        real, fake: examples, (N, ...) and (M, ...).
        most: of each so many are looked at.
    """
    x, y = (part[:most].flatten(1).to(at_least_float32(part)) for part in (real, fake))

    def within(a: Tensor) -> Tensor:
        return torch.cdist(a, a).sum() / max(len(a) * (len(a) - 1), 1)

    across = torch.cdist(x, y).mean().clamp_min(1e-12)
    x_spread, y_spread = within(x), within(y)
    return Energy(1 - (x_spread + y_spread) / (2 * across), y_spread / x_spread.clamp_min(1e-12))


def nearest_images(images: Tensor, known: ImageSet, rows: int = 256) -> tuple[Tensor, Tensor]:
    """For each image the known one that is closest, by the mean absolute difference of pixels.

    The book's check that a GAN does not copy what it was trained on (chapter 4).

    Args:
        images: (N, C, H, W) in [0, 1].
        known: all that was trained on, of the same shape.
        rows: so many of them are compared at a time.
    Returns:
        index (N,) into known, and the difference (N,), from 0 to 1.
    """
    if tuple(images.shape[1:]) != known.image_shape:
        raise ValueError(
            f"got images {tuple(images.shape)}; the known ones are {known.image_shape}"
        )
    x = images.float().flatten(1)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    least = x.new_full((len(x),), math.inf)
    for start in range(0, len(known), rows):
        part = known.as_tensor(slice(start, start + rows), x.device).flatten(1)
        distance, row = torch.cdist(x, part, p=1).min(1)
        index = torch.where(distance < least, start + row, index)
        least = torch.minimum(distance, least)
    return index, least / x.shape[1]


class Coverage(NamedTuple):
    """What `coverage` found."""

    precision: float
    """Share of the images that are one of the known ones."""
    recall: float
    """Share of the known ones that were generated."""
    index: Tensor
    """Which known image each one is, (N,); -1 for those that are none."""


def coverage(images: Tensor, known: ImageSet, within: float = 39.0) -> Coverage:
    """Exact precision and recall of images, where all that can be right are known.

    Args:
        images: (N, C, H, W) in [0, 1].
        known: e.g. `generative.known.sprites.sprites()`.
        within: largest mean squared difference, of pixels from 0 to 255, to be the same image. Two
            sprites are 157 apart or more, so that what is within 39 (half the way) of one is
            further from every other.
    """
    from generative.known.sprites import nearest

    pixels = images.mul(255).round().byte().movedim(1, -1).cpu().numpy()
    index, error = nearest(known, pixels)
    index[error > within] = -1
    found = torch.from_numpy(index)
    right = found[found >= 0]
    return Coverage(len(right) / len(found), len(right.unique()) / len(known), found)
