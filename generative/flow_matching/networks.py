"""Velocities that learn: a perceptron for vectors, a U-Net or a DiT for images.

Both take x_t and its times: t alone (B,), or for MeanFlow t and the later time r, (B, 2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.flow_matching.paths import FIRST_TIME, to_diffusion
from generative.nets.config import ConditionedMLPConfig, DiTConfig, UNetConfig
from generative.nets.embeddings import sinusoidal_embedding
from generative.nets.image_network import image_network
from generative.nets.perceptron import ConditionedMLP

__all__ = ["TimedNetwork", "VelocityMLP"]


class VelocityMLP(ConditionedMLP):
    """x_t (B, D), times (B,) or (B, 2), and no context -> (B, D), at first all zeros.

    Args:
        dim: numbers of an example, D.
        config: see `ConditionedMLPConfig`.
        num_times: 1 for t, 2 for t and r.
    """

    def __init__(self, dim: int, config: ConditionedMLPConfig, num_times: int = 1):
        super().__init__(dim, config, num_times * config.embedding_dim)
        self.embedding_dim = config.embedding_dim

    def forward(self, x: Tensor, times: Tensor, context: None = None) -> Tensor:
        """Velocity at x_t."""
        t, *spans = spans_of(times)
        embedding = torch.cat(
            [sinusoidal_embedding(u, self.embedding_dim, 0.25, 4.0) for u in (t, *spans)], 1
        )
        # Waves that are shorter than the noise would show nothing else.
        return self.transform(x, embedding, 1 - t)


class TimedNetwork(nn.Module):
    """x_t (B, C, H, W), times (B,) or (B, 2), and a context -> (B, C, H, W), at first all zeros.

    The U-Net or DiT of diffusion: it gets x_t at diffusion's length, with the log_snr that it has
    there; and r - t as a context.

    Args:
        image_shape: (C, H, W).
        config: of either kind.
        num_times: 1 for t, 2 for t and r.
        context_dim: width of the context; 0 for none.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: UNetConfig | DiTConfig,
        num_times: int = 1,
        context_dim: int = 0,
    ):
        super().__init__()
        self.embedding_dim = config.embedding_dim
        told = context_dim + (num_times - 1) * config.embedding_dim
        self.network = image_network(image_shape, config, told)

    def forward(self, x: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity at x_t; a context is (B, context_dim)."""
        t, *spans = spans_of(times)
        x, log_snr = to_diffusion(x, t.clamp(FIRST_TIME, 1 - FIRST_TIME))
        told = [sinusoidal_embedding(u, self.embedding_dim, 0.25, 4.0) for u in spans]
        told += [] if context is None else [context]
        return self.network(x, log_snr, torch.cat(told, 1) if told else None)


def spans_of(times: Tensor) -> list[Tensor]:
    """Times (B,) -> [t]; times (B, 2) -> [t, r - t]."""
    if times.dim() == 1:
        return [times]
    t, r = times.unbind(1)
    return [t, r - t]
