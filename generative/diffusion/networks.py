"""Perceptron that estimates the noise of vectors; that of images is `generative.nets.unet`."""

from __future__ import annotations

from torch import Tensor

from generative.diffusion.schedules import MAX_LOG_SNR
from generative.nets.config import ConditionedMLPConfig
from generative.nets.embeddings import sinusoidal_embedding
from generative.nets.perceptron import ConditionedMLP

__all__ = ["DenoisingMLP"]


class DenoisingMLP(ConditionedMLP):
    """x_t (B, D), log_snr (B,) and no context -> (B, D); every layer gets log_snr.

    Args:
        dim: numbers of an example, D.
        config: see `ConditionedMLPConfig`.
    """

    def __init__(self, dim: int, config: ConditionedMLPConfig):
        super().__init__(dim, config, config.embedding_dim)
        self.embedding_dim = config.embedding_dim

    def forward(self, x: Tensor, log_snr: Tensor, context: None = None) -> Tensor:
        # Waves that are slow in log_snr: what is right between two trained levels follows.
        u = (log_snr + MAX_LOG_SNR) / (2 * MAX_LOG_SNR)
        embedding = sinusoidal_embedding(u, self.embedding_dim, 0.25, 8.0)
        # Waves that are shorter than the noise would show nothing else.
        return self.transform(x, embedding, (-log_snr).sigmoid().sqrt())
