"""Flamingo: gated cross-attention between the blocks of a frozen GPT, and its training.

A text has a tag where each image stands, and every token sees the last image of its chunk and no
other (Alayrac et al. 2022). In front of the GPT's blocks stand layers whose gates begin at 0, so
that the GPT begins unchanged:

    y <- y + tanh(alpha) attention(LN(y), image),   y <- y + tanh(beta) FFW(LN(y)),   then the block

    model = Flamingo.from_pretrained("runs/flamingo/model")
    model.logits(tokens, images)                   # (B, T), (B, N, C, H, W) -> (B, T, V)
    model.generate(tokens, images, 10)             # (B, T + 10)
    model.attention_maps(tokens, images)           # of each gated layer, (B, H, T, N * latents)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from generative.flamingo.config import FlamingoConfig, FlamingoLossConfig
from generative.flamingo.resampler import PerceiverResampler, feed_forward
from generative.flamingo.vision import NFNet
from generative.nets.attention import MultiHeadAttention
from generative.nets.transformer import BlockCache, init_weights
from generative.text.gpt import GPT
from generative.text.tokens import (
    TextLosses,
    after_end,
    generate,
    token_losses,
    up_to_end,
    with_start,
)
from generative.training.checks import check_some, check_tensor, check_tokens
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained

__all__ = ["Flamingo", "FlamingoBatch", "FlamingoLearner", "GatedCrossAttention", "image_indices"]


class FlamingoBatch(NamedTuple):
    """Texts with images."""

    tokens: Tensor
    """int64 (B, T), END behind the end, with an image tag for each image."""
    images: Tensor
    """(B, N, C, H, W) in [0, 1], or (B, N, F, C, H, W) of films."""
    counted: Tensor | None = None
    """Tokens to learn, bool (B, T); None for all of `Flamingo.learned`."""


def image_indices(tokens: Tensor, image_token: int, chunk_token: int) -> Tensor:
    """Number of the image that each token of texts (B, T) sees, int64 (B, T), 0 for none.

    The last image before it in its chunk, from 1; an image's tag sees the image, and so does the
    token that ends the chunk.
    """
    places = torch.arange(1, 1 + tokens.shape[1], device=tokens.device)
    is_image = tokens == image_token
    last_image = (places * is_image).cummax(1).values
    ends = (places * (tokens == chunk_token)).cummax(1).values
    last_end = nn.functional.pad(ends[:, :-1], (1, 0))  # the token itself is of the chunk it ends
    return is_image.cumsum(1) * (last_image > last_end)


class GatedCrossAttention(nn.Module):
    """Attention to an image and a feed-forward network, each behind a gate that begins closed.

    787,458 parameters with a width of 256 on either side. Tokens without an image are returned as
    they are: a softmax over nothing would be even or not a number. The paper lets the feed-forward
    network act on them too; here a text without images is the frozen GPT's, to the bit.

    Args:
        dim: width of the texts.
        visual_dim: width of the images' vectors.
        num_heads, key_dim: of the attention; see `MultiHeadAttention`.
    """

    takes_muon: ClassVar[bool] = True

    def __init__(self, dim: int, visual_dim: int, num_heads: int, key_dim: int = 0):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(
            dim, num_heads, key_dim or None, context_dim=visual_dim, bias=False
        )
        self.feed_forward = feed_forward(dim)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.feed_forward_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self, y: Tensor, media: Tensor, looks: Tensor, maps: list[Tensor] | None = None
    ) -> Tensor:
        """(B, T, dim) -> (B, T, dim).

        Args:
            media: vectors of all images, (B, M, visual_dim).
            looks: bool (B, T, M), True where a token may look; nowhere for one without an image.
            maps: gets the weights (B, H, T, M) appended, 0 for tokens without an image.
        """
        sees = looks.any(2, keepdim=True)
        safe = (looks | ~sees)[:, None]
        found = self.attention(self.attention_norm(y), media, mask=safe, maps=maps)
        if maps is not None:
            maps[-1] = maps[-1] * sees[:, None]
        y = y + self.attention_gate.tanh() * found * sees
        return (
            y + self.feed_forward_gate.tanh() * self.feed_forward(self.feed_forward_norm(y)) * sees
        )


class Flamingo(Pretrained, nn.Module):
    """A GPT that reads images.

    `FlamingoConfig().build()` is a small one; all its weights learn until `freeze()`.

    Args:
        language: the GPT; its texts begin after an END.
        vision: images (B, C, H, W) in [0, 1] -> features (B, D, h, w); has `config`.
        config: the recipe; sizes of the two networks are theirs.
    Raises:
        ValueError: the GPT's first token is given.
    """

    builds: ClassVar[Mapping[str, type]] = {"Flamingo": FlamingoConfig}

    def __init__(self, language: GPT, vision: NFNet, config: FlamingoConfig | None = None):
        super().__init__()
        if not language.config.from_start:
            raise ValueError("the GPT's first token is given; give one with from_start")
        self.config = config = config or FlamingoConfig(language.config, vision.config)
        self.language, self.vision = language, vision
        self.resampler = PerceiverResampler(vision.config.dim, config.resampler)
        visual_dim = self.resampler.latents.shape[1]
        self.gated = nn.ModuleList(
            GatedCrossAttention(
                language.config.block.dim, visual_dim, config.num_heads, config.key_dim
            )
            for _ in range(0, language.config.num_layers, config.every)
        )
        for layer in (self.resampler, *self.gated):
            init_weights(layer, "normal")
        self.frozen = False

    @property
    def learning(self) -> nn.ModuleDict:
        """Resampler and gated layers: all that a Flamingo learns."""
        return nn.ModuleDict({"resampler": self.resampler, "gated": self.gated})

    def freeze(self, vision: bool = True) -> Self:
        """Fix the GPT's weights, and the vision's; returns the model.

        Args:
            vision: False lets the vision learn, as before it is frozen.
        """
        self.frozen = True
        self.language.requires_grad_(False)
        self.vision.requires_grad_(not vision)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen GPT has no dropout in either."""
        super().train(mode)
        if self.frozen:
            self.language.eval()
        return self

    # -----------------------------------------------------------------------------------------
    # Network
    # -----------------------------------------------------------------------------------------

    def look(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Images -> the vectors that stand for them, (B, N * latents, D).

        Args:
            images: (B, N, C, H, W) in [0, 1], or (B, N, F, C, H, W) of films.
            maps: gets the resampler's attention appended, (B * N, H, latents, F * h * w + latents).
        Raises:
            ValueError: another shape, or pixels outside [0, 1].
        """
        check_tensor(images, "images", "give float (B, N, C, H, W), or (B, N, F, C, H, W)")
        if images.dim() not in (5, 6):
            raise ValueError(
                f"got images of shape {tuple(images.shape)}; give (B, N, C, H, W), or (B, N, F, C, "
                "H, W) of films"
            )
        films = images if images.dim() == 6 else images[:, :, None]
        b, n, f = films.shape[:3]
        features = self.vision(films.flatten(0, 2)).flatten(2).transpose(1, 2)
        latents = self.resampler(features.unflatten(0, (b * n, f)), maps)
        return latents.unflatten(0, (b, n)).flatten(1, 2)

    def logits(
        self,
        tokens: Tensor,
        images: Tensor | None = None,
        caches: list[BlockCache] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> logits of the token after each, (B, T, V).

        Args:
            images: see `look`; image n belongs to the n-th image tag of each text. Without images
                it is the GPT alone.
            caches: as of `GPT.logits`; the tokens are then the whole text, of which the last ones
                are new.
            maps: gets the attention of each gated layer appended, (B, H, T, N * latents).
        Raises:
            ValueError: a text has more tags than there are images, or tokens are not the GPT's.
        """
        media = None if images is None else self.look(images)
        return self.language.read_out(self._features(tokens, media, caches, maps))

    def _features(
        self,
        tokens: Tensor,
        media: Tensor | None,
        caches: list[BlockCache] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        seen = len(caches[0]) if caches else 0
        if media is None:
            return self.language.features(tokens[:, seen:], caches)
        looks = self._looks(tokens, media.shape[1])[:, seen:]

        def before(k: int, y: Tensor) -> Tensor:
            if k % self.config.every:
                return y
            return self.gated[k // self.config.every](y, media, looks, maps)

        return self.language.features(tokens[:, seen:], caches, before=before)

    def _looks(self, tokens: Tensor, num_vectors: int) -> Tensor:
        """Vectors that each token may look at, bool (B, T, num_vectors): its image's alone."""
        check_tokens(tokens, self.language.config.vocab_size, None, self)
        index = image_indices(tokens, self.config.image_token, self.config.chunk_token)
        each = self.config.resampler.num_latents
        tags = int((tokens == self.config.image_token).sum(1).max()) if len(tokens) else 0
        if tags > num_vectors // each:
            raise ValueError(
                f"a text has {tags} image tags and there are {num_vectors // each} images; pass "
                "one for each"
            )
        numbers = torch.arange(num_vectors, device=tokens.device) // each + 1
        return index[:, :, None] == numbers

    # -----------------------------------------------------------------------------------------
    # Texts
    # -----------------------------------------------------------------------------------------

    def learned(self, tokens: Tensor) -> Tensor:
        """Tokens of texts (B, T) that a loss counts, bool (B, T).

        Those after the first image up to the end, but no tags: what stands before any image is the
        frozen GPT's, and where images stand is not to be foretold.
        """
        tags = tokens == self.config.image_token
        return up_to_end(tokens) & ~tags & (tags.cumsum(1) > 0)

    def loss(self, tokens: Tensor, images: Tensor, counted: Tensor | None = None) -> TextLosses:
        """Mean loss over the tokens of texts (B, T); the arguments are those of `FlamingoBatch`.

        Raises:
            ValueError: tokens are not int64 (B, T) of the GPT, or images do not fit; see `logits`.
        """
        language = self.language.config
        tokens = check_tokens(tokens, language.vocab_size, language.max_len, self)
        learned = self.learned(check_some(tokens, self))
        learned = learned if counted is None else learned & counted
        return token_losses(self.logits(after_end(tokens), images), tokens, learned)

    @torch.no_grad()
    def generate(self, prompt: Tensor, images: Tensor, num_tokens: int, **options: Any) -> Tensor:
        """Continue texts (B, T) about images, (B, T + num_tokens); no image tag is written.

        Args:
            images: see `look`; looked at once.
            options: those of `generative.text.tokens.generate`: temperature, top_k, top_p,
                generator, ends.
        Raises:
            ValueError: the text would become longer than the GPT's window. It cannot slide, as an
                image's tag would be lost.
        """
        room = self.language.config.max_len
        if prompt.shape[1] + num_tokens > room:
            raise ValueError(
                f"{prompt.shape[1]} tokens and {num_tokens} new ones are more than the GPT's "
                f"window of {room}; ask for fewer, or leave examples out"
            )
        media = self.look(images)
        step = partial(self._step, media)
        return generate(step, with_start(prompt), num_tokens, **options)[:, 1:]

    def _step(
        self, media: Tensor, new: Tensor, state: tuple[Tensor, list[BlockCache]] | None
    ) -> tuple[Tensor, tuple[Tensor, list[BlockCache]]]:
        """Logits after the last of new tokens; see `generative.text.tokens.TokenStep`."""
        caches = self.language.make_caches() if state is None else state[1]
        tokens = new if state is None else torch.cat([state[0], new], 1)
        logits = self.language.read_out(self._features(tokens, media, caches)[:, -1])
        tag = torch.tensor([self.config.image_token], device=logits.device)
        return logits.index_fill(1, tag, -torch.inf), (tokens, caches)

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor, images: Tensor) -> list[Tensor]:
        """Attention of tokens (B, T) in each gated layer, (B, H, T, N * latents).

        The tokens are taken as they are; `tokens.with_start` adds the END in front of a text.
        """
        maps: list[Tensor] = []
        self.logits(tokens, images, maps=maps)
        return maps

    def gates(self) -> Tensor:
        """Openings of the gates, tanh of each, (gated layers, 2): attention, feed-forward."""
        named = self.gated.named_parameters()
        gates = [x.detach().tanh() for name, x in named if name.endswith("_gate")]
        return torch.stack(gates).view(-1, 2)


class FlamingoLearner(ModelLearner[Flamingo]):
    """AdamW on resampler and gated layers; GPT and vision are frozen.

    Args:
        model: becomes frozen.
        config: see `FlamingoLossConfig`.
        steps: updates over which the learning rate falls.
        vision: train the vision too.
    """

    def __init__(
        self, model: Flamingo, config: FlamingoLossConfig, steps: int, vision: bool = False
    ):
        model.freeze(not vision)
        fixed = [p for p in model.parameters() if not p.requires_grad]
        super().__init__(model, muon_or_adamw(model, config, steps, fixed))

    def update(self, batch: FlamingoBatch) -> dict[str, Tensor]:
        """One step; returns loss, accuracy, and the mean opening of either kind of gate."""
        losses = self.descend(self.model.loss(*batch))
        attention, feed_forward = self.model.gates().abs().mean(0)
        return {**losses, "attention_gates": attention, "feed_forward_gates": feed_forward}
