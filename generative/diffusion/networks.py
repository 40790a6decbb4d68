"""Perceptron that estimates the noise of vectors; that of images is `generative.nets.unet`."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.nn import functional as F

from generative.diffusion.config import PointDiffusionConfig
from generative.diffusion.schedules import MAX_LOG_SNR
from generative.nets.embeddings import Waves, sinusoidal_embedding
from generative.nets.init import zero_

__all__ = ["DenoisingMLP"]


class DenoisingMLP(nn.Module):
    """x_t (B, D), log_snr (B,) and no context -> (B, D); every layer gets log_snr."""

    def __init__(self, config: PointDiffusionConfig):
        super().__init__()
        self.embedding_dim = config.embedding_dim
        self.waves = Waves(math.pi / 4, config.num_waves)
        widths = [config.dim * (1 + 2 * config.num_waves), *[config.hidden_dim] * config.num_hidden]
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.levels = nn.ModuleList(
            nn.Linear(config.embedding_dim, after, bias=False) for _, after in pairs
        )
        self.last = zero_(nn.Linear(config.hidden_dim, config.dim))

    def forward(self, x: Tensor, log_snr: Tensor, context: None = None) -> Tensor:
        # Waves that are slow in log_snr: what is right between two trained levels follows.
        u = (log_snr + MAX_LOG_SNR) / (2 * MAX_LOG_SNR)
        embedding = sinusoidal_embedding(u, self.embedding_dim, 0.25, 8.0)
        # Waves that are shorter than the noise would show nothing else.
        x = self.waves(x, (-log_snr).sigmoid().sqrt())
        for layer, level in zip(self.layers, self.levels, strict=True):
            x = F.silu(layer(x) + level(embedding))
        return self.last(x)
