"""DiT that is told a text: patches look at its tokens, and its vector modulates every layer.

    network = ConditionalDiT((3, 24, 24), ConditionalDiTConfig(patch=8))
    told = Condition(tokens=text, mask=mask, vector=vector)  # (B, S, 64), bool (B, S), (B, 64)
    network(x_t, log_snr, told)                              # (B, 3, 24, 24), (B,) -> the same

The Transformer is `generative.nets.dit.DiT`, whose condition, the noise level, also has the vector
(Peebles & Xie 2023). Attention to the tokens of the text stands in front of each of its blocks, and
is added to the patches without a gate, as in PixArt-alpha (Chen et al. 2024), where it stands
inside the block. It ends in zeros: a block begins as the identity, and the network gives zeros.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from generative.nets.attention import MultiHeadAttention
from generative.nets.conditional_unet import Condition, look
from generative.nets.config import ConditionalDiTConfig, DiTConfig
from generative.nets.dit import DiT, DiTBlock
from generative.nets.init import glorot_, zero_

__all__ = ["ConditionalDiT", "ConditionalDiTBlock", "ConditionalDiTConfig"]


class ConditionalDiTBlock(DiTBlock):
    """Attention of patches to tokens, and a block of the DiT behind it.

    Args:
        dim: width of patches and condition.
        num_heads: attention heads, of both attentions.
        context_dim: width of the tokens.
    """

    takes_muon: ClassVar[bool] = True
    """Its matrices stand between others, so that Muon may move them."""

    def __init__(self, dim: int, num_heads: int, context_dim: int):
        super().__init__(dim, num_heads)
        self.cross_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.cross = MultiHeadAttention(dim, num_heads, context_dim=context_dim)
        glorot_(self.cross)
        zero_(self.cross.out)

    def forward(self, x: Tensor, condition: Tensor, told: Condition | None = None) -> Tensor:
        """Patches (B, T, dim), a condition (B, dim) and the tokens of `told` -> (B, T, dim)."""
        if told is not None:
            x = x + look(self.cross, self.cross_norm(x), told)
        return super().forward(x, condition)


class ConditionalDiT(DiT):
    """Noisy images, their noise level and a `Condition` -> images, at first all zeros.

    Args:
        image_shape: (C, H, W) of x.
        config: see `ConditionalDiTConfig`.
    """

    def __init__(self, image_shape: tuple[int, int, int], config: ConditionalDiTConfig):
        of = DiTConfig(
            config.patch, config.dim, config.num_layers, config.num_heads,
            embedding_dim=config.embedding_dim, max_frequency=config.max_frequency,
        )  # fmt: skip
        super().__init__(image_shape, of, context_dim=config.vector_dim)
        self.text_dim = config.context_dim
        self.blocks = nn.ModuleList(
            ConditionalDiTBlock(config.dim, config.num_heads, config.context_dim)
            for _ in range(config.num_layers)
        )

    def forward(self, x: Tensor, log_snr: Tensor, told: Condition | None = None) -> Tensor:
        """x_t (B, C, H, W) and log_snr (B,) -> (B, C, H, W).

        Args:
            told: tokens and a vector; rows without a token, by its mask, look at nothing.
        Raises:
            ValueError: tokens or vector are missing or of another shape, or there is an image.
        """
        tokens = None if told is None else told.tokens
        if tokens is None or (tokens.dim(), len(tokens), tokens.shape[-1]) != (
            3, len(x), self.text_dim
        ):  # fmt: skip
            got = "none" if tokens is None else str(tuple(tokens.shape))
            raise ValueError(
                f"got tokens in the condition: {got}; this DiT needs ({len(x)}, S, {self.text_dim})"
            )
        assert told is not None
        if told.image is not None:
            raise ValueError("got an image to look at, which a DiT does not take; use a U-Net")
        condition, patches = self.embed(x, log_snr, told.vector), self.start(x)
        for block in self.blocks:
            patches = block(patches, condition, told)
        return self.finish(patches, condition)
