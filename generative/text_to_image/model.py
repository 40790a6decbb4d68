"""A diffusion model that is told a text: loss, sampling, filling in; and its learner."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.codes.model import VQVAE
from generative.data.caption_tokens import PAD, CaptionTokeniser
from generative.diffusion.config import DiffusionLossConfig
from generative.diffusion.editing import inpainting_path, noised
from generative.diffusion.guidance import Guidance
from generative.diffusion.model import Diffusion, DiffusionLosses
from generative.diffusion.samplers import (
    Clip,
    Denoiser,
    Generators,
    SamplerStep,
    denoising_path,
    normal_noise,
)
from generative.interpolation import slerp
from generative.nets.conditional_unet import Condition
from generative.nets.text_encoder import TextEncoder
from generative.text_to_image.autoencoder import KLAutoencoder
from generative.text_to_image.config import (
    GLIDEConfig,
    ImagenConfig,
    LatentDiffusionConfig,
    TextToImageLossConfig,
)
from generative.text_to_image.imagen import T5Text
from generative.training.checks import check_images, check_some, checked, placed
from generative.training.files import short
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, Finite, Probability, Quantile

__all__ = ["TextToImage", "TextToImageLearner", "Texts"]

LOSS = TextToImageLossConfig()
Texts: TypeAlias = int | Sequence[str] | Tensor
"""Captions, one for each image; or their tokens, int64 (B, L); or a number of images without."""
MOST_DEVIATION = 3.0
"""Largest deviation of latents that a model is trained on, and 1 over the smallest. A factor of 3
moves all noise levels by ln 9 = 2.2 of log SNR; batches of one data set differ by less."""
ENOUGH = 8
"""Images from which on a batch tells the deviation of a data set well enough for this."""


class TextToImage(Pretrained, nn.Module):
    """Diffusion of images that is told a text.

    The text enters twice: every attention of the U-Net looks at its tokens, and its vector is told
    beside the noise level, unless it is left out (as in Stable Diffusion). An image without a text
    is told padding alone, which has no influence; in training some examples are, so that guidance
    has an estimate to go away from.

    With an autoencoder it is latent diffusion: noise is taken away from latents, which are divided
    by their deviation over the training data (`measure`), and the autoencoder makes the image.

    Args:
        diffusion: around a network that takes a `Condition`; of images, or of latents.
        text: tokens int64 (B, L) -> their vectors (B, L, D) and one of the whole (B, D).
        words: word of each token from 4 on; none if captions come as tokens.
        autoencoder: a `KLAutoencoder` or a `VQVAE`, which is not trained; None for pixels.
        frozen: names of parts that are not trained.
        scale: of guidance, unless another one is asked for.
        interval: lowest and highest log SNR with guidance; see `generative.diffusion.Guidance`.
        quantile: of dynamic thresholds, unless another one is asked for; None clips estimates.
        spelled: the word after "says" is read letter by letter, and `words` hold the letters.
        pooled: whether the vector of the whole text is told, too.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "GLIDE": GLIDEConfig,
        "Imagen": ImagenConfig,
        "LatentDiffusion": LatentDiffusionConfig,
    }
    latent_std: Tensor
    text: TextEncoder | T5Text

    def __init__(
        self,
        diffusion: Diffusion,
        text: TextEncoder | T5Text,
        words: tuple[str, ...] = (),
        *,
        autoencoder: KLAutoencoder | VQVAE | None = None,
        frozen: tuple[str, ...] = (),
        scale: float = 3.0,
        interval: tuple[float, float] | None = None,
        quantile: float | None = None,
        spelled: bool = False,
        pooled: bool = True,
        config: Any = None,
    ):
        super().__init__()
        self.config, self.words, self.scale, self.frozen = config, words, scale, frozen
        self.pooled = pooled
        self.interval, self.quantile, self.spelled = interval, quantile, spelled
        self.diffusion, self.text, self.autoencoder = diffusion, text, autoencoder
        if autoencoder is not None:
            self.register_buffer("latent_std", torch.ones(()))
        self._deviation_seen = autoencoder is None
        for name in frozen:
            getattr(self, name).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but the frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    # -----------------------------------------------------------------------------------------
    # What the network is told
    # -----------------------------------------------------------------------------------------

    @cached_property
    def tokeniser(self) -> CaptionTokeniser:
        """Tokeniser of the model's words.

        Raises:
            ValueError: the model has none.
        """
        if not self.words:
            raise ValueError(
                "this model has no words, so that it cannot read a caption; give its config words, "
                "or pass tokens, int64 (B, L)"
            )
        return CaptionTokeniser(self.words, self.text.config.max_len, self.spelled)

    def tokens(self, texts: Texts) -> Tensor:
        """Tokens of captions, int64 (B, L); "" and a number of images give padding alone.

        Raises:
            ValueError: captions are given and the model has no words, one is too long, one stands
                alone and not in a list, texts are something else, or the number is no count.
        """
        if isinstance(texts, Tensor):
            return texts
        if isinstance(texts, str):
            raise ValueError(f"texts is {texts!r}; give a list of captions, [{texts!r}]")
        if isinstance(texts, (int, float)):
            return self._nothing(texts)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"got texts {short(texts)}; give a list of captions, a number of images, or tokens "
                f"int64 (B, {self.text.config.max_len}), which model.tokeniser.encode makes of "
                "captions"
            )
        rows = self.tokeniser.encode(texts)
        rows[[not text.strip() for text in texts]] = PAD
        return rows.to(self.device)

    @checked
    def _nothing(self, texts: CountOrZero) -> Tensor:
        return torch.full((texts, self.text.config.max_len), PAD, device=self.device)

    def told(self, tokens: Tensor) -> Any:
        """Condition of the network on tokens (B, L)."""
        outputs, vector = self.text(tokens)
        return Condition(outputs, tokens != PAD, vector if self.pooled else None)

    def untold(self, **given: Any) -> dict[str, Any]:
        """Arguments of `told` besides tokens, where the examples are told nothing."""
        return given

    def seen(self, images: Tensor) -> dict[str, Any]:
        """Arguments of `told` besides tokens, made of images (B, C, H, W) that are known; this
        model has none."""
        return {}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return placed(self)["device"]

    def denoiser(self, texts: Texts, scale: float | None = None, **given: Any) -> Denoiser:
        """Denoiser of normalised images for captions, guided.

        Args:
            scale: of guidance; the model's own if not given.
            given: what `told` takes besides.
        """
        tokens = self.tokens(texts)
        scale = self.scale if scale is None else scale
        told = self.told(tokens, **given)
        if scale == 1:
            return self.diffusion.guided(told)
        nothing = self.told(torch.full_like(tokens, PAD), **self.untold(**given))
        return self.diffusion.guided(told, Guidance(nothing, scale, self.interval))

    # -----------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------

    def loss(
        self,
        images: Tensor,
        texts: Texts,
        config: DiffusionLossConfig = LOSS,
        generator: torch.Generator | None = None,
        **given: Any,
    ) -> DiffusionLosses:
        """Error of the noise in images (B, C, H, W) that are told texts, at random noise levels.

        Args:
            config: its share `drop` of the texts is left out.
            given: what `told` takes besides.
        Raises:
            ValueError: another shape, pixels outside [0, 1], not a text for each image, or latents
                whose deviation is far from 1, as they were never measured or are others than these.
        """
        x, tokens = self._examples(check_some(images, self)), self.tokens(texts)
        if not self._deviation_seen:
            self._check_deviation(x)
        if len(tokens) != len(images):
            raise ValueError(
                f"got {len(images)} images and {len(tokens)} texts; give one for each image"
            )
        if config.drop:
            drawn = torch.rand(len(tokens), generator=generator, device=tokens.device)
            tokens = tokens.masked_fill((drawn < config.drop)[:, None], PAD)
        told = self.told(tokens, **given)
        return self.diffusion.loss(x, replace(config, drop=0.0), generator, told)

    # -----------------------------------------------------------------------------------------
    # Drawing
    # -----------------------------------------------------------------------------------------

    @checked
    @torch.no_grad()
    def sample(
        self,
        texts: Texts,
        generator: Generators = None,
        steps: Count | None = None,
        scale: Finite | None = None,
        eta: Probability = 0.0,
        quantile: Quantile | None = None,
        **given: Any,
    ) -> Tensor:
        """Draw an image for each text, (B, C, H, W) in [0, 1].

        Args:
            texts: captions, tokens, or a number of images that are told nothing.
            generator: of the noise; with one for each image, an image does not depend on how many
                are drawn beside it, but for the last bits.
            steps, scale: the model's own if not given.
            eta: 0 for DDIM, 1 for DDPM.
            quantile: the model's own if not given. A share such as 0.995 keeps contrasts, which
                guidance drives outside the range of pixels (dynamic thresholds).
            given: what `told` takes besides.
        """
        path = self.path(texts, generator, steps, scale, eta, quantile, **given)
        return self.images(deque(path, maxlen=1).pop().x)

    def path(
        self,
        texts: Texts,
        generator: Generators = None,
        steps: int | None = None,
        scale: float | None = None,
        eta: float = 0.0,
        quantile: float | None = None,
        z: Tensor | None = None,
        **given: Any,
    ) -> Iterator[SamplerStep]:
        """Every step of `sample`; `images` makes pictures of the steps.

        Args:
            z: standard normal noise to begin with, (B, ...); drawn if not given.
        """
        tokens = self.tokens(texts)
        z = self.noise(len(tokens), generator) if z is None else z
        stations = self.diffusion.schedule.steps(steps or self.diffusion.steps)
        denoise = self.denoiser(tokens, scale, **given)
        return denoising_path(denoise, z, stations, eta, generator, self.clipping(quantile))

    @checked
    @torch.no_grad()
    def inpaint(
        self,
        images: Tensor,
        hole: Tensor,
        texts: Texts,
        generator: Generators = None,
        steps: Count | None = None,
        scale: Finite | None = None,
        repeats: Count = 4,
        **given: Any,
    ) -> Tensor:
        """Fill holes in images (B, C, H, W) by what texts say; outside the images are kept.

        Args:
            hole: bool (B, 1, H, W), or (1, H, W) for all, True where an image is to be filled in.
            repeats: times each step is taken; more fit the surroundings better (Lugmayr et al.
                2022).
        Raises:
            ValueError: the hole has another shape or type, or pixels are outside [0, 1].
        """
        path = self.inpaint_path(images, hole, texts, generator, steps, scale, repeats, **given)
        return torch.where(hole, self.images(deque(path, maxlen=1).pop().x), images)

    @torch.no_grad()
    def inpaint_path(
        self,
        images: Tensor,
        hole: Tensor,
        texts: Texts,
        generator: Generators = None,
        steps: int | None = None,
        scale: float | None = None,
        repeats: int = 4,
        **given: Any,
    ) -> Iterator[SamplerStep]:
        """Every step of `inpaint`; around the hole `images` has what an autoencoder makes of it."""
        x, tokens = self.space(images), self.tokens(texts)
        stations = self.diffusion.schedule.steps(steps or self.diffusion.steps)
        return inpainting_path(
            self.denoiser(tokens, scale, **given), x, self._hole(hole), self.noise(len(x),
            generator), stations, 0.0, generator, self.clipping(), repeats,
        )  # fmt: skip

    @checked
    @torch.no_grad()
    def redraw(
        self,
        images: Tensor,
        texts: Texts,
        strength: Probability = 0.6,
        generator: Generators = None,
        steps: Count | None = None,
        scale: Finite | None = None,
        **given: Any,
    ) -> Tensor:
        """Noise images (B, C, H, W) and take the noise away by what texts say (image to image).

        Args:
            strength: share of the steps; 0 hardly changes an image, 1 hardly keeps it (Meng et al.
                2022).
        """
        path = self.redraw_path(images, texts, strength, generator, steps, scale, **given)
        return self.images(deque(path, maxlen=1).pop().x)

    @torch.no_grad()
    def redraw_path(
        self,
        images: Tensor,
        texts: Texts,
        strength: float = 0.6,
        generator: Generators = None,
        steps: int | None = None,
        scale: float | None = None,
        **given: Any,
    ) -> Iterator[SamplerStep]:
        """Every step of `redraw`: the share of them that the strength says."""
        x, tokens = self.space(images), self.tokens(texts)
        stations = self.diffusion.schedule.steps(steps or self.diffusion.steps)
        start, left = noised(x, self.noise(len(x), generator), stations, strength)
        denoise = self.denoiser(tokens, scale, **given)
        return denoising_path(denoise, start, left, 0.0, generator, self.clipping())

    @checked
    @torch.no_grad()
    def walk(
        self,
        first: str,
        last: str,
        num: Count,
        z: Tensor,
        steps: Count | None = None,
        scale: Finite | None = None,
        **given: Any,
    ) -> Tensor:
        """Images on the way from one caption to another, (num, C, H, W).

        Texts are mixed linearly and noises on the sphere. With the same caption twice it is a walk
        through the noise alone, and with the same noise twice one through the texts alone.

        Args:
            z: standard normal noise of both ends, (2, ...); see `noise`.
            given: what `between` takes besides, for each of the images.
        """
        path = self.walk_path(first, last, num, z, steps, scale, **given)
        return self.images(deque(path, maxlen=1).pop().x)

    @torch.no_grad()
    def walk_path(
        self,
        first: str,
        last: str,
        num: int,
        z: Tensor,
        steps: int | None = None,
        scale: float | None = None,
        **given: Any,
    ) -> Iterator[SamplerStep]:
        """Every step of `walk`."""
        w = torch.linspace(0, 1, num).to(z)
        told = self.between(first, last, w, **given)
        nothing = self.told(self.tokens(num), **self.untold(**given))
        scale = self.scale if scale is None else scale
        denoise = self.diffusion.guided(told, Guidance(nothing, scale, self.interval))
        stations = self.diffusion.schedule.steps(steps or self.diffusion.steps)
        return denoising_path(denoise, slerp(z[0], z[1], w), stations, clip=self.clipping())

    def between(self, first: str, last: str, weight: Tensor) -> Any:
        """Condition of the network on the way from one caption to another.

        Args:
            weight: of the last caption, (num,), from 0 to 1.
        """
        return mixed(self.told(self.tokens([first, last])), weight)

    def noise(self, n: int, generator: Generators = None) -> Tensor:
        """Standard normal noise that `path` begins with, (n, ...)."""
        return normal_noise((n, *self.diffusion.shape), generator, **placed(self))

    def images(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of examples in the space of the diffusion."""
        if self.autoencoder is None:
            return self.diffusion.denormalise(x)
        latents = x * self.latent_std
        if isinstance(self.autoencoder, VQVAE):
            codes = self.autoencoder.quantiser.encode(latents.movedim(1, -1))
            return self.autoencoder.decode(codes)
        return self.autoencoder.decode(latents)

    def space(self, images: Tensor) -> Tensor:
        """Examples as the diffusion noises them, from images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: another shape, or pixels outside [0, 1].
        """
        return self.diffusion.normalise(self._examples(images))

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> float:
        """Take the deviation of the latents over batches of images, and return it.

        It brings latents to deviation 1, for which noise levels are meant. One batch is too few
        where the deviation differs from batch to batch.

        Raises:
            ValueError: there is no autoencoder, or all latents are the same.
        """
        if self.autoencoder is None:
            raise ValueError("this model has no autoencoder, so there are no latents to measure")
        total, squares, number = 0.0, 0.0, 0
        for batch in batches:
            latents = self._latents(batch).double()
            total, number = total + float(latents.sum()), number + latents.numel()
            squares += float(latents.square().sum())
        std = (squares / max(1, number) - (total / max(1, number)) ** 2) ** 0.5
        if not std > 0:
            raise ValueError(
                f"latents have deviation {std} over {number} numbers; train the autoencoder first, "
                "and give some images"
            )
        self.latent_std.fill_(std)
        self._deviation_seen = False
        return std

    # -----------------------------------------------------------------------------------------

    def _examples(self, images: Tensor) -> Tensor:
        """Examples that the diffusion is of, from images."""
        if self.autoencoder is None:
            return check_images(images, self.diffusion.shape, self)
        check_images(images, self.autoencoder.image_shape, self)
        return self._latents(images) / self.latent_std

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        """Latents (B, Z, h, w) as the autoencoder has them; of codes, the vectors before they are
        replaced, which the decoder does (Rombach et al. 2022, section 4.1)."""
        if isinstance(self.autoencoder, VQVAE):
            return self.autoencoder.vectors(images).movedim(-1, 1)
        assert self.autoencoder is not None
        return self.autoencoder.encode(images)

    def _check_deviation(self, x: Tensor) -> None:
        """Refuse divided latents (B, Z, h, w) whose deviation is far from 1, once for a model.

        Raises:
            ValueError: they were never measured, or are others than those that were.
        """
        measured, enough = float(self.latent_std) != 1, len(x) >= ENOUGH
        std = float(x.detach().double().std(correction=0))
        if (enough or not measured) and not 1 / MOST_DEVIATION <= std <= MOST_DEVIATION:
            raise ValueError(
                f"latents of {len(x)} images have deviation {std:.3g} after they were divided by "
                f"latent_std, {float(self.latent_std):.3g}; noise levels are meant for 1: call "
                "model.measure(batches) with batches of the training images first"
            )
        self._deviation_seen = enough

    def _hole(self, hole: Tensor) -> Tensor:
        """A hole in images as one in examples: a latent is in it if any of its pixels is."""
        if self.autoencoder is None or hole.dtype != torch.bool:
            return hole
        batch = hole.reshape(-1, 1, *hole.shape[-2:]).float()
        small = F.adaptive_max_pool2d(batch, self.diffusion.shape[1:]).bool()
        return small if hole.dim() == 4 else small[0]

    def clipping(self, quantile: float | None = None) -> Clip | None:
        """Limits of estimates when sampling; None for latents, which have none.

        Args:
            quantile: of dynamic thresholds; the model's own if not given.
        """
        if self.autoencoder is not None:
            return None
        return self.diffusion.clipping("own", self.quantile if quantile is None else quantile)


def mixed(ends: Condition, weight: Tensor) -> Condition:
    """Conditions on the way from the first of two to the second, by the weight of it (num,)."""
    assert ends.tokens is not None
    assert ends.mask is not None
    vector = ends.vector
    return Condition(
        torch.lerp(ends.tokens[:1], ends.tokens[1:], weight[:, None, None]),
        ends.mask.any(0).expand(len(weight), -1),
        None if vector is None else torch.lerp(vector[:1], vector[1:], weight[:, None]),
    )


class TextToImageLearner(ModelLearner[TextToImage]):
    """AdamW or Muon on the error of the noise; `kept` has the average of the weights."""

    def __init__(self, model: TextToImage, config: TextToImageLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config

    def update(
        self, batch: tuple[Tensor, Texts] | tuple[Tensor, Texts, dict[str, Any]]
    ) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W), a text of each, and what else the model is told."""
        images, texts, *more = batch
        given: dict[str, Any] = more[0] if more else {}
        return self.descend(self.model.loss(images, texts, self.config, **given))
