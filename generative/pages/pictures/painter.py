"""Pictures of a text-to-image model step by step, as a page shows them.

    painter = Painter(TextToImage.from_pretrained("runs/text_to_image/model"))
    request = Drawing("draw", "a red disc", num=2, steps=30, scale=3.0, seed=7)
    for estimates in painter.draw(request):
        estimates[0]                     # uint8 (H, W, 3), what the model now expects

The last ones are the pictures, those of the model's own `sample`, `redraw`, `inpaint` and `walk`.
Picture k has a generator of its own with the seed + k: how many are drawn changes only last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from generative.data.text import split_words
from generative.diffusion.samplers import SamplerStep
from generative.pages.pictures.requests import Drawing
from generative.text_to_image.model import TextToImage
from generative.training.checks import placed

__all__ = ["Painter", "to_pixels"]

ELSEWHERE = {
    "ControlNet": "another image, such as edges",
    "ImageDecoder": "the embedding of an image",
    "Upsampler": "a small image",
}
"""Needs of a class of models besides a text, by its name."""


class Painter:
    """Draws the requests of a page with one model.

    Args:
        model: draws what a text says, and needs nothing more; put into evaluation mode.
    Raises:
        ValueError: the model needs another image or has no words; says what to pass.
    """

    def __init__(self, model: torch.nn.Module):
        name = type(model).__name__
        models = (
            "pass the folder of a model that draws from words alone: a run of "
            "train_latent_diffusion.py, or of train_text_to_image.py scenes, imagen or latent"
        )
        if name in ELSEWHERE:
            raise ValueError(
                f"the model is of the class {name}, which is told {ELSEWHERE[name]} besides a "
                f"text; {models}"
            )
        if not isinstance(model, TextToImage):
            raise ValueError(f"the model is of the class {name}, which draws no texts; {models}")
        self.model, self.tokeniser = model.eval(), model.tokeniser
        channels, height, width = (
            model.diffusion.shape if model.autoencoder is None else model.autoencoder.image_shape
        )
        if channels not in (1, 3):
            raise ValueError(
                f"its images have {channels} channels, and a page shows those of 1 or 3; {models}"
            )
        self.image_shape = channels, height, width
        """(C, H, W)."""
        betas = model.diffusion.schedule.alpha_bar
        self.max_steps = len(betas) if betas is not None else None
        """Most steps of sampling, if the noise levels are those of a table."""

    def check(self, request: Drawing) -> None:
        """Refuse what this model cannot draw, before anything is drawn.

        Raises:
            ValueError: a prompt has too many words, or there are too many steps.
        """
        for prompt in (request.prompt, request.last):
            words, most = len(split_words(prompt)), self.tokeniser.length - 2
            if words > most:
                raise ValueError(
                    f"the prompt has {words} words and signs, and the model reads at most {most}; "
                    "shorten it"
                )
        if self.max_steps is not None and request.steps > self.max_steps:
            raise ValueError(
                f"steps is {request.steps}; this model has at most {self.max_steps} noise levels"
            )

    def unknown(self, request: Drawing) -> dict[str, list[str]]:
        """Words of the prompts that the model does not know, each with known ones like it."""
        return {
            word: close
            for prompt in (request.prompt, request.last)
            for word, close in self.tokeniser.unknown(prompt).items()
        }

    def draw(self, request: Drawing) -> Iterator[list[np.ndarray]]:
        """Estimates of the pictures at each step, uint8 (H, W, 3); the last are the pictures.

        Raises:
            ValueError: see `check`.
        """
        self.check(request)
        request = self._in_channels(request)
        total = self.num_steps(request)
        for number, step in enumerate(self._path(request), 1):
            # After the last step nothing is left to be estimated.
            yield self._pictures(step.x if number == total else step.data, request)

    def num_steps(self, request: Drawing) -> int:
        """Number of steps of a drawing: drawn over, a picture takes a share of them."""
        if request.mode != "over":
            return request.steps
        return max(1, round(request.strength * request.steps))

    def _in_channels(self, request: Drawing) -> Drawing:
        """The request with a grey picture, if the model draws in grey."""
        if request.picture is None or self.image_shape[0] == 3:
            return request
        grey = request.picture.mean(-1, keepdims=True).round().astype(np.uint8)
        return replace(request, picture=np.repeat(grey, 3, -1))

    @torch.no_grad()
    def _path(self, request: Drawing) -> Iterator[SamplerStep]:
        """Steps of all pictures together."""
        model, how = self.model, (request.steps, request.scale)
        if request.mode == "walk":
            ends = [self._generator(request.seed + k * request.two_noises) for k in range(2)]
            return model.walk_path(
                request.prompt, request.last, request.num, model.noise(2, ends), *how
            )
        texts = [request.prompt] * request.num
        generators = [self._generator(request.seed + k) for k in range(request.num)]
        if request.mode == "draw":
            return model.path(texts, generators, *how)
        x = self._tensor(request.picture).expand(request.num, -1, -1, -1)
        if request.mode == "over":
            return model.redraw_path(x, texts, request.strength, generators, *how)
        hole = torch.from_numpy(self._inside(request))[None].to(model.device)
        return model.inpaint_path(x, hole, texts, generators, *how)

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.model.device).manual_seed(seed)

    def _tensor(self, picture: np.ndarray | None) -> Tensor:
        """A picture uint8 (H, W, 3) as the model takes it, (1, C, H, W) in [0, 1]."""
        assert picture is not None  # checked requests of these modes have one
        x = torch.tensor(picture).to(**placed(self.model)).movedim(-1, 0)[None] / 255
        return x[:, : self.image_shape[0]]

    def _inside(self, request: Drawing) -> np.ndarray:
        """Mask of the rectangle, bool (H, W), True inside."""
        assert request.hole is not None
        hole, inside = request.hole, np.zeros(self.image_shape[1:], bool)
        inside[hole.top : hole.top + hole.height, hole.left : hole.left + hole.width] = True
        return inside

    @torch.no_grad()
    def _pictures(self, x: Tensor, request: Drawing) -> list[np.ndarray]:
        """Pictures of examples (B, ...) in the space of the diffusion."""
        pictures = to_pixels(self.model.images(x))
        if request.mode != "fill" or request.picture is None:
            return pictures
        inside = self._inside(request)[..., None]
        return [np.where(inside, picture, request.picture) for picture in pictures]


def to_pixels(images: Tensor) -> list[np.ndarray]:
    """Images (B, C, H, W) in [0, 1], C 1 or 3, as pictures uint8 (H, W, 3)."""
    pixels = images.float().cpu().clamp(0, 1).mul(255).round().byte().movedim(1, -1)
    return list(pixels.expand(-1, -1, -1, 3).numpy())
