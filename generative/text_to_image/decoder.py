"""Decoder of DALL.E 2: images of an image embedding, and of the caption beside it.

    model = ImageDecoder.from_pretrained("runs/image_decoder/model")
    images = model.sample(captions, embedding=clip.encode_image(x))     # variations of x
    text = clip.encode_text(tokens)                                     # of the captions
    images = model.sample(captions, embedding=prior.sample(text))       # from text to image

`DallE2` does all of this with captions as words.

The embedding goes two ways: beside the noise level, and as tokens in front of those of the caption
(Ramesh et al. 2022, section 2.1). In training each is left out by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.diffusion.config import DiffusionLossConfig
from generative.diffusion.model import Diffusion, DiffusionLosses
from generative.nets.conditional_unet import Condition
from generative.nets.text_encoder import PAD, TextEncoder
from generative.text_to_image.config import ImageDecoderConfig
from generative.text_to_image.model import LOSS, Texts, TextToImage
from generative.training.checks import check_vectors

__all__ = ["ImageDecoder"]


class ImageDecoder(TextToImage):
    """Diffusion of images that is told an image embedding and a text.

    Args:
        diffusion, text, words, settings: see `TextToImage`.
        embedding_dim: width of an image embedding.
        num_tokens: tokens that are made of it.
        drop_embedding: share of the embeddings that are left out in training.
    """

    builds: ClassVar[Mapping[str, type]] = {"ImageDecoder": ImageDecoderConfig}

    def __init__(
        self,
        diffusion: Diffusion,
        text: TextEncoder,
        words: tuple[str, ...],
        embedding_dim: int,
        num_tokens: int = 4,
        drop_embedding: float = 0.1,
        **settings: Any,
    ):
        super().__init__(diffusion, text, words, **settings)
        self.embedding_dim, self.num_tokens = embedding_dim, num_tokens
        self.drop_embedding = drop_embedding
        self.to_tokens = nn.Linear(embedding_dim, num_tokens * text.config.block.dim)

    def told(self, tokens: Tensor, embedding: Tensor | None = None) -> Condition:
        """Condition of the network.

        Args:
            tokens: of captions, (B, L).
            embedding: of images, (B, embedding_dim), of any length: only its direction is told,
                with entries of about 1. None, like a row of zeros, tells nothing.
        Raises:
            ValueError: embeddings of another width, or not one for each caption.
        """
        text = self.text(tokens)
        given = text.vector.new_zeros(len(tokens), self.embedding_dim)
        if embedding is not None:
            given = check_vectors(embedding, self.embedding_dim, "embeddings", self)
        if len(given) != len(tokens):
            raise ValueError(
                f"got {len(given)} embeddings and {len(tokens)} captions; give as many"
            )
        # Entries of a unit vector of many dimensions would drown beside the noise level.
        given = F.normalize(given, dim=1) * self.embedding_dim**0.5
        first = self.to_tokens(given).unflatten(1, (self.num_tokens, -1))
        ones = torch.ones(first.shape[:2], dtype=torch.bool, device=tokens.device)
        return Condition(
            torch.cat([first, text.outputs], 1),
            torch.cat([ones, tokens != PAD], 1),
            torch.cat([text.vector, given], 1),
        )

    def untold(self, embedding: Tensor | None = None) -> dict[str, Any]:
        """No embedding."""
        return {}

    def loss(
        self,
        images: Tensor,
        texts: Texts,
        config: DiffusionLossConfig = LOSS,
        generator: torch.Generator | None = None,
        embedding: Tensor | None = None,
    ) -> DiffusionLosses:
        """Error of the noise in images that are told texts and embeddings (B, embedding_dim).

        The share `drop_embedding` of the embeddings is left out, and by itself the share
        `config.drop` of the texts (publication: 10 % and 50 %).
        """
        if embedding is not None and self.drop_embedding:
            drawn = torch.rand(len(embedding), generator=generator, device=embedding.device)
            embedding = embedding * (drawn >= self.drop_embedding)[:, None]
        return super().loss(images, texts, config, generator, embedding=embedding)
