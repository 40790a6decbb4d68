"""Models that translate images: from pairs, or between two sets without pairs.

Where the source leaves the image open, the mean absolute difference alone is least for the median
of all that it could be, which may be none of them: grey for a thing of any colour. A critic of the
pair accepts only what could be (Isola et al. 2017).

Without pairs two generators are trained together, there and back: each has to make what its critic
takes for one of the other set, and an image there and back has to be itself (Zhu et al. 2017). Both
conditions hold for every bijection between the sets that keeps frequencies; which one is learned is
told by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.gan.networks import from_network, to_network
from generative.training.checks import check_images
from generative.training.pretrained import Pretrained
from generative.translation.config import CycleGANConfig, Pix2PixConfig

__all__ = ["CycleGAN", "Pix2Pix", "check_pairs"]


class Pix2Pix(Pretrained, nn.Module):
    """Images from sources that they were paired with in training.

    `Pix2PixConfig().build()` is the published model with a U-Net of 54,413,955 parameters. In
    evaluation mode, as `from_pretrained` and the learner's `kept` give it, an image depends on its
    own source and noise alone.

    Args:
        generator: (source (B, C', H, W), torch generator or None) -> image (B, C, H, W), values
            from -1 to 1. It draws its noise from the torch generator.
        critic: such images and sources, joined along the channels -> heights of patches (B, h, w).
        shape: (C, H, W) of an image.
        source_channels: C' of a source.
        config: the recipe of the pair, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"Pix2Pix": Pix2PixConfig}

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        shape: tuple[int, int, int],
        source_channels: int,
        config: Pix2PixConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape = config, tuple(shape)
        self.source_shape = (source_channels, *self.shape[1:])
        self.generator, self.critic = generator, critic

    @torch.no_grad()
    def translate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sources (B, C', H, W) -> images (B, C, H, W), all in [0, 1].

        Args:
            x: sources.
            generator: for repeatable draws of what the source leaves open.
        Raises:
            ValueError: another shape or type, or a pixel outside [0, 1].
        """
        x = to_network(check_images(x, self.source_shape, self, "sources"))
        return from_network(self.generator(x, generator))

    def heights(self, x: Tensor, y: Tensor) -> Tensor:
        """The critic's heights of the patches of images y with their sources x, (B, h, w).

        Raises:
            ValueError: another shape or type, a pixel outside [0, 1], or not as many of both.
        """
        check_images(x, self.source_shape, self, "sources")
        check_images(y, self.shape, self)
        check_pairs(x, y)
        return self.critic(torch.cat([to_network(y), to_network(x)], 1))


class CycleGAN(Pretrained, nn.Module):
    """Images of one set as images of another, and back.

    `CycleGANConfig().build()` is the published model with two generators of 11,378,179 parameters.

    Args:
        there: images of the first set (B, C, H, W) -> of the second, values from -1 to 1.
        back: the other way.
        critic_there: images -> heights of patches (B, h, w), higher for the second set.
        critic_back: the same, higher for the first set.
        shape: (C, H, W) of an image.
        config: the recipe of the four, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"CycleGAN": CycleGANConfig}

    def __init__(
        self,
        there: nn.Module,
        back: nn.Module,
        critic_there: nn.Module,
        critic_back: nn.Module,
        shape: tuple[int, int, int],
        config: CycleGANConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape = config, tuple(shape)
        self.generator = nn.ModuleDict({"there": there, "back": back})
        self.critic = nn.ModuleDict({"there": critic_there, "back": critic_back})

    @torch.no_grad()
    def translate(self, x: Tensor, back: bool = False) -> Tensor:
        """Images of one set (B, C, H, W) -> of the other, all in [0, 1].

        Args:
            x: images of the first set; with `back` of the second.
            back: translate into the first set.
        Raises:
            ValueError: another shape or type, or a pixel outside [0, 1].
        """
        x = to_network(check_images(x, self.shape, self))
        return from_network(self.generator["back" if back else "there"](x))

    def heights(self, x: Tensor, back: bool = False) -> Tensor:
        """Heights (B, h, w) of the patches of images as of the second set; with `back` the first.

        Raises:
            ValueError: another shape or type, or a pixel outside [0, 1].
        """
        return self.critic["back" if back else "there"](
            to_network(check_images(x, self.shape, self))
        )


def check_pairs(x: Tensor, y: Tensor) -> None:
    """Raise ValueError if there are not as many sources as images."""
    if len(x) != len(y):
        raise ValueError(f"got {len(x)} sources and {len(y)} images; give one source for each")
