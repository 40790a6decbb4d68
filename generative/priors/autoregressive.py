"""Autoregressive prior of DALL.E 2: an embedding of an image is written as buckets, one by one.

    prior = AutoregressivePrior.from_pretrained("runs/prior/model")
    codes = prior.encode(image)              # embeddings (B, D) -> buckets, int64 (B, K)
    prior.decode(codes)                      # back, with the mean of each bucket
    prior.sample(text)                       # embeddings of captions (B, D') -> of images (B, D)

The embedding is projected on its principal components, in the order of falling variance, each of
which is one of some equally probable buckets; an encoder-decoder Transformer writes them (Ramesh et
al. 2022, section 2.2; Foster 2023, chapter 13). `fit` finds components and buckets in embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.transformer import BlockCache
from generative.priors.common import Given, closest, repeated
from generative.priors.config import AutoregressivePriorConfig
from generative.priors.networks import BucketTransformer
from generative.sampling import sample_logits
from generative.training.checks import check_some, check_vectors, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, NonNegative

__all__ = ["AutoregressivePrior", "AutoregressivePriorLosses"]


class AutoregressivePriorLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of an embedding's buckets, nats."""


class AutoregressivePrior(Pretrained, nn.Module):
    """p(buckets | caption), and the way from embeddings to buckets and back.

    Args:
        network: a `BucketTransformer`, or any network with its `encode` and `decode`.
        embed_dim, text_dim: numbers of an image's and of a caption's embedding.
        components, buckets: see `AutoregressivePriorConfig`.
        unit: embeddings have length 1.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"AutoregressivePrior": AutoregressivePriorConfig}
    mean: Tensor
    directions: Tensor
    borders: Tensor
    centres: Tensor

    def __init__(
        self,
        network: BucketTransformer,
        embed_dim: int,
        text_dim: int,
        components: int,
        buckets: int,
        unit: bool = True,
        config: AutoregressivePriorConfig | None = None,
    ):
        super().__init__()
        self.config, self.embed_dim, self.text_dim = config, embed_dim, text_dim
        self.components, self.buckets, self.unit = components, buckets, unit
        self.network = network
        # Before `fit` the components are the first numbers, in even buckets from -1 to 1.
        inner = torch.linspace(-1, 1, buckets + 1)
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("directions", torch.eye(embed_dim)[:, :components].clone())
        self.register_buffer("borders", inner[1:-1].repeat(components, 1))
        self.register_buffer("centres", ((inner[1:] + inner[:-1]) / 2).repeat(components, 1))

    @torch.no_grad()
    def fit(self, image: Tensor) -> None:
        """Take principal components and equally probable buckets from embeddings (N, D).

        Raises:
            ValueError: fewer embeddings than buckets, or of another shape or type.
        """
        check_vectors(image, self.embed_dim, "image embeddings", self)
        if len(image) < self.buckets:
            raise ValueError(
                f"got {len(image)} embeddings for {self.buckets} buckets of equal probability; "
                "pass more of them"
            )
        x = image.double()
        self.mean.copy_(x.mean(0))
        # Eigenvalues rise; a sign of its own would be any machine's choice.
        _, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)))
        directions = vectors.flip(1)[:, : self.components]
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        self.directions.copy_(directions * largest.sign())
        parts = self.project(image)
        shares = torch.arange(1, self.buckets, device=image.device) / self.buckets
        self.borders.copy_(parts.double().quantile(shares.double(), 0).T)
        codes = self._codes(parts)
        sums = F.one_hot(codes, self.buckets).to(parts)
        means = (sums * parts[..., None]).sum(0) / sums.sum(0).clamp_min(1)
        self.centres.copy_(torch.where(sums.sum(0) > 0, means, self._middles()))

    def project(self, image: Tensor) -> Tensor:
        """Components of embeddings (B, D), (B, K)."""
        return (image - self.mean) @ self.directions

    def encode(self, image: Tensor) -> Tensor:
        """Embeddings (B, D) -> bucket of each component, int64 (B, K).

        Raises:
            ValueError: another shape or type.
        """
        check_vectors(image, self.embed_dim, "image embeddings", self)
        return self._codes(self.project(image))

    def decode(self, codes: Tensor) -> Tensor:
        """Buckets, int64 (B, K) -> embeddings (B, D), of length 1 if they are `unit`."""
        parts = self.centres.gather(1, codes.T).T
        image = self.mean + parts @ self.directions.T
        return F.normalize(image, dim=1) if self.unit else image

    def loss(
        self,
        image: Tensor,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> AutoregressivePriorLosses:
        """Mean negative log-likelihood of embeddings; see `PriorBatch`."""
        check_some(image, self)
        log_prob = self.code_log_prob(self.encode(image), text, context, mask)
        return AutoregressivePriorLosses(-log_prob.mean())

    def code_log_prob(
        self,
        codes: Tensor,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """ln p(buckets (B, K) | caption), (B,), nats."""
        check_vectors(text, self.text_dim, "caption embeddings", self)
        logits = self.network.decode(codes, self._read(Given(text, context, mask)))
        return -F.cross_entropy(logits.movedim(2, 1), codes, reduction="none").sum(1)

    @checked
    @torch.no_grad()
    def sample(
        self,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        draws: Count = 1,
        temperature: NonNegative = 1.0,
        top_k: CountOrZero = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Embeddings of images for captions (B, D'), (B, D).

        Args:
            context, mask: see `PriorBatch`.
            draws: embeddings of each caption, of which the closest to it is returned.
            temperature, top_k: see `generative.sampling.shape_logits`.
        Raises:
            ValueError: another shape or type, or several draws of embeddings that cannot be
                compared with a caption's.
        """
        check_vectors(text, self.text_dim, "caption embeddings", self)
        given = repeated(Given(text, context, mask), draws, self.embed_dim)
        memory = self._read(given)
        caches = [BlockCache() for _ in self.network.decoder]
        codes = torch.empty(len(given.text), 0, dtype=torch.int64, device=text.device)
        for _ in range(self.components):
            logits = self.network.decode(codes, memory, caches)[:, -1]
            drawn = sample_logits(logits, temperature, top_k, generator=generator)
            codes = torch.cat([codes, drawn[:, None]], 1)
        return closest(self.decode(codes), text)

    def _read(self, given: Given) -> tuple[Tensor, Tensor]:
        # Numbers of a vector of length 1 are small; the network is given some of size 1.
        text = given.text * math.sqrt(self.text_dim) if self.unit else given.text
        return self.network.encode(text, given.context, given.mask)

    def _codes(self, parts: Tensor) -> Tensor:
        return torch.searchsorted(self.borders, parts.T.contiguous()).T.contiguous()

    def _middles(self) -> Tensor:
        """Middles of buckets by their borders, (K, buckets); the outer ones end at the borders."""
        ends = torch.cat([self.borders[:, :1], self.borders, self.borders[:, -1:]], 1)
        return (ends[:, 1:] + ends[:, :-1]) / 2
