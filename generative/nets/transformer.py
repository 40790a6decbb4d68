"""The Transformer block: attention, then two layers at every position, each added to its input.

`TransformerBlock(BlockConfig(), causal=True)` is the book's block (its defaults), and with
`gpt2_block(dim, heads)`, `bert_block` or `t5_block` of `generative.nets.config` the block
of these models. It takes what `MultiHeadAttention` takes, `relative` terms and `maps` among it:
`block(x, relative=term, cache=cache, maps=maps)`. A stack is a list of blocks with one `BlockCache`
each; with norm="pre" it ends in `make_norm(config)`, and `init_weights(model, ...)` gives it the
first weights of the book's framework or of GPT-2. `GPT` in `generative/text/gpt.py` shows all of
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import KeyValueCache, MultiHeadAttention, RelativeTerm
from generative.nets.config import BlockConfig, bert_block, clip_block, gpt2_block, t5_block

__all__ = [
    "BlockCache",
    "BlockConfig",
    "QuickGELU",
    "TokenShift",
    "TransformerBlock",
    "bert_block",
    "clip_block",
    "gpt2_block",
    "init_weights",
    "make_norm",
    "t5_block",
]


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), CLIP's approximation of GELU (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU(approximate="tanh"),
    "quick-gelu": QuickGELU,
}


@dataclass
class BlockCache:
    """Cache of a block while text is generated one token at a time."""

    own: KeyValueCache = field(default_factory=KeyValueCache)
    """Cache of the attention to earlier positions."""
    context: KeyValueCache = field(default_factory=KeyValueCache)
    """Cache of the attention to the encoder's output."""
    before: Tensor | None = None
    """Last inputs of a block with a shift, (B, shift, dim)."""

    def __len__(self) -> int:
        """Positions seen."""
        return len(self.own)


class TokenShift(nn.Module):
    """Adds to every place the places right before it, feature by feature, by learned factors.

    The factors begin at 0. A short causal convolution of each feature by itself, as in front of
    the blocks of RWKV (Peng et al. 2023, "token shift") and of Allen-Zhu 2025 ("Canon layers"). It
    looks back alone, in encoders too, so that padding behind a text has no influence.

    Args:
        dim: features.
        num: places before each.
    """

    def __init__(self, dim: int, num: int):
        super().__init__()
        self.factors = nn.Parameter(torch.zeros(num, dim))

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, dim) -> the same shape, and the last `num` inputs, (B, num, dim).

        Args:
            before: last inputs of what x continues; 0 if not given.
        """
        num, length = len(self.factors), x.shape[1]
        line = F.pad(x, (0, 0, num, 0)) if before is None else torch.cat([before, x], 1)
        for back, factor in enumerate(self.factors, 1):
            x = x + factor * line[:, num - back : num - back + length]
        return x, line[:, length:]


class TransformerBlock(nn.Module):
    """Self-attention, if `cross` attention to a context, and a feed-forward network; if asked for,
    behind a shift.

    Args:
        config: see `BlockConfig`.
        causal: a position sees itself and the positions before it.
        cross: the block also looks at a context (an encoder's output, of the same width).
    """

    takes_muon: ClassVar[bool] = True
    """Its matrices stand between others, so that Muon may move them."""

    def __init__(self, config: BlockConfig, causal: bool = False, cross: bool = False):
        super().__init__()
        self.config = config
        self.shift = TokenShift(config.dim, config.shift) if config.shift else None
        self.attention = _attention(config, causal)
        self.attention_norm = make_norm(config)
        if cross:
            self.cross = _attention(config, causal=False)  # a context has no places to turn by
            self.cross_norm = make_norm(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.dim, config.ff_dim, config.bias),
            ACTIVATIONS[config.activation](),
            nn.Dropout(config.dropout if config.norm_kind == "rms" else 0.0),  # T5 has one here
            nn.Linear(config.ff_dim, config.dim, config.bias),
        )
        self.feed_forward_norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        relative: RelativeTerm | None = None,
        cache: BlockCache | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, T, dim) -> (B, T, dim).

        Args:
            context: (B, S, dim), for a block with `cross`.
            mask, relative: of the self-attention; see `MultiHeadAttention.forward`.
            context_mask: of the attention to the context.
            cache: what earlier calls have seen; x is then what comes after it.
            maps: gets the weights of the self-attention appended, then those to the context.
        """

        def attend(x: Tensor) -> Tensor:
            own = cache.own if cache is not None else None
            return self.attention(x, mask=mask, relative=relative, cache=own, maps=maps)

        def look(x: Tensor) -> Tensor:
            kept = cache.context if cache is not None else None
            return self.cross(x, context, mask=context_mask, cache=kept, maps=maps)

        if self.shift is not None:
            x, before = self.shift(x, cache.before if cache is not None else None)
            if cache is not None:
                cache.before = before
        x = self._add(x, attend, self.attention_norm)
        if context is not None:
            x = self._add(x, look, self.cross_norm)
        return self._add(x, self.feed_forward, self.feed_forward_norm)

    def _add(self, x: Tensor, part, norm: nn.Module) -> Tensor:
        """One part of the block with its shortcut."""
        if self.config.norm == "pre":
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))


def make_norm(config: BlockConfig) -> nn.Module:
    """The normalisation of a block, also what a stack of norm="pre" ends in."""
    kind = nn.LayerNorm if config.norm_kind == "layer" else nn.RMSNorm
    return kind(config.dim, eps=config.norm_eps)


def init_weights(model: nn.Module, kind: Literal["glorot", "normal"], num_layers: int = 0) -> None:
    """First weights of every linear map and embedding below model, in place.

    Args:
        kind: "glorot" for those of the book's framework: Glorot-uniform, embeddings uniform in
            +-0.05. "normal" for BERT's: deviation 0.02.
        num_layers: with "normal", GPT-2's first weights: in these blocks, 0.02 / sqrt(2 num_layers)
            where a block adds to its input, so that their sum keeps its size. 0: 0.02 there too.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            if kind == "glorot":
                nn.init.xavier_uniform_(layer.weight)
            else:
                last = name.endswith((".out", "feed_forward.3"))
                shrunk = (2 * num_layers) ** -0.5 if last and num_layers else 1
                nn.init.normal_(layer.weight, 0, 0.02 * shrunk)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            if kind == "glorot":
                nn.init.uniform_(layer.weight, -0.05, 0.05)
            else:
                nn.init.normal_(layer.weight, 0, 0.02)


def _attention(config: BlockConfig, causal: bool) -> MultiHeadAttention:
    return MultiHeadAttention(
        config.dim,
        config.num_heads,
        config.head_dim,
        causal=causal,
        bias=config.bias,
        scale=config.scale,
        dropout=config.attention_dropout,
        rotary=config.rotary,
    )
