"""Attention: multi-head, causal or not, with a cache, maps and relative terms; between places.

    attention = MultiHeadAttention(dim=256, num_heads=4, causal=True)
    y = attention(x)                           # (B, T, 256) -> (B, T, 256)
    maps = []
    y = attention(x, maps=maps)                # appends the weights, (B, 4, T, T)
    y = attention(x, relative=term)            # term(q, num_keys) is added to the scores
    y = attention(x, context=memory)           # keys and values from memory (B, S, D)

To generate, keep a `KeyValueCache` and pass only the new positions:
`attention(x[:, t:], cache=cache)` gives the same as the last rows of `attention(x)`.
Queries are always at the last positions of the keys; the causal mask and a relative term rely on
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "KeyValueCache",
    "MultiHeadAttention",
    "PooledAttention",
    "RelativeTerm",
    "SpatialAttention",
    "apply_rotary",
    "causal_mask",
    "padding_mask",
]

RelativeTerm: TypeAlias = Callable[[Tensor, int], Tensor]
"""(queries (B, H, Tq, D), number of keys Tk) -> a term added to their products with the keys,
broadcastable to (B, H, Tq, Tk), before these are divided by sqrt(D). The queries stand at positions
Tk - Tq to Tk - 1."""


class KeyValueCache:
    """Keys and values of the positions that an attention layer has seen, (B, H, T, D) each."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        """Positions seen."""
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add positions at the end; returns all keys and values."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = torch.cat([self.keys, keys], 2)
            self.values = torch.cat([self.values, values], 2)
        return self.keys, self.values


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V in several heads, joined by a linear map (Vaswani et al. 2017).

    Args:
        dim: width of the input and of the output.
        num_heads: heads.
        key_dim: width D of the queries, keys and values of each head; None for dim / num_heads.
        context_dim: width of what keys and values are made of; None for dim.
        causal: a position sees itself and the positions before it.
        bias: whether the four linear maps add one.
        out_bias: whether the last of them does; None for `bias`.
        scale: whether scores are divided by sqrt(D).
        dropout: share of weights left out in training.
        rotary: turn queries and keys by their places, see `apply_rotary`; without a context only.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        key_dim: int | None = None,
        *,
        context_dim: int | None = None,
        causal: bool = False,
        bias: bool = True,
        out_bias: bool | None = None,
        scale: bool = True,
        dropout: float = 0.0,
        rotary: bool = False,
    ):
        super().__init__()
        self.num_heads, self.causal, self.dropout = num_heads, causal, dropout
        self.rotary = rotary
        self.key_dim = key_dim or dim // num_heads
        self.scale = self.key_dim**-0.5 if scale else 1.0
        inner = num_heads * self.key_dim
        self.query = nn.Linear(dim, inner, bias)
        self.key = nn.Linear(context_dim or dim, inner, bias)
        self.value = nn.Linear(context_dim or dim, inner, bias)
        self.out = nn.Linear(inner, dim, bias if out_bias is None else out_bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        relative: RelativeTerm | None = None,
        cache: KeyValueCache | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend from each position of x, (B, Tq, dim) -> (B, Tq, dim).

        Args:
            context: (B, Tk, context_dim) to gather from; None for x itself.
            mask: bool, broadcastable to (B, H, Tq, Tk), True where a query may look. Every query
                needs at least one key.
            relative: see `RelativeTerm`.
            cache: of x itself, it grows by Tq positions; of a context, it is filled by the first
                call and stands for the context afterwards.
            maps: gets the weights (B, H, Tq, Tk) appended, whose rows sum to 1.
        """
        q = self._heads(self.query(x))
        if context is not None and cache is not None and cache.keys is not None:
            k, v = cache.keys, cache.values
            assert v is not None
        else:
            source = x if context is None else context
            k, v = self._heads(self.key(source)), self._heads(self.value(source))
            if self.rotary and context is None:
                first = len(cache) if cache is not None else 0
                q, k = apply_rotary(q, first), apply_rotary(k, first)
            if cache is not None:
                k, v = cache.append(k, v)
        gathered = self._gather(q, k, v, mask, relative, maps)
        return self.out(gathered.transpose(1, 2).flatten(2))

    def _gather(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        relative: RelativeTerm | None,
        maps: list[Tensor] | None,
    ) -> Tensor:
        num_queries, num_keys = q.shape[2], k.shape[2]
        dropout = self.dropout if self.training else 0.0
        if maps is None and mask is None and relative is None and num_queries == num_keys:
            return F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=self.causal, scale=self.scale
            )
        if self.causal and num_queries > 1:
            earlier = causal_mask(num_queries, num_keys, q.device)
            mask = earlier if mask is None else mask & earlier
        added = relative(q, num_keys) * self.scale if relative is not None else None
        if maps is None:
            if added is not None and mask is not None:
                added = added.masked_fill(~mask, -torch.inf)
            return F.scaled_dot_product_attention(
                q, k, v, mask if added is None else added, dropout, scale=self.scale
            )
        scores = q @ k.transpose(2, 3) * self.scale
        scores = scores if added is None else scores + added
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1)
        maps.append(weights)
        return F.dropout(weights, dropout, self.training) @ v

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H * D) -> (B, H, T, D)."""
        return x.unflatten(2, (self.num_heads, self.key_dim)).transpose(1, 2)


def apply_rotary(x: Tensor, first: int = 0, base: float = 10_000.0) -> Tensor:
    """Turn the vectors of a sequence by angles that grow with their places (RoPE, Su et al. 2021).

    Numbers i and i + D/2 of the vector at place t are turned by t base^(-2i/D). The product of two
    turned vectors depends on them and on the distance of their places alone.

    Args:
        x: (..., T, D), D even.
        first: place of the first vector.
        base: the slowest pair needs about 2 pi base places for a turn.
    """
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, device=x.device) / half)
    places = torch.arange(first, first + x.shape[-2], device=x.device)
    angles = places[:, None] * rates
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


class SpatialAttention(nn.Module):
    """Self-attention over the places of (B, C, H, W), added to the input; one head.

    One 1x1 convolution gives queries, keys and values (Ho et al. 2020), so its weights are not
    those of a `MultiHeadAttention`. With a context_dim a place also looks at a sequence.

    Args:
        channels: C.
        context_dim: width of the sequence that `forward` is given; 0 for none.
    """

    def __init__(self, channels: int, context_dim: int = 0):
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.cross = (
            MultiHeadAttention(channels, 1, context_dim=context_dim) if context_dim else None
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), and a context (B, S, context_dim) if there is one -> (B, C, H, W)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        found = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(found.transpose(1, 2).unflatten(2, x.shape[2:]))
        if self.cross is None or context is None:
            return x
        seen = self.cross(x.flatten(2).transpose(1, 2), context)
        return x + seen.transpose(1, 2).unflatten(2, x.shape[2:])


class PooledAttention(nn.Module):
    """Every place of (B, C, H, W) looks at the image in a quarter of its places (SAGAN).

    y = x + gamma * out(sum_i a_i value_i), a = softmax_i(query . key_i): keys of C / 8 and values
    of C / 2 channels are the largest of 2x2 places, all maps are 1x1 convolutions without bias,
    scores are not scaled, and gamma begins at 0, so that the layer begins as the identity (Zhang et
    al. 2019, section 3, with the pooling of its authors' program).

    Args:
        channels: C; the sides H and W are even.
    """

    def __init__(self, channels: int):
        super().__init__()
        small, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = nn.Conv2d(channels, small, 1, bias=False)
        self.key = nn.Conv2d(channels, small, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """x (B, C, H, W) -> the same shape.

        Args:
            maps: gets the weights (B, H * W, H * W / 4) appended, whose rows sum to 1.
        """
        q = self.query(x).flatten(2)
        k, v = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))
        # Penalties on a critic's slope need second derivatives, which the fused kernel has not.
        weights = (q.transpose(1, 2) @ k).softmax(-1)
        if maps is not None:
            maps.append(weights)
        found = (v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.out(found)


def causal_mask(
    num_queries: int, num_keys: int, device: torch.device | str | None = None
) -> Tensor:
    """bool (num_queries, num_keys), True where the key is not after the query.

    The queries are the last of the keys' positions: query i sees key j if j <= i + (number of keys
    - number of queries).
    """
    ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return ones.tril(num_keys - num_queries)


def padding_mask(tokens: Tensor, padding: int = 0) -> Tensor:
    """Tokens (B, T) -> bool (B, 1, 1, T), True where there is something to look at."""
    return (tokens != padding)[:, None, None, :]
