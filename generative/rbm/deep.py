"""Deep belief networks: restricted Boltzmann machines on top of each other."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.rbm.config import DBNConfig, RBMConfig
from generative.rbm.machines import RBM, check_bits
from generative.training.checks import check_vectors, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count

__all__ = ["DeepBeliefNetwork"]


class DeepBeliefNetwork(Pretrained, nn.Module):
    """Restricted machines on top of each other, each trained on the hidden bits of the one below.

    The upper two layers keep their joint distribution, the lower ones only p(v | h): a sample is
    drawn in the top machine and passed down (Hinton, Osindero & Teh 2006).
    """

    config_class = DBNConfig

    def __init__(self, config: DBNConfig | None = None):
        super().__init__()
        self.config = config = config or DBNConfig()
        shapes = [config.shape, *((h,) for h in config.hidden_dims[:-1])]
        self.machines = nn.ModuleList(
            RBM(RBMConfig(shape, hidden_dim, config.sample_steps))
            for shape, hidden_dim in zip(shapes, config.hidden_dims, strict=True)
        )

    @property
    def stack(self) -> list[RBM]:
        """The machines, from the bottom up."""
        return cast("list[RBM]", list(self.machines))

    def encode(self, x: Tensor) -> Tensor:
        """Means of the top layer, each layer given the means below, (B, *shape) -> (B, H)."""
        z = check_bits(x, self.config.shape, self)
        for rbm in self.stack:
            z = rbm.hidden_logits(z).sigmoid()
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Means of the visible bits, each layer given the means above, (B, H) -> (B, *shape)."""
        check_vectors(z, self.config.hidden_dims[-1], "codes", self)
        for rbm in reversed(self.stack):
            z = rbm.visible_logits(z).sigmoid()
        return z.unflatten(1, self.config.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruction by means, up to the top and down again, (B, *shape)."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def up(self, x: Tensor, layers: int, generator: torch.Generator | None = None) -> Tensor:
        """Bits of layer `layers` (0 is x itself) drawn upwards, flat (B, units)."""
        h = check_bits(x, self.config.shape, self)
        for rbm in self.stack[:layers]:
            h = torch.bernoulli(rbm.hidden_logits(h).sigmoid(), generator=generator)
        return h

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape) of bits: Gibbs steps in the top machine, then one pass down."""
        *lower, top = self.stack
        h = top.sample(n, generator).flatten(1)
        for rbm in reversed(lower):
            h = torch.bernoulli(rbm.visible_logits(h).sigmoid(), generator=generator)
        return h.unflatten(1, self.config.shape)

    @checked
    @torch.no_grad()
    def bound(
        self, x: Tensor, num_draws: Count = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability, (B, *shape) -> (B,), nats.

        Averages log p(x, h) - log q(h | x) over draws of the lower layers' h from the upward pass.

        Raises:
            ValueError: the top machine is too large to sum up its partition function.
        """
        v = check_bits(x, self.config.shape, self)
        *lower, top = self.stack
        total, log_partition = v.new_zeros(len(v)), top.log_partition()
        for _ in range(num_draws):
            below = v
            for rbm in lower:
                up = rbm.hidden_logits(below)
                h = torch.bernoulli(up.sigmoid(), generator=generator)
                total += _log_bernoulli(rbm.visible_logits(h), below) - _log_bernoulli(up, h)
                below = h
            total -= top.chain_free_energy(below)
        return total / num_draws - log_partition


def _log_bernoulli(logits: Tensor, bits: Tensor) -> Tensor:
    return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(1)
