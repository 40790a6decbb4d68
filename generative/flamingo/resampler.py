"""Perceiver resampler: any number of frames of any size -> a fixed number of vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.flamingo.config import ResamplerConfig
from generative.nets.attention import MultiHeadAttention

__all__ = ["PerceiverResampler", "feed_forward"]

SHARPNESS = 1.5
"""Gain of queries and of keys of latents that begin with a place each."""


def feed_forward(dim: int) -> nn.Sequential:
    """Two linear maps without biases around a GELU, four times as wide inside."""
    return nn.Sequential(nn.Linear(dim, 4 * dim, False), nn.GELU(), nn.Linear(4 * dim, dim, False))


class ResamplerLayer(nn.Module):
    """Latents look at features and at themselves, then a feed-forward network; both are added."""

    takes_muon: ClassVar[bool] = True

    def __init__(self, dim: int, config: ResamplerConfig):
        super().__init__()
        self.norm_features, self.norm_latents = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, config.num_heads, config.key_dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = feed_forward(dim)

    def forward(self, z: Tensor, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Latents z (B, R, D), features x (B, M, D) -> (B, R, D)."""
        z_normed = self.norm_latents(z)
        both = torch.cat([self.norm_features(x), z_normed], 1)
        z = z + self.attention(z_normed, both, maps=maps)
        return z + self.feed_forward(self.norm(z))


class PerceiverResampler(nn.Module):
    """Learned latents that gather features of frames (Alayrac et al. 2022, section 2.1).

    A vector of time is added to the features of each frame before they are joined; places within a
    frame have none, as the features carry them.

    Args:
        dim: width of the features, and of the latents if the config names no other.
        config: see `ResamplerConfig`.
    """

    def __init__(self, dim: int, config: ResamplerConfig | None = None):
        super().__init__()
        self.config = config = config or ResamplerConfig()
        self.narrow = nn.Linear(dim, config.latent_dim, False) if config.latent_dim else None
        dim = config.latent_dim or dim
        self.latents = nn.Parameter(torch.randn(config.num_latents, dim))
        self.times = nn.Parameter(torch.randn(config.max_frames, dim) * 0.02)
        self.layers = nn.ModuleList(ResamplerLayer(dim, config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(dim)

    @torch.no_grad()
    def look_at(self, places: Tensor) -> None:
        """Let each latent begin by looking at a place of its own, in the first layer.

        Latents that begin at random look everywhere alike; what they gather of several objects is a
        sum, in which nothing tells what is where, and they hardly learn to do otherwise.

        Args:
            places: what features have in each place, as many vectors as latents, (R, D).
        Raises:
            ValueError: another shape, or heads whose keys together are not as wide as the features.
        """
        first = self.layers[0]
        assert isinstance(first, ResamplerLayer)
        attention = first.attention
        dim = self.latents.shape[1]
        if places.shape != self.latents.shape or attention.query.weight.shape != (dim, dim):
            raise ValueError(
                f"got places {tuple(places.shape)} for {len(self.latents)} latents of {dim}, with "
                f"keys of {len(attention.query.weight)} numbers in all; give a place for each "
                "latent, and key_dim 0"
            )
        self.latents.copy_(places)
        one = torch.eye(dim, dtype=places.dtype, device=places.device)
        for layer, gain in (
            (attention.query, SHARPNESS), (attention.key, SHARPNESS),
            (attention.value, 1.0), (attention.out, 1.0),
        ):  # fmt: skip
            layer.weight.copy_(gain * one)

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Features of frames (B, F, P, D) -> (B, R, latent_dim or D), whatever F and P are.

        Args:
            maps: gets the weights of each layer appended, (B, H, R, F * P + R).
        Raises:
            ValueError: more frames than have a vector of time, or none.
        """
        frames = x.shape[1]
        if not 1 <= frames <= len(self.times):
            raise ValueError(
                f"got {frames} frames; the resampler takes 1 to {len(self.times)}: leave some out, "
                "or give it more by resampler.max_frames"
            )
        x = x if self.narrow is None else self.narrow(x)
        x = (x + self.times[:frames, None]).flatten(1, 2)
        z = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            z = layer(z, x, maps)
        return self.norm(z)
