"""A GAN with self-attention: narrower noise, maps of attention.

gan = AttentionGAN.from_pretrained("runs/biggan/model")
gan.sample(16, labels=3)                      # (16, 3, 32, 32) in [0, 1], all of class 3
narrow = gan.standing(truncation=0.5)         # batch statistics of noise that is cut at 0.5
narrow.sample(16, labels=3, truncation=0.5)   # more alike, and more often right
images, maps = gan.look(z, labels)            # maps (B, H, W, h, w): what each place looks at
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.attention_gan.config import AttentionGANConfig
from generative.attention_gan.networks import AttentionGenerator
from generative.gan.model import GAN
from generative.gan.networks import from_network
from generative.nets.attention import PooledAttention
from generative.nets.norms import standing_statistics
from generative.training.checks import check_vectors, checked, placed
from generative.training.ranges import Count, CountOrZero, Positive

__all__ = ["AttentionGAN", "truncated_normal"]


class AttentionGAN(GAN):
    """Generator and critic with self-attention; `AttentionGANConfig().build()` makes one.

    Args:
        generator, critic: of the config.
        config: sizes.
    """

    builds: ClassVar[Mapping[str, type]] = {"AttentionGAN": AttentionGANConfig}
    generator: AttentionGenerator
    config: AttentionGANConfig

    def __init__(
        self, generator: AttentionGenerator, critic: nn.Module, config: AttentionGANConfig
    ):
        shape = tuple(config.shape)
        super().__init__(
            generator, critic, shape, config.latent_dim, config.num_classes, config=config
        )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Tensor | int | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """n images (n, *shape), from standard normal z.

        Args:
            n: number of images.
            generator: for repeatable draws.
            labels: of each, (n,) integers; one for all; or none for classes 0, 1, 2, ... in turn.
            truncation: bound of the numbers of z (the truncation trick): below it images are more
                believable and less varied. Batch statistics are those of the model: see `standing`.
        Raises:
            ValueError: labels of another shape or type, or that there are not; a truncation that is
                not positive.
        """
        if truncation is None:
            return super().sample(n, generator, labels)
        z = truncated_normal(n, self.latent_dim, truncation, generator, **placed(self))
        return self.generate(z, self._classes(n, labels))

    @checked
    def standing(
        self,
        truncation: Positive | None = None,
        generator: torch.Generator | None = None,
        batches: Count = 16,
        batch_size: Count = 64,
    ) -> AttentionGAN:
        """A copy whose batch statistics are of so many batches of noise of this truncation.

        Those of training are of whole normal noise (Brock et al. 2019, section 3.1: "standing
        statistics"). Classes are taken in turn.
        """
        model = copy.deepcopy(self)
        bound = 9.0 if truncation is None else truncation  # beyond, there is no noise
        inputs = []
        for _ in range(batches):
            z = truncated_normal(batch_size, self.latent_dim, bound, generator, **placed(self))
            inputs.append((z, *self._given(self._classes(batch_size, None), batch_size)))
        standing_statistics(model.generator, inputs)
        return model.eval()

    @torch.no_grad()
    def look(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images, and what each place of the generator's attention looks at.

        Args:
            z: noise (B, latent_dim).
            labels: (B,) if there are classes.
        Returns:
            images (B, *shape) in [0, 1]; weights (B, H, W, H / 2, W / 2), H and W the sides of the
            feature maps, which sum to 1 over the last two.
        Raises:
            ValueError: the generator has no attention.
        """
        if not isinstance(self.generator.attention, PooledAttention):
            raise ValueError(
                "this generator has no attention to look at; train one with attention 'pooled'"
            )
        z, maps = check_vectors(z, self.latent_dim, "z", self), []
        given = self._given(labels, len(z))
        images = self.generator(z, given[0] if given else None, maps)
        h, w = (side >> self.config.attention_level for side in self.shape[1:])
        weights = maps[0].unflatten(2, (h // 2, w // 2)).unflatten(1, (h, w))
        return from_network(images), weights


@checked
def truncated_normal(
    n: CountOrZero,
    dim: Count,
    bound: Positive,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Standard normal noise between -bound and bound, (n, dim), by the inverse of its distribution.

    Drawing again what is beyond would draw 31 numbers for one at a bound of 0.04.
    """
    u = torch.rand(n, dim, generator=generator, device=device, dtype=torch.float64)
    z = math.sqrt(2) * torch.erfinv((2 * u - 1) * math.erf(bound / math.sqrt(2)))
    return z.clamp(-bound, bound).to(dtype or torch.get_default_dtype())
