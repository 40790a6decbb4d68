"""The GAN as a pair: a generator, and a critic that separates its examples from real ones.

A generator makes examples of noise, a critic learns to tell them from real ones, and the generator
learns to mislead it (Goodfellow et al. 2014; Foster 2023, chapter 4).

    gan = GAN.from_pretrained("runs/gan/model")
    gan.sample(16)                       # (16, 1, 64, 64) in [0, 1]
    gan.generate(z)                      # noise (B, 100) -> images, the same for the same z
    gan.heights(images)                  # (B,), above 0 where a GAN takes them for real

The critic of a Wasserstein GAN gives every example a height instead of a logit. If it is nowhere
steeper than 1, the mean height of real examples above that of generated ones is a lower bound of
the Wasserstein distance between the two, which falls as the samples get better (Arjovsky et al.
2017; Gulrajani et al. 2017).

A conditional GAN, here of faces, tells both networks a label. A critic that knows the label can
reject a good image of the wrong class, so the generator learns to make the class it is asked for
(Mirza & Osindero 2014):

    faces.sample(8, labels=1)            # 8 of class 1
    faces.sample(2, labels=torch.tensor([0, 1]))
    faces.generate(z, labels)            # the same z with another label: only what it says changes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.gan.config import ConditionalGANConfig, GANConfig, WGANConfig
from generative.gan.networks import from_network, to_network
from generative.training.checks import (
    check_images,
    check_labels,
    check_vectors,
    checked,
    placed,
)
from generative.training.pretrained import Pretrained
from generative.training.ranges import Checked, CountOrZero

__all__ = ["GAN", "check_examples", "draw_z"]


class GAN(Pretrained, nn.Module):
    """Generator and critic, which may both know a label.

    In evaluation mode, as `from_pretrained` and the learner's `kept` give it, a sample depends on
    its own noise alone; in training mode, by batch normalisation, on its neighbours too.

    `GANConfig().build()` is the book's DCGAN, `WGANConfig().build()` its Wasserstein GAN of
    3,806,083 and 2,764,737 parameters, `ConditionalGANConfig().build()` its GAN with labels. A pair
    that is put together by hand is saved by its weights: put it together again and call
    `load_weights(folder)`.

    Args:
        generator: noise (B, latent_dim), and labels (B,) if there are any -> examples (B, *shape),
            images from -1 to 1.
        critic: such examples, and labels if there are any -> heights (B,), or (B, K) of K heads.
        shape: of an example: (C, H, W) for images, (D,) for points.
        latent_dim: numbers of the noise.
        num_classes: labels count from 0 to num_classes - 1; 0 for no labels.
        config: the recipe of the pair, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "GAN": GANConfig,
        "WGAN": WGANConfig,
        "ConditionalGAN": ConditionalGANConfig,
    }
    renamed: ClassVar[Mapping[str, str]] = {"discriminator.": "critic."}

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        shape: tuple[int, ...],
        latent_dim: int,
        num_classes: int = 0,
        config: Checked | None = None,
    ):
        super().__init__()
        self.config, self.shape = config, shape
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.generator, self.critic = generator, critic

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noise (B, latent_dim), and labels (B,) -> images in [0, 1], or points, (B, *shape).

        Raises:
            ValueError: noise of another shape, labels that there are not, or none where needed.
        """
        z = check_vectors(z, self.latent_dim, "z", self)
        return from_network(self.generator(z, *self._given(labels, len(z))))

    def heights(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The critic's height at each example, (B, *shape) and labels (B,) -> (B,); of several
        heads the mean.

        Raises:
            ValueError: examples of another shape, type or range, labels that there are not, or none
                where needed.
        """
        x = to_network(check_examples(x, self))
        found = self.critic(x, *self._given(labels, len(x)))
        return found if found.dim() == 1 else found.mean(1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Tensor | int | None = None,
    ) -> Tensor:
        """n examples (n, *shape): `generate` of standard normal z.

        Args:
            n: number of examples.
            generator: for repeatable draws.
            labels: of each, (n,) integers; one for all; or none for classes 0, 1, 2, ... in turn.
        Raises:
            ValueError: labels of another shape or type, or that there are not.
        """
        return self.generate(draw_z(self, n, generator), self._classes(n, labels))

    def _classes(self, n: int, labels: Tensor | int | None) -> Tensor | None:
        """Labels (n,) as `sample` is asked for them, where the weights are."""
        if labels is None and self.num_classes:
            labels = torch.arange(n) % self.num_classes
        elif isinstance(labels, int):
            labels = torch.full((n,), labels)
        return None if labels is None else labels.to(placed(self)["device"])

    def _given(self, labels: Tensor | None, n: int) -> tuple[Tensor, ...]:
        if (labels is None) != (self.num_classes == 0):
            needs = "needs labels (B,)" if labels is None else "has no labels"
            raise ValueError(f"this GAN {needs}; it has num_classes {self.num_classes}")
        return () if labels is None else (check_labels(labels, n, self.num_classes, "this GAN"),)


@checked
def draw_z(model: GAN, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise for the generator of a GAN, (n, latent_dim), where its weights are."""
    return torch.randn(n, model.latent_dim, generator=generator, **placed(model))


def check_examples(x: Tensor, model: GAN) -> Tensor:
    """Return x if it is what this GAN judges, images or points.

    Raises:
        ValueError: another shape or type, or a pixel outside [0, 1].
    """
    if len(model.shape) == 1:
        return check_vectors(x, model.shape[0], "points", model)
    return check_images(x, model.shape, model)
