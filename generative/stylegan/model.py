"""Trained pairs: samples at any stage of growth, and images of styles.

gan = ProGAN.from_pretrained("runs/progan/model")
gan.sample(16)                        # (16, 3, 32, 32) in [0, 1]
gan.generate(z, side=8)               # as it was after the first doubling, trained since
gan.heights(images)                   # (B,), of the critic

gan = StyleGAN.from_pretrained("runs/stylegan/model")
w = gan.styles(z, truncation=0.7)     # (B, num_layers, style_dim)
noise = gan.draw_noise(len(w))
images = gan.synthesise(w, noise)     # the same for the same w and noise
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from generative.gan.networks import from_network, to_network
from generative.stylegan.config import ProGANConfig, StyleGAN2Config, StyleGANConfig
from generative.stylegan.styles import Noise
from generative.training.checks import (
    check_batch,
    check_dtype,
    check_images,
    check_vectors,
    checked,
    placed,
)
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero, NonNegative, Probability, Size

__all__ = ["ProGAN", "StyleGAN", "Styled"]


class ProGAN(Pretrained, nn.Module):
    """Generator and critic that grow with their images (Karras et al. 2018).

    Args:
        generator: noise (B, latent_dim), and if it grows a side and alpha -> images (B, *shape), or
            of that side, about -1 to 1.
        critic: such images, and if it grows alpha -> heights (B,).
        shape: of an image at full growth, (C, S, S).
        latent_dim: numbers of the noise.
        config: the recipe of the pair, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ProGAN": ProGANConfig}

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        shape: tuple[int, ...],
        latent_dim: int,
        config: ProGANConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape, self.latent_dim = config, shape, latent_dim
        self.generator, self.critic = generator, critic

    @property
    def grows(self) -> bool:
        """True if the generator makes images of smaller sides too; that of StyleGAN2 does not."""
        return "side" in inspect.signature(self.generator.forward).parameters

    def _stage(self, side: int | None, alpha: float) -> tuple[int, float] | tuple[()]:
        """Arguments of the generator for a stage of growth; none at full growth.

        Raises:
            ValueError: a stage before full growth, and a generator that does not grow.
        """
        full = self.shape[-1]
        if side in (None, full) and alpha == 1:
            return ()
        if not self.grows:
            raise ValueError(
                f"side is {side} and alpha {alpha}; the generator of this {type(self).__name__} "
                f"does not grow and makes images of side {full} alone: leave both out"
            )
        return (full if side is None else side, alpha)

    @checked
    def generate(self, z: Tensor, side: Size | None = None, alpha: Probability = 1.0) -> Tensor:
        """Noise (B, latent_dim) -> images in [0, 1], (B, *shape) or (B, C, side, side).

        Args:
            side: of the images, one that the network grows through; None for the full one.
            alpha: share of the layers of that side, see `faded_image`; the rest is the doubled
                image of half the side.
        Raises:
            ValueError: noise of another shape, a side that the network does not grow through, or
                an alpha outside [0, 1].
        """
        z = check_vectors(z, self.latent_dim, "z", self)
        return to_image(self.generator(z, *self._stage(side, alpha)))

    def heights(self, x: Tensor) -> Tensor:
        """The critic's height at each image, (B, *shape) in [0, 1] -> (B,).

        Raises:
            ValueError: images of another shape, type or range, or a batch that the groups of
                `minibatch_std` do not divide.
        """
        return self.critic(to_network(check_images(x, self.shape, self)))

    @torch.no_grad()
    @checked
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        side: Size | None = None,
        alpha: Probability = 1.0,
    ) -> Tensor:
        """n images (n, *shape), or of a smaller side: `generate` of standard normal z.

        Args:
            n: number of images.
            generator: for repeatable draws.
            side, alpha: stage of growth, see `generate`.
        """
        return self.generate(self.draw_z(n, generator), side, alpha)

    @checked
    def draw_z(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for the generator, (n, latent_dim), where its weights are."""
        return torch.randn(n, self.latent_dim, generator=generator, **placed(self))


class Styled(Protocol):
    """Asks of a generator with styles what `StyleGAN` uses."""

    num_layers: int
    """Styles of an image."""
    noise_sides: list[int]
    """Side of the noise map of each layer."""

    def mapping(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> w (B, style_dim)."""
        ...

    def synthesis(self, w: Tensor, noise: Noise | None, *stage: float) -> Tensor:
        """A style for each layer, (B, num_layers, style_dim), and noise -> images."""
        ...


class StyleGAN(ProGAN):
    """StyleGAN and StyleGAN2: a generator with styles, and a critic (Karras et al. 2019, 2020)."""

    builds: ClassVar[Mapping[str, type]] = {
        "StyleGAN": StyleGANConfig,
        "StyleGAN2": StyleGAN2Config,
    }

    @property
    def styled(self) -> Styled:
        """The generator, as one with styles."""
        return cast("Styled", self.generator)

    def styles(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Noise (B, latent_dim) -> a style for each layer, (B, num_layers, style_dim), all alike.

        Args:
            truncation: share of the way from the mean style to that of z (Karras et al. 2019,
                appendix B); 0 gives the mean style, whatever z is.
        Raises:
            ValueError: noise of another shape.
        """
        w = self.styled.mapping(check_vectors(z, self.latent_dim, "z", self))
        if truncation != 1:
            mean = self.mean_style()
            w = mean + truncation * (w - mean)
        return w[:, None].repeat(1, self.styled.num_layers, 1)

    @torch.no_grad()
    def mean_style(self, n: int = 4096) -> Tensor:
        """Mean of w over n fixed draws of z, (style_dim,).

        It is that of the present weights. The papers keep a moving average over the training, which
        lags behind them.
        """
        z = torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(0))
        return self.styled.mapping(z.to(**placed(self))).mean(0)

    @checked
    def synthesise(
        self,
        w: Tensor,
        noise: Noise | None = None,
        side: Size | None = None,
        alpha: Probability = 1.0,
    ) -> Tensor:
        """Images (B, *shape), or of a smaller side of a network that grows, in [0, 1].

        Args:
            w: a style for each layer, as `styles` gives them, of one image or mixed.
            noise: as `draw_noise` gives it; None in place of a map adds none there.
            side, alpha: stage of growth, see `generate`.
        Raises:
            ValueError: styles or noise of another shape, or a stage that `generate` refuses.
        """
        dim = cast("StyleGANConfig", self.config).style_dim if self.config else w.shape[-1]
        check_batch(w, (self.styled.num_layers, dim), "styles", self)
        self._check_noise(noise, len(w))
        return to_image(self.styled.synthesis(w, noise, *self._stage(side, alpha)))

    def _check_noise(self, noise: Noise | None, n: int) -> None:
        sides = self.styled.noise_sides
        if noise is None:
            return
        if len(noise) != len(sides):
            raise ValueError(
                f"got {len(noise)} maps of noise; {len(sides)} layers add noise: give a map or "
                "None for each, as draw_noise does"
            )
        for i, (each, side) in enumerate(zip(noise, sides, strict=True)):
            if each is None:
                continue
            if each.shape != (n, 1, side, side):
                raise ValueError(
                    f"got noise of shape {tuple(each.shape)} for layer {i}; {n} images need "
                    f"({n}, 1, {side}, {side}): draw_noise({n}) gives it"
                )
            check_dtype(each, f"noise for layer {i}", self)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Standard normal maps for n images, (n, 1, s, s) for each layer that adds noise."""
        return [
            torch.randn(n, 1, side, side, generator=generator, **placed(self))
            for side in self.styled.noise_sides
        ]

    @torch.no_grad()
    @checked
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        side: Size | None = None,
        alpha: Probability = 1.0,
        truncation: NonNegative = 1.0,
    ) -> Tensor:
        """n images (n, *shape), or of a smaller side, of normal z with noise in every layer.

        Args:
            n: number of images.
            generator: for repeatable draws.
            side, alpha: stage of growth, see `generate`.
            truncation: see `styles`.
        """
        w = self.styles(self.draw_z(n, generator), truncation)
        return self.synthesise(w, self.draw_noise(n, generator), side, alpha)


def to_image(x: Tensor) -> Tensor:
    """Output of a generator without a last tanh, brought to [0, 1]."""
    return from_network(x).clamp(0, 1)
