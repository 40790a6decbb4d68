"""DALL.E 2: a CLIP, a prior of its embeddings and a decoder of them, as one.

    model = DallE2(clip, prior, decoder, tokeniser)         # the words of the CLIP's run
    model.sample(["a red square"] * 8)                      # (8, 3, 24, 24) in [0, 1]
    model.columns(["a red square"] * 8).prior               # with and without the prior
    model.variations(images, 4)                             # (B, 4, 3, 24, 24)
    model.interpolate(images[0], images[1], 7)              # (7, 3, 24, 24)
    model.save_pretrained("runs/dalle2")
    model = DallE2.from_pretrained("runs/dalle2")

CLIP embeds a caption, the prior makes an image's embedding of it, and the decoder draws that, told
the caption as well (Ramesh et al. 2022; Foster 2023, chapter 13). Behind the decoder stand
upsamplers that are told no caption: `upsampler.sample(len(images), low=images)` enlarges what is
drawn here, by an `Upsampler` of small images of these sides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.clip.model import CLIP
from generative.data.caption_tokens import PAD, CaptionTokeniser
from generative.diffusion.samplers import Generators
from generative.interpolation import slerp
from generative.priors.autoregressive import AutoregressivePrior
from generative.priors.diffusion import DiffusionPrior
from generative.text_to_image.decoder import ImageDecoder
from generative.training.checks import check_images, checked
from generative.training.pretrained import saved_class
from generative.training.ranges import Count, Probability

__all__ = ["Columns", "DallE2", "Prior"]

Prior: TypeAlias = DiffusionPrior | AutoregressivePrior
PRIORS: dict[str, type[Prior]] = {
    "DiffusionPrior": DiffusionPrior,
    "AutoregressivePrior": AutoregressivePrior,
}
PARTS = "clip", "prior", "decoder"
"""Folders of the models in that of a DALL.E 2."""
VOCABULARY = "vocabulary.json"
"""File of the CLIP's words beside them."""


class Columns(NamedTuple):
    """Images (B, C, H, W) of the same captions and noise, whose decoder is told different
    embeddings (Ramesh et al. 2022, figure 8; Foster 2023, figure 13-15)."""

    caption: Tensor
    """None: the caption alone."""
    text: Tensor
    """The caption's embedding, in the place of an image's."""
    prior: Tensor
    """The embedding of an image that the prior made of it."""


class DallE2(nn.Module):
    """Draws what a caption says by an embedding of an image between the two.

    Args:
        clip: embeds captions and images.
        prior: embeddings of captions -> of images, a `DiffusionPrior` or an `AutoregressivePrior`.
        decoder: draws images of embeddings and captions.
        tokeniser: words of the CLIP, which its run has in vocabulary.json; the decoder has its own.
    Raises:
        ValueError: the parts do not fit; says which of them, and what would. That all three are of
            the same CLIP no width can tell.
    """

    def __init__(
        self, clip: CLIP, prior: Prior, decoder: ImageDecoder, tokeniser: CaptionTokeniser
    ):
        super().__init__()
        check_parts(clip, prior, decoder, tokeniser)
        self.clip, self.prior, self.decoder, self.tokeniser = clip, prior, decoder, tokeniser
        self.image_shape: tuple[int, ...] = tuple(decoder.diffusion.shape)
        """(C, H, W) of the images."""

    # -----------------------------------------------------------------------------------------
    # Embeddings
    # -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Captions -> the CLIP's embeddings of length 1, (B, D).

        Raises:
            ValueError: a caption stands alone and not in a list, or is too long.
        """
        return self.clip.encode_text(self._tokens(texts))

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> the CLIP's embeddings of length 1, (B, D).

        Raises:
            ValueError: another shape, or pixels outside [0, 1].
        """
        return self.clip.encode_image(images)

    @checked
    @torch.no_grad()
    def predict(
        self,
        texts: Sequence[str],
        generator: torch.Generator | None = None,
        draws: Count = 2,
        **how: Any,
    ) -> Tensor:
        """Captions -> embeddings of images that the prior draws, (B, D).

        Args:
            draws: embeddings of each caption, of which the closest to it is kept (publication: 2).
            how: what the prior's `sample` takes besides, such as `guidance` of the diffusion prior
                or `temperature` of the autoregressive one.
        Raises:
            ValueError: see `embed_texts`.
        """
        tokens = self._tokens(texts)
        context: tuple[Tensor, ...] = ()
        if tokens_of(self.prior):
            encoder: Any = self.clip.text.encoder
            context = encoder(tokens).outputs, tokens != PAD
        text = self.clip.encode_text(tokens)
        return self.prior.sample(text, *context, draws=draws, generator=generator, **how)

    # -----------------------------------------------------------------------------------------
    # Images
    # -----------------------------------------------------------------------------------------

    @checked
    def sample(
        self,
        texts: Sequence[str],
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        scale: float | None = None,
        draws: Count = 2,
    ) -> Tensor:
        """Draw an image for each caption, (B, C, H, W) in [0, 1].

        Args:
            generator: of the prior first, then of the decoder's noise.
            steps, scale: of the decoder; its own if not given.
            draws: see `predict`.
        """
        embedding = self.predict(texts, generator, draws)
        noise = self.decoder.noise(len(embedding), generator)
        return self._decode(texts, embedding, noise, steps, scale)

    @checked
    def columns(
        self,
        texts: Sequence[str],
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        scale: float | None = None,
        draws: Count = 2,
    ) -> Columns:
        """Images of the same captions and noise with and without the prior.

        The last is what `sample` draws with the same arguments.
        """
        drawn = self.predict(texts, generator, draws)
        noise = self.decoder.noise(len(drawn), generator)
        told = None, self.embed_texts(texts), drawn
        return Columns(*(self._decode(texts, each, noise, steps, scale) for each in told))

    @checked
    def variations(
        self,
        images: Tensor,
        num: Count = 4,
        generator: Generators = None,
        texts: Sequence[str] | None = None,
        steps: Count | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Draw images of the embeddings of images (B, C, H, W) with other noise each.

        What all of an image's variations share is what its embedding holds (Ramesh et al. 2022,
        section 3.1).

        Args:
            num: variations of each image.
            generator: of the noise; or one for each variation, B num in all.
            texts: a caption of each image, which the decoder is told too; none if not given.
        Returns:
            (B, num, C, H, W) in [0, 1].
        Raises:
            ValueError: another shape, pixels outside [0, 1], or not a caption for each.
        """
        embedding = self.embed_images(images)
        texts = [""] * len(images) if texts is None else self._listed(texts)
        if len(texts) != len(images):
            raise ValueError(
                f"got {len(images)} images and {len(texts)} captions; give one for each image, or "
                "none"
            )
        noise = self.decoder.noise(num * len(images), generator)
        each = [text for text in texts for _ in range(num)]
        drawn = self._decode(each, embedding.repeat_interleave(num, 0), noise, steps, scale)
        return drawn.unflatten(0, (len(images), num))

    @checked
    def interpolate(
        self,
        first: Tensor,
        last: Tensor,
        num: Count = 7,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Draw the embeddings on the arc between those of two images, with the same noise.

        Of two images (C, H, W); the ends are variations of them (Ramesh et al. 2022, section 3.2).

        Returns:
            (num, C, H, W) in [0, 1].
        Raises:
            ValueError: another shape, or pixels outside [0, 1].
        """
        ends = self.embed_images(torch.stack([self._one(first), self._one(last)]))
        return self._along(ends[0], ends[1], torch.linspace(0, 1, num), generator, steps, scale)

    @checked
    def edit(
        self,
        image: Tensor,
        before: str,
        after: str,
        num: Count = 5,
        most: Probability = 0.5,
        generator: torch.Generator | None = None,
        steps: Count | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Draw an image (C, H, W) whose embedding moves by the difference of two captions.

        The way goes on the arc from the image's embedding to the direction "after less before" of
        the captions' (text diffs; Ramesh et al. 2022, section 3.3), with the same noise throughout.
        The publication takes the noise that leads to the image; here it is drawn.

        Args:
            before: caption of the image.
            after: caption of what it is to become.
            num: images on the way, the first a variation of the image.
            most: share of the arc that the last one has gone (publication: 0.25 to 0.5).
        Returns:
            (num, C, H, W) in [0, 1].
        Raises:
            ValueError: another shape, pixels outside [0, 1], or captions of equal embeddings.
        """
        start = self.embed_images(self._one(image)[None])[0]
        texts = self.embed_texts([before, after])
        way = texts[1] - texts[0]
        if not float(way.norm()) > 1e-6:
            raise ValueError(
                f"before is {before!r} and after {after!r}, whose embeddings are equal; give "
                "captions that say different things"
            )
        at = most * torch.linspace(0, 1, num)
        return self._along(start, F.normalize(way, dim=0), at, generator, steps, scale)

    # -----------------------------------------------------------------------------------------
    # Folders
    # -----------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Save each model in a folder of its own below this one, and the words beside them; see
        `Pretrained`."""
        for name, model in zip(PARTS, (self.clip, self.prior, self.decoder), strict=True):
            model.save_pretrained(Path(folder) / name, dtype)
        self.tokeniser.save(Path(folder) / VOCABULARY)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            FileNotFoundError: the folder lacks a part.
            ValueError: a part is another model, or they do not fit.
        """
        clip, prior, decoder = (Path(folder) / name for name in PARTS)
        kind = PRIORS[saved_class(prior, tuple(PRIORS), "the prior", "train_prior")]
        return cls(
            CLIP.from_pretrained(clip, device),
            kind.from_pretrained(prior, device),
            ImageDecoder.from_pretrained(decoder, device),
            CaptionTokeniser.load(Path(folder) / VOCABULARY),
        )

    # -----------------------------------------------------------------------------------------

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        """Tokens of the CLIP, int64 (B, L); "" gives padding alone."""
        rows = self.tokeniser.encode(self._listed(texts))
        rows[[not text.strip() for text in texts]] = PAD
        return rows.to(self.clip.log_scale.device)

    @staticmethod
    def _listed(texts: Sequence[str]) -> Sequence[str]:
        if isinstance(texts, str):
            raise ValueError(f"texts is {texts!r}; give a list of captions, [{texts!r}]")
        return texts

    def _one(self, image: Tensor) -> Tensor:
        """An image (C, H, W), refused if it is anything else."""
        return check_images(image[None], self.clip.image_shape, self)[0]

    def _along(
        self,
        first: Tensor,
        last: Tensor,
        at: Tensor,
        generator: torch.Generator | None,
        steps: int | None,
        scale: float | None,
    ) -> Tensor:
        """Images of embeddings on an arc, at these shares of it, with one noise and no caption."""
        noise = self.decoder.noise(1, generator).expand(len(at), -1, -1, -1)
        return self._decode([""] * len(at), slerp(first, last, at), noise, steps, scale)

    @torch.no_grad()
    def _decode(
        self,
        texts: Sequence[str],
        embedding: Tensor | None,
        noise: Tensor,
        steps: int | None,
        scale: float | None,
    ) -> Tensor:
        path = self.decoder.path(texts, None, steps, scale, z=noise, embedding=embedding)
        return self.decoder.images(deque(path, maxlen=1).pop().x)


def tokens_of(prior: Prior) -> int:
    """Width of the encoded tokens that a prior reads beside a caption's embedding; 0 for none."""
    return 0 if prior.config is None else prior.config.context_dim


def check_parts(
    clip: CLIP, prior: Prior, decoder: ImageDecoder, tokeniser: CaptionTokeniser
) -> None:
    """Refuse models that do not fit.

    Raises:
        ValueError: widths of embeddings or tokens, images, or the length of captions differ.
    """
    if clip.config is None:
        raise ValueError(
            "the CLIP was put together by hand and tells no widths; give one of a CLIPConfig"
        )
    width, text = clip.config.embed_dim, clip.config.text
    if (prior.embed_dim, prior.text_dim) != (width, width):
        raise ValueError(
            f"the CLIP has embeddings of {width} numbers, and the prior makes {prior.embed_dim} of "
            f"{prior.text_dim}; give a prior that was trained on this CLIP "
            "(train_prior clip --clip RUN)"
        )
    if decoder.embedding_dim != width:
        raise ValueError(
            f"the CLIP has embeddings of {width} numbers, and the decoder takes "
            f"{decoder.embedding_dim}; give a decoder that was trained on this CLIP "
            "(train_text_to_image decoder --clip RUN)"
        )
    if tokens_of(prior) not in (0, text.block.dim):
        raise ValueError(
            f"the CLIP encodes tokens as {text.block.dim} numbers, and the prior reads "
            f"{tokens_of(prior)}; give a prior that was trained on this CLIP, or one with "
            "context_dim 0"
        )
    if tuple(clip.image_shape) != tuple(decoder.diffusion.shape):
        raise ValueError(
            f"the CLIP sees images {tuple(clip.image_shape)}, and the decoder draws "
            f"{tuple(decoder.diffusion.shape)}; give models of the same images"
        )
    longest = text.max_len
    if tokens_of(prior) and prior.config is not None:
        longest = min(longest, prior.config.max_len)
    if tokeniser.length > longest:
        raise ValueError(
            f"the tokeniser makes rows of {tokeniser.length} tokens, and CLIP and prior read "
            f"{longest}; give the tokeniser of the CLIP's run"
        )
    if len(tokeniser) > text.vocab_size:
        raise ValueError(
            f"the tokeniser has {len(tokeniser)} tokens, and the CLIP vectors for "
            f"{text.vocab_size}; give the tokeniser of the CLIP's run"
        )
