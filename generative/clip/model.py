"""CLIP: images and captions as vectors of one space, close where the caption fits the image.

Two encoders are trained on pairs, so that the cosine of a pair's embeddings is higher than that of
any other pair of the batch (Radford et al. 2021; Foster 2023, chapter 13):

    clip = CLIP.from_pretrained("runs/clip/model")
    clip.encode_image(x)                     # (B, 3, 24, 24) in [0, 1] -> (B, 64), length 1
    clip.encode_text(tokens)                 # int64 (B, L) -> (B, 64), length 1
    clip.similarity(x, tokens)               # cosines, (B, B)
    clip.classify(x, tokens)                 # the caption that fits best, of any number, (B,)

It generates nothing, but its text encoder and its embeddings guide models that do. Captions are
tokens as `generative.nets.text_encoder` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.clip.config import CLIPConfig, CLIPLossConfig
from generative.training.checks import check_images, check_some
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained

__all__ = [
    "CLIP",
    "CLIPBatch",
    "CLIPLearner",
    "CLIPLosses",
    "contrastive_loss",
    "random_loss",
    "recall",
    "sigmoid_loss",
    "target_entropy",
]

Objective = Literal["softmax", "sigmoid"]


class CLIPBatch(NamedTuple):
    """Pairs of images and captions, and what else is known of them."""

    images: Tensor
    """(B, C, H, W) in [0, 1]."""
    tokens: Tensor
    """The caption of each, int64 (B, L)."""
    fits: Tensor | None = None
    """Fit of captions and images, bool (B images, B captions); None: only its own does."""
    negatives: Tensor | None = None
    """K captions for each image that do not fit it, int64 (B, K, L); a row of padding for none."""


class CLIPLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Mean of the two directions, nats; of "sigmoid" the sum over the captions of an image."""
    image_to_text: Tensor
    """Nats of an image's caption among all of the batch, its negatives included."""
    text_to_image: Tensor
    """Nats of a caption's image among all of the batch."""
    accuracy: Tensor
    """Share of images whose closest caption fits."""


class CLIP(Pretrained, nn.Module):
    """Two encoders and the factor of their cosines.

    `CLIPConfig().build()` is a small one of 24x24 pixels. The published ones have 151,277,313
    (B/32) and 427,616,513 parameters (L/14). A model that is put together by hand is saved by its
    weights: put it together again and call `load_weights(folder)`.

    Args:
        image: images (B, C, H, W) -> vectors (B, D).
        text: captions, int64 (B, L) -> vectors (B, D).
        image_shape: (C, H, W).
        objective: see `CLIPConfig`.
        scale, most: first and largest factor of cosines.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"CLIP": CLIPConfig}

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        image_shape: tuple[int, int, int],
        objective: Objective = "softmax",
        scale: float = 1 / 0.07,
        most: float = 100.0,
        config: CLIPConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.objective, self.most = (
            config, image_shape, objective, most,
        )  # fmt: skip
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        # Nearly all pairs of a batch do not fit, which this says from the start (Zhai et al. 2023).
        self.bias = nn.Parameter(torch.tensor(-10.0)) if objective == "sigmoid" else None

    @property
    def scale(self) -> Tensor:
        """Factor of cosines, at most `most`."""
        return self.log_scale.exp().clamp_max(self.most)

    def encode_image(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> embeddings of length 1, (B, D).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return F.normalize(self.image(check_images(x, self.image_shape, self)), dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Captions, int64 (B, L) -> embeddings of length 1, (B, D); 0 for one of padding alone.

        Raises:
            ValueError: no captions, see `TextEncoder`.
        """
        return F.normalize(self.text(tokens), dim=1)

    def similarity(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Cosines of images (N, C, H, W) and captions (M, L), (N, M)."""
        return self.encode_image(x) @ self.encode_text(tokens).T

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings of images (N, D) and of captions (M, D) or (N, M, D) -> logits (N, M)."""
        one_each = texts.dim() == 2
        cosines = images @ texts.T if one_each else (texts @ images[:, :, None])[:, :, 0]
        logits = self.scale * cosines
        return logits if self.bias is None else logits + self.bias

    def log_probs(self, x: Tensor, tokens: Tensor) -> Tensor:
        """log p(caption | image) of images (N, C, H, W) among captions (M, L), nats, (N, M).

        Captions made of labels by a template ("a photo of a cat", "a photo of a dog") make it a
        classifier that was never trained on them (zero-shot prediction).
        """
        return self.logits(self.encode_image(x), self.encode_text(tokens)).log_softmax(1)

    def classify(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The closest of captions (M, L) to each image (N, C, H, W), int64 (N,)."""
        return self.similarity(x, tokens).argmax(1)

    def loss(
        self,
        x: Tensor,
        tokens: Tensor,
        fits: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> CLIPLosses:
        """Loss of pairs, by the model's objective; the arguments are those of a `CLIPBatch`.

        Raises:
            ValueError: not as many captions as images, `fits` or `negatives` of another shape, or
                fewer than two pairs, which nothing can be learnt of.
        """
        self._check_pairs(check_some(x, self), tokens, fits, negatives)
        images, texts = self.encode_image(x), self.encode_text(tokens)
        logits, wrong = self.logits(images, texts), None
        if negatives is not None:
            there = negatives.flatten(0, 1)
            embedded = self.encode_text(there).unflatten(0, negatives.shape[:2])
            missing = (negatives == 0).all(2)
            wrong = self.logits(images, embedded).masked_fill(missing, -math.inf)
        measure = contrastive_loss if self.objective == "softmax" else sigmoid_loss
        return measure(logits, fits, wrong)

    def _check_pairs(
        self, x: Tensor, tokens: Tensor, fits: Tensor | None, negatives: Tensor | None
    ) -> None:
        check_images(x, self.image_shape, self, pixels=False)
        n = len(x)
        if n < 2:
            raise ValueError(
                f"got {n} image{'s' * (n != 1)}; a contrast needs 2 pairs or more: its loss is 0 "
                "with one"
            )
        if len(tokens) != n:
            raise ValueError(f"got {n} images and {len(tokens)} captions; pass one for each")
        if fits is not None and (fits.shape != (n, n) or fits.dtype != torch.bool):
            raise ValueError(
                f"got fits of shape {tuple(fits.shape)} and {fits.dtype}; {n} pairs need bool "
                f"({n}, {n}), images by captions"
            )
        if negatives is not None and (negatives.dim() != 3 or len(negatives) != n):
            raise ValueError(
                f"got negatives of shape {tuple(negatives.shape)}; {n} pairs need ({n}, K, L)"
            )


# ---------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------


def contrastive_loss(
    logits: Tensor, fits: Tensor | None = None, negatives: Tensor | None = None
) -> CLIPLosses:
    """Cross-entropies of the captions of images, and of the images of captions.

    All captions of the batch that fit an image are equally right, and the same of images. The loss
    is then at least the entropy of these targets (`target_entropy`).

    Args:
        logits: (N images, N captions).
        fits: bool (N, N); None for the diagonal.
        negatives: logits of captions that do not fit, (N, K), -inf for none.
    """
    fits = _fitting(logits, fits)
    rows = logits if negatives is None else torch.cat([logits, negatives], 1)
    to_text = _even_cross_entropy(rows, F.pad(fits, (0, rows.shape[1] - fits.shape[1])))
    to_image = _even_cross_entropy(logits.T, fits.T)
    return CLIPLosses((to_text + to_image) / 2, to_text, to_image, _accuracy(rows, fits))


def sigmoid_loss(
    logits: Tensor, fits: Tensor | None = None, negatives: Tensor | None = None
) -> CLIPLosses:
    """Loss of SigLIP, which tells of each pair by itself whether it fits.

    -1/N sum_ij log sigmoid(+-logits) (Zhai et al. 2023).

    The arguments are those of `contrastive_loss`, whose directions are told beside it.
    """
    found = contrastive_loss(
        logits.detach(), fits, None if negatives is None else negatives.detach()
    )
    fits = _fitting(logits, fits)
    loss = -F.logsigmoid(torch.where(fits, logits, -logits)).sum(1)
    if negatives is not None:
        loss = loss - F.logsigmoid(-negatives).sum(1)
    return found._replace(loss=loss.mean())


def target_entropy(fits: Tensor) -> Tensor:
    """Entropy of the targets of `contrastive_loss`, the least that it can be, nats, a scalar.

    Mean of log (number of captions that fit an image) and of log (number of images that fit a
    caption).

    Args:
        fits: bool (N images, N captions).
    """
    counts = fits.sum(1).double(), fits.sum(0).double()
    return sum(count.clamp_min(1).log().mean() for count in counts) / torch.tensor(2.0)


def random_loss(n: int, scale: float, dim: int) -> float:
    """Contrastive loss of n independent even directions in dim dimensions, about, in nats.

    log n + scale^2 / (2 dim): the logits have variance scale^2 / dim. A model whose embeddings are
    all equal has log n.
    """
    return math.log(n) + scale**2 / (2 * dim)


def recall(similarity: Tensor, fits: Tensor | None = None) -> tuple[float, float]:
    """Share of images whose closest caption fits, and of captions whose closest image does.

    Args:
        similarity: (N images, M captions).
        fits: bool (N, M); None for the diagonal.
    """
    fits = _fitting(similarity, fits)
    return float(_accuracy(similarity, fits)), float(_accuracy(similarity.T, fits.T))


def _fitting(logits: Tensor, fits: Tensor | None) -> Tensor:
    if fits is not None:
        return fits
    return torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)


def _even_cross_entropy(logits: Tensor, fits: Tensor) -> Tensor:
    """Mean of -log p of the columns that fit, over the rows that have some."""
    counts = fits.sum(1)
    log_p = logits.log_softmax(1).masked_fill(~fits, 0.0).sum(1) / counts.clamp_min(1)
    return -log_p[counts > 0].mean()


def _accuracy(logits: Tensor, fits: Tensor) -> Tensor:
    best = logits.detach().argmax(1, keepdim=True)
    right = F.pad(fits, (0, logits.shape[1] - fits.shape[1])).gather(1, best)
    return right.float().mean()


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class CLIPLearner(ModelLearner[CLIP]):
    """AdamW or Muon on the contrast of pairs; `kept` holds the average of the weights, if any."""

    def __init__(self, model: CLIP, config: CLIPLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))

    def update(self, batch: CLIPBatch) -> dict[str, Tensor]:
        """One step on pairs.

        Returns:
            what `CLIPLosses` has; scale, the factor of cosines; entropy, the floor of the loss of
            these pairs.
        """
        logged = self.descend(self.model.loss(*batch))
        fits = _fitting(batch.images.new_empty(len(batch.tokens), len(batch.tokens)), batch.fits)
        return {**logged, "scale": self.model.scale.detach(), "entropy": target_entropy(fits)}
