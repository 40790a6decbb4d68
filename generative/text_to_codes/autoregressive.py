"""DALL.E and Parti: a picture is written code by code, as a text goes on after its caption.

    dalle = DALLE.from_pretrained("runs/dalle/model")
    codes = dalle.sample(tokens, temperature=0.9)       # captions (B, L) -> int64 (B, 3, 3)
    dalle.log_prob(tokens, codes)                       # ln p(codes | caption), nats, (B,)

What the codes mean is another model's matter, a VQ-VAE's (`generative.codes`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import padding_mask
from generative.nets.text_encoder import PAD
from generative.nets.transformer import BlockCache, TransformerBlock, init_weights, make_norm
from generative.sampling import sample_logits
from generative.text_to_codes.common import CodeLosses, check_captions, check_pairs, guided
from generative.text_to_codes.config import DALLEConfig, PartiConfig
from generative.text_to_codes.networks import CaptionMemory, CodeDecoder
from generative.training.checks import check_some, check_tokens, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero, NonNegative

__all__ = ["DALLE", "Parti"]


class DALLE(Pretrained, nn.Module):
    """One causal Transformer over the tokens of a caption, a start, and the codes of a picture.

    Captions and pictures have position tables of their own. The caption is written too, with a
    small weight (Ramesh et al. 2021, section 2.2); its padding is not seen by what follows.
    """

    config_class = DALLEConfig

    def __init__(self, config: DALLEConfig | None = None):
        super().__init__()
        self.config = config = config or DALLEConfig()
        dim = config.block.dim
        self.grid, self.num_codes = config.grid, config.num_codes
        self.words = nn.Embedding(config.vocab_size, dim)
        self.word_places = nn.Embedding(config.max_len, dim)
        self.codes = nn.Embedding(config.num_codes + 1, dim)  # the last starts a picture
        self.code_places = nn.Embedding(math.prod(config.grid), dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal=True) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        self.word_head = nn.Linear(dim, config.vocab_size)
        self.code_head = nn.Linear(dim, config.num_codes)
        init_weights(self, "normal", config.num_layers)

    def logits(
        self, tokens: Tensor, codes: Tensor, caches: list[BlockCache] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Captions (B, L) and the first T codes of pictures (B, T) -> logits.

        Args:
            caches: one for each block; what an earlier call has seen is not read again.
        Returns:
            of the word after each, (B, L, vocab_size), and of codes 0 to T (at most the last),
            (B, T + 1, num_codes); with caches only what is new.
        Raises:
            ValueError: captions outside the vocabulary, or too long.
        """
        check_tokens(tokens, self.config.vocab_size, self.config.max_len, self)
        start = torch.full_like(tokens[:, :1], self.num_codes)
        picture = torch.cat([start, codes], 1)[:, : math.prod(self.grid)]
        length = tokens.shape[1]
        text = self.words(tokens) + self.word_places.weight[:length]
        x = self.codes(picture) + self.code_places.weight[: picture.shape[1]]
        x = torch.cat([text, x], 1)
        seen = F.pad(tokens != PAD, (0, picture.shape[1]), value=True)
        # Every query needs a key: padding, whose output is of no use, sees itself.
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        mask = padding_mask(seen.long()) | itself
        begin = len(caches[0]) if caches else 0
        x, mask = x[:, begin:], mask[:, :, begin:]
        for k, block in enumerate(self.blocks):
            x = block(x, mask=mask, cache=caches[k] if caches else None)
        x, text_left = self.norm(x), max(0, length - begin)
        return self.word_head(x[:, :text_left]), self.code_head(x[:, text_left:])

    def loss(self, tokens: Tensor, codes: Tensor) -> CodeLosses:
        """Weighted means of the nats of a word and of a code.

        Args:
            tokens: captions, int64 (B, L).
            codes: int64 (B, h, w).
        Raises:
            ValueError: wrong captions or codes, or none.
        """
        check_some(codes, self)
        check_pairs(tokens, codes, self.grid, self.num_codes, self)
        line = codes.flatten(1)
        words, pictures = self.logits(tokens, line)
        targets = tokens[:, 1:]
        text = F.cross_entropy(
            words[:, :-1].transpose(1, 2), targets, ignore_index=PAD, reduction="sum"
        ) / (targets != PAD).sum().clamp_min(1)
        image = F.cross_entropy(pictures.transpose(1, 2), line)
        weight = self.config.text_weight
        return CodeLosses(weight * text + (1 - weight) * image, image * line.shape[1])

    def log_prob(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """ln p(codes (B, h, w) | captions (B, L)), nats, (B,)."""
        check_pairs(tokens, codes, self.grid, self.num_codes, self)
        line = codes.flatten(1)
        logits = self.logits(tokens, line)[1].transpose(1, 2)
        return -F.cross_entropy(logits, line, reduction="none").sum(1)

    @checked
    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        top_k: CountOrZero = 0,
    ) -> Tensor:
        """Codes of a picture for each caption (B, L), int64 (B, h, w).

        Args:
            temperature, top_k: see `generative.sampling.shape_logits`.
        """
        check_captions(tokens, self)
        line, caches = tokens[:, :0], [BlockCache() for _ in self.blocks]
        for _ in range(math.prod(self.grid)):
            logits = self.logits(tokens, line, caches)[1][:, -1]
            drawn = sample_logits(logits, temperature, top_k, generator=generator)
            line = torch.cat([line, drawn[:, None]], 1)
        return line.unflatten(1, self.grid)


class Parti(Pretrained, nn.Module):
    """An encoder that reads captions both ways, and a decoder that writes codes (Yu et al. 2022).

    The publication's has 20 billion parameters and codes of a ViT VQ-GAN.
    """

    config_class = PartiConfig

    def __init__(self, config: PartiConfig | None = None):
        super().__init__()
        self.config = config = config or PartiConfig()
        self.grid, self.num_codes = config.grid, config.num_codes
        self.memory, self.decoder = CaptionMemory(config), CodeDecoder(config, causal=True)

    def logits(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Captions (B, L) and codes (B, h w) -> logits of each code, (B, h w, num_codes)."""
        start = torch.full_like(codes[:, :1], self.num_codes)
        return self.decoder(torch.cat([start, codes[:, :-1]], 1), self.memory(tokens))

    def loss(self, tokens: Tensor, codes: Tensor) -> CodeLosses:
        """Mean nats of a code; the arguments are those of `DALLE.loss`."""
        check_some(codes, self)
        log_prob = self.log_prob(tokens, codes)
        nats = -log_prob.mean()
        return CodeLosses(nats / math.prod(self.grid), nats)

    def log_prob(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """ln p(codes (B, h, w) | captions (B, L)), nats, (B,)."""
        check_pairs(tokens, codes, self.grid, self.num_codes, self)
        line = codes.flatten(1)
        logits = self.logits(tokens, line).transpose(1, 2)
        return -F.cross_entropy(logits, line, reduction="none").sum(1)

    @checked
    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        top_k: CountOrZero = 0,
        guidance: NonNegative = 1.0,
    ) -> Tensor:
        """Codes of a picture for each caption (B, L), int64 (B, h, w).

        Args:
            temperature, top_k: see `generative.sampling.shape_logits`.
            guidance: 1 for none; s takes empty + s (given - empty) of the logits.
        """
        check_captions(tokens, self)
        given = tokens if guidance == 1 else torch.cat([tokens, torch.zeros_like(tokens)])
        memory, caches = self.memory(given), self.decoder.make_caches()
        new = torch.full_like(tokens[:, :1], self.num_codes)
        line = tokens[:, :0]
        for _ in range(math.prod(self.grid)):
            words = new if guidance == 1 else new.repeat(2, 1)
            logits = self.decoder(words, memory, caches)[:, -1]
            logits = logits if guidance == 1 else guided(logits, guidance)
            new = sample_logits(logits, temperature, top_k, generator=generator)[:, None]
            line = torch.cat([line, new], 1)
        return line.unflatten(1, self.grid)
