"""M as a causal Transformer: a drop-in for the MDN-RNN.

    memory = TransformerMemory(TransformerMemoryConfig(predict_reward=True))
    out, state = memory(z, action)                        # (B, T, 32), (B, T, 3)
    out, state = memory.step(z_next, action_next, state)  # the same as reading on

Every block looks at the last `context` decisions, no matter where in an episode they are: the mask
is a band and positions are relative (Shaw et al. 2018). So keys and values of a decision are the
same for every query, and it makes no difference whether a sequence is read at once, in
pieces, or step by step with only those of the last `context - 1` decisions kept. A stack of L
blocks is reached by what happened up to L (context - 1) decisions ago.

Heads, losses and the form of the state are those of every M (`worldmodels.memory.base`), so the
dream, its environments and the agent work with it. World models of this kind: Chen et al. (2022),
TransDreamer; Micheli et al. (2023), IRIS; Robine et al. (2023), TWM.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.relative import RelativePositions
from generative.nets.transformer import (
    BlockCache,
    BlockConfig,
    TransformerBlock,
    init_weights,
    make_norm,
)
from worldmodels.configs import TransformerMemoryConfig
from worldmodels.memory.base import Memory, State

__all__ = ["TransformerMemory"]


class TransformerMemory(Memory):
    """Transformer over (z, action) + mixture density head + optional reward and end heads.

    Its state is a pair (h, c). h (B, hidden_dim) is the last block's normalised output through a
    tanh: within [-1, 1] like an LSTM's, which is the scale that C and `envs.dream` count on. c
    (B, state_dim) holds keys and values of the last `context - 1` decisions, oldest first and
    zeros where there were fewer, and at its end how many there were.
    """

    config_class: ClassVar[type] = TransformerMemoryConfig
    config: TransformerMemoryConfig

    def __init__(self, config: TransformerMemoryConfig | None = None):
        super().__init__()
        self.config = config = config or TransformerMemoryConfig()
        block = BlockConfig(
            config.hidden_dim,
            config.num_heads,
            config.head_dim,
            config.ff_dim,
            norm="pre",
            activation="gelu-tanh",
            dropout=0.0,
        )
        layers = range(config.num_layers)
        self.embed = nn.Linear(config.input_dim, config.hidden_dim)
        self.blocks = nn.ModuleList([TransformerBlock(block) for _ in layers])
        self.relative = nn.ModuleList(
            [
                RelativePositions(config.num_heads, config.head_dim, config.context - 1)
                for _ in layers
            ]
        )
        self.norm = make_norm(block)
        init_weights(self.blocks, "normal", config.num_layers)
        self._add_heads()

    def read(
        self, z: Tensor, action: Tensor, state: State | None, prev_reward: Tensor | None
    ) -> tuple[Tensor, State]:
        """The Transformer alone: h at every step, (B, T, hidden_dim), and the last (h, c)."""
        x = self.embed(self.inputs(z, action, prev_reward))
        caches, seen = self._recall(state)
        mask = self._band(x.shape[1], seen)
        for block, relative, cache in zip(self.blocks, self.relative, caches, strict=True):
            x = block(x, mask=mask, relative=relative, cache=cache)
        h = torch.tanh(self.norm(x)).to(self.embed.weight.dtype)  # also under autocast
        return h, (h[:, -1], self._keep(caches, seen, h))

    def _recall(self, state: State | None) -> tuple[list[BlockCache], Tensor | None]:
        """Cache of each block, and the number of decisions in it, (B,); None before the first."""
        config = self.config
        caches = [BlockCache() for _ in range(config.num_layers)]
        if state is None:
            return caches, None
        c = state[1]
        shape = (config.num_layers, 2, config.num_heads, config.context - 1, config.head_dim)
        kept = c[:, :-1].unflatten(1, shape)
        for i, cache in enumerate(caches):
            cache.own.append(kept[:, i, 0], kept[:, i, 1])
        return caches, c[:, -1]

    def _band(self, length: int, seen: Tensor | None) -> Tensor:
        """Mask of the keys that each of `length` queries sees, broadcasts to (B, H, T, keys)."""
        past = self.config.context - 1
        num_keys = length if seen is None else past + length
        key = torch.arange(num_keys, device=self.device)
        back = key[num_keys - length :, None] - key
        band = (back >= 0) & (back <= past)
        if seen is None:
            return band
        return band & (key >= past - seen[:, None])[:, None, None, :]

    def _keep(self, caches: list[BlockCache], seen: Tensor | None, h: Tensor) -> Tensor:
        """c (B, state_dim) after all that gave h (B, T, hidden_dim), and in its precision."""
        past, (batch, length) = self.config.context - 1, h.shape[:2]
        tensors = [t for cache in caches for t in (cache.own.keys, cache.own.values)]
        kept = torch.stack([t[:, :, -past:] for t in tensors if t is not None], 1)
        kept = F.pad(kept, (0, 0, past - kept.shape[3], 0))
        before = h.new_zeros(batch) if seen is None else seen
        count = (before + length).clamp_max(past)
        return torch.cat([kept.flatten(1).to(h.dtype), count[:, None]], 1)
