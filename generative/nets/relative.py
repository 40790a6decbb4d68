"""Relative positions: attention that knows how far back each key is.

    relative = RelativePositions(num_heads=4, head_dim=16, max_distance=31)
    y = attention(x, relative=relative)        # a `RelativeTerm` of `generative.nets.attention`

Shaw et al. (2018), computed by the skewing of the Music Transformer (Huang et al. 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RelativePositions", "skew"]


class RelativePositions(nn.Module):
    """Term of attention for the distance of a key: q_i . e_(i - j), one e for each head.

    Is a `RelativeTerm` of `generative.nets.attention`.

    Args:
        num_heads, head_dim: of the attention.
        max_distance: vectors for distances 0 to max_distance; farther distances share the last.
    """

    def __init__(self, num_heads: int, head_dim: int, max_distance: int):
        super().__init__()
        self.max_distance = max_distance
        self.vectors = nn.Parameter(0.02 * torch.randn(num_heads, max_distance + 1, head_dim))

    def forward(self, q: Tensor, num_keys: int) -> Tensor:
        """Queries (B, H, Tq, D) -> (B, H, Tq, num_keys); where a key is later, anything."""
        distance = torch.arange(num_keys - 1, -1, -1, device=q.device).clamp(max=self.max_distance)
        return skew(q @ self.vectors[:, distance].transpose(1, 2))


def skew(x: Tensor) -> Tensor:
    """From (query, distance) to (query, key), no copy for each query (Huang et al. 2018, 3.4).

    Args:
        x: (..., Tq, Tk); column c is for keys that are Tk - 1 - c back. The queries are the last Tq
            of Tk positions.
    Returns:
        (..., Tq, Tk): entry [i, j] is for key j. Where j is later than i, numbers without meaning.
    """
    num_queries, num_keys = x.shape[-2:]
    # One column more on the left moves row i by i places when the rows are cut anew.
    flat = F.pad(x, (1, 0)).flatten(-2)
    return flat[..., num_queries:].unflatten(-1, (num_queries, num_keys))
