"""DiT: a Transformer of patches in the place of the U-Net (Peebles & Xie 2023).

    network = DiT((3, 32, 32), DiTConfig(patch=4, dim=128, num_layers=4, num_heads=4))
    network(x_t, log_snr)                        # (B, 3, H, W), (B,) -> (B, 3, H, W)
    network = DiT((3, 32, 32), DiTConfig(patch=8, num_classes=10), out_channels=6)
    network(x_t, log_snr, labels)                # int64 (B,), 10 for none -> (B, 6, H, W)

`dit("XL", patch=2, num_classes=1000)` has the sizes of DiT-XL/2 on latents (4, 32, 32).
The noise level and the class scale and shift every normalised layer, and gate what each block adds
(adaLN-Zero). All gates are 0 at first, so that a block begins as the identity, and so is the last
layer: the network begins with zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import MultiHeadAttention
from generative.nets.config import DiTConfig, dit
from generative.nets.embeddings import plane_positions, sinusoidal_embedding
from generative.nets.init import glorot_, normal_, zero_

__all__ = ["DiT", "DiTBlock", "DiTConfig", "dit"]

MAX_LOG_SNR = 14.0
"""Largest and, turned round, least log_snr of the schedules: the ends of what is embedded."""


class DiTBlock(nn.Module):
    """Attention and two layers at every place, scaled, shifted and gated by a condition.

    Args:
        dim: width of tokens and condition.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attention = MultiHeadAttention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
        )
        self.modulation = nn.Linear(dim, 6 * dim)
        glorot_(self)
        zero_(self.modulation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, dim) and a condition (B, dim) -> (B, T, dim)."""
        parts = self.modulation(F.silu(condition))[:, None].chunk(6, -1)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = parts
        x = x + gate * self.attention(_modulate(self.attention_norm(x), shift, scale))
        return x + ff_gate * self.feed_forward(
            _modulate(self.feed_forward_norm(x), ff_shift, ff_scale)
        )


class DiT(nn.Module):
    """Noisy images, their noise level and a context -> images, at first all zeros.

    Args:
        image_shape: (C, H, W) of x.
        config: see `DiTConfig`.
        out_channels: of the result; C if not given. Twice as many make room for a variance.
        context_dim: width of a context that is added to the condition; 0 for none.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: DiTConfig,
        out_channels: int | None = None,
        context_dim: int = 0,
    ):
        super().__init__()
        config.check_sides(image_shape)
        self.config, self.context_dim, dim = config, context_dim, config.dim
        channels, height, width = image_shape
        self.grid = height // config.patch, width // config.patch
        self.out_channels = out_channels or channels
        self.patches = nn.Conv2d(channels, dim, config.patch, config.patch)
        self.level = nn.Sequential(
            nn.Linear(config.embedding_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        # One more class, for "none".
        self.classes = nn.Embedding(config.num_classes + 1, dim) if config.num_classes else None
        self.told = nn.Linear(context_dim, dim) if context_dim else None
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = zero_(nn.Linear(dim, 2 * dim))
        self.last = zero_(nn.Linear(dim, self.out_channels * config.patch**2))
        self.positions: Tensor
        positions = plane_positions(*self.grid, dim).to(torch.get_default_dtype())
        self.register_buffer("positions", positions, persistent=False)
        glorot_(self.patches)
        # A patch is a vector that a linear map takes, so that its fan counts each of its pixels.
        nn.init.xavier_uniform_(self.patches.weight.flatten(1))
        normal_(self.level)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, 0, 0.02)
        if self.told is not None:
            glorot_(self.told)

    def forward(self, x: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """x_t (B, C, H, W) and log_snr (B,) -> (B, out_channels, H, W).

        Args:
            context: of a network with classes int64 (B,), where num_classes stands for none; of one
                with a context_dim float (B, context_dim).
        Raises:
            ValueError: another context, none where one is needed, or one too many.
        """
        condition, tokens = self.embed(x, log_snr, context), self.start(x)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.finish(tokens, condition)

    def start(self, x: Tensor) -> Tensor:
        """x_t (B, C, H, W) -> tokens of its patches with their places, (B, T, dim)."""
        return self.patches(x).flatten(2).transpose(1, 2) + self.positions

    def finish(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, dim) behind the blocks -> (B, out_channels, H, W)."""
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, -1)
        pixels = self.last(_modulate(self.norm(tokens), shift, scale))
        # (B, rows, columns, patch, patch, channels) -> (B, channels, H, W)
        side = self.config.patch
        pixels = pixels.unflatten(2, (side, side, self.out_channels)).unflatten(1, self.grid)
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def embed(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        """Condition of every block: the noise level and the context, (B, dim).

        Raises:
            ValueError: see `forward`.
        """
        needed = (
            f"int64 ({len(x)},)" if self.classes is not None
            else f"float ({len(x)}, {self.context_dim})" if self.told is not None
            else "none"
        )  # fmt: skip
        if self.classes is not None:
            fits = context is not None and context.shape == (len(x),)
            fits = fits and context is not None and not context.is_floating_point()
        elif self.told is not None:
            fits = context is not None and context.shape == (len(x), self.context_dim)
        else:
            fits = context is None
        if not fits:
            got = "none" if context is None else f"{context.dtype} {tuple(context.shape)}"
            raise ValueError(f"got context {got}; this DiT was made for {needed}")
        embedding = sinusoidal_embedding(
            (log_snr + MAX_LOG_SNR) / (2 * MAX_LOG_SNR), self.config.embedding_dim,
            self.config.max_frequency / 10_000, self.config.max_frequency,
        )  # fmt: skip
        condition = self.level(embedding)
        if context is not None:
            told = self.classes if self.classes is not None else self.told
            assert told is not None
            condition = condition + told(context)
        return condition


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
