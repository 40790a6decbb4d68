"""Pairs of images and captions from any source, and the batches of a training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from scripts.common.missing import folder_of

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from generative.clip import CLIPBatch
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.data.captioned import CaptionedImages
    from generative.data.emoji import Augmentation, EmojiImages
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.known.captions import Part
    from generative.known.config import CaptionMix
    from generative.training.run import Run

__all__ = [
    "VOCABULARY",
    "CaptionData",
    "ImagePairs",
    "PairBatches",
    "Pairs",
    "ScenePairs",
    "check_lengths",
    "fit_tokeniser",
    "load_pairs",
]

CaptionData = Literal["scenes", "emoji", "fashion-mnist", "folder"]
"""Names of the data sets; `folder` is any folder of images with captions."""
VOCABULARY = "vocabulary.json"
"""File of the words in a run's folder."""
TEMPLATES = ("a photo of {}", "a picture of {}", "{}")
"""Captions of classes; the first is that of zero-shot prediction."""


class Pairs(Protocol):
    """Source of pairs, and of what is known of captions and images that are not of one pair."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    def draw(
        self, n: int, generator: Generator, partners: int = 0
    ) -> tuple[Tensor, list[str], Tensor]:
        """Images (n, C, H, W), a caption of each, and which fit which, bool (n images, n).

        Args:
            partners: pairs beside each whose captions have the same words and fit none of its
                images, as far as there are such.
        """
        ...

    def negatives(self, text: str) -> Sequence[str]:
        """Captions with the words of another that fit none of its images."""
        ...

    def words(self) -> Sequence[str]:
        """Captions that hold every word."""
        ...

    def every(self) -> Iterator[tuple[str, str]]:
        """Captions of training and test, each with the file of its image, "" for none."""
        ...

    @property
    def spelled(self) -> bool:
        """The word after "says" is to be read letter by letter."""
        ...


@dataclass(frozen=True)
class ScenePairs:
    """Scenes of the micro-world; every fit of the batch is known."""

    world: CaptionedScenes
    factor: int = 1
    """Scenes are averages over squares of so many pixels on a side."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.world.image_shape
        return channels, height // self.factor, width // self.factor

    def draw(
        self, n: int, generator: Generator, partners: int = 0
    ) -> tuple[Tensor, list[str], Tensor]:
        import torch

        from generative.known.captions import matches
        from generative.known.scenes import draw
        from generative.text_to_image import shrink

        texts, cells = self.world.draw(n, generator)
        if partners:
            order = torch.rand(n, 3, generator=generator).argsort(1).tolist()
            groups = (
                [text, *_chosen(self.negatives(text), row[:partners])]
                for text, row in zip(texts, order, strict=True)
            )
            texts = list(itertools.islice(itertools.chain.from_iterable(groups), n))
            cells = self.world.scenes(texts, generator)
        images = draw(cells, self.world.border)
        if self.factor > 1:
            images = shrink(images, self.factor)
        return images, texts, matches(texts, cells).T

    def negatives(self, text: str) -> Sequence[str]:
        from generative.known.bindings import exchanged

        return exchanged(text, self.world.part)

    def words(self) -> Sequence[str]:
        from generative.known.captions import WORDS

        return WORDS

    def every(self) -> Iterator[tuple[str, str]]:
        return ((text, "") for text in self.world.captions)

    @property
    def spelled(self) -> bool:
        return bool(self.world.mix.sign)


@dataclass(frozen=True)
class ImagePairs:
    """Images with captions; a caption fits the images whose captions mean the same."""

    images: CaptionedImages | EmojiImages
    meaning: Callable[[str], Hashable] = str
    """Key of a caption that is equal for captions of the same images."""
    whole: CaptionedImages | EmojiImages | None = None
    """The same with the images of the other parts."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.image_shape

    def draw(
        self, n: int, generator: Generator, partners: int = 0
    ) -> tuple[Tensor, list[str], Tensor]:
        import torch

        x, texts = self.images.batch(n, generator)
        known: dict[Hashable, int] = {}
        meant = torch.tensor([known.setdefault(self.meaning(text), len(known)) for text in texts])
        return x, texts, meant[:, None] == meant

    def negatives(self, text: str) -> Sequence[str]:
        return ()

    def words(self) -> Sequence[str]:
        return [text for texts in self.images.captions for text in texts]

    def every(self) -> Iterator[tuple[str, str]]:
        whole = self.whole or self.images
        files = getattr(whole, "files", ()) or itertools.repeat("")
        for texts, file in zip(whole.captions, files, strict=False):
            yield from ((text, file) for text in texts)

    @property
    def spelled(self) -> bool:
        return False


def fit_tokeniser(
    pairs: Pairs, length: int, most: int, option: str = "--model.text.max-len"
) -> CaptionTokeniser:
    """Tokeniser of the words of some pairs; those of signs are spelled.

    Args:
        option: of the command, which gives the length.
    Raises:
        ValueError: there are signs, and words and letters are more than `most` tokens; or captions
            are longer than a row, see `check_lengths`.
    """
    from generative.data.caption_tokens import CaptionTokeniser

    words = pairs.words()
    needed = len(CaptionTokeniser.fit(words, length, spelled=True)) if pairs.spelled else 0
    if needed > most:
        raise ValueError(
            f"signs are read letter by letter, so that words and letters are {needed} tokens, and "
            f"the reader of captions has vectors for {most}; give its vocab-size {needed} or more"
        )
    tokeniser = CaptionTokeniser.fit(words, length, pairs.spelled, most)
    check_lengths(pairs, tokeniser, f"pass {option}")
    return tokeniser


def check_lengths(pairs: Pairs, tokeniser: CaptionTokeniser, advice: str) -> None:
    """Refuse captions, of training or of test, that are longer than the rows of a tokeniser.

    Args:
        advice: where to ask for longer rows, up to their length: "pass --model.text.max-len".
    Raises:
        ValueError: says how many there are, and where the longest is.
    """
    from generative.training.files import short

    needed = [(tokeniser.count(text), text, file) for text, file in pairs.every()]
    long = [found for found in needed if found[0] > tokeniser.length]
    if long:
        most, text, file = max(long, key=lambda found: found[0])
        of = f", of {file}," if file else ""
        raise ValueError(
            f"{len(long):,} of {len(needed):,} captions are longer than the {tokeniser.length} "
            f"tokens that are read, begin and end included; the longest{of} has {most}, "
            f"{short(text)}: shorten them, or {advice} {most}"
        )


@folder_of("--data-dir")
def load_pairs(
    name: CaptionData,
    data_dir: Path,
    image_shape: tuple[int, int, int],
    mix: CaptionMix,
    part: Literal["train", "test"] = "train",
    max_images: int | None = None,
    augmentation: Augmentation | None = None,
    scenes: Part = "train",
    small: bool = True,
) -> Pairs:
    """A source of pairs in the shape that a model takes.

    Args:
        name: which.
        data_dir: where its files are: data_dir/NAME if there is such a folder, else data_dir.
            Scenes are drawn and emoji come with this package; they need none.
        mix: kinds of captions of scenes.
        part: of the images; scenes are drawn anew for both.
        augmentation: of emoji in training; the usual one if not given.
        scenes: part of the captions of scenes; all but "all" leave objects out.
        small: scenes of 12, 6 or 3 pixels on a side are shrunk ones; else there are none.
    Raises:
        ValueError: the data have another shape.
        FileNotFoundError: files are missing; says which.
    """
    if name == "scenes":
        from generative.known.captioned_scenes import CaptionedScenes

        border = max(0, (image_shape[1] - 24) // 2)
        factor = 24 // image_shape[1] if small and image_shape[1] in (12, 6, 3) else 1
        pairs: Pairs = ScenePairs(CaptionedScenes(mix, scenes, border), factor)
    elif name == "emoji":
        from generative.data.emoji import Augmentation, load_emoji

        emoji = load_emoji(image_shape[1], augmentation=augmentation or Augmentation())
        # Names alone are searched for; keywords are one more way to say them in training.
        chosen = emoji.part("train") if part == "train" else emoji.part(part).plain()
        pairs = ImagePairs(chosen, lambda text: text.partition(",")[0], emoji)
    elif name == "fashion-mnist":
        from generative.data.captioned import caption_classes
        from generative.data.fashion_mnist import CLASSES
        from scripts.common.images import load_images

        images = load_images(name, data_dir, image_shape, max_images=max_images).part(part)
        names = [class_label(label) for label in CLASSES]
        pairs = ImagePairs(caption_classes(images, names, TEMPLATES), _without_template)
    else:
        from generative.data.captioned import load_captioned_folder

        folder = data_dir / name if (data_dir / name).is_dir() else data_dir
        side, colour = image_shape[1], image_shape[0] == 3
        images = load_captioned_folder(folder, side, colour, max_images=max_images)
        pairs = ImagePairs(images.part(part), whole=images)
    if pairs.image_shape != tuple(image_shape):
        raise ValueError(
            f"{name} has images {pairs.image_shape} and the model takes {tuple(image_shape)}; "
            f"give --model.image.image-shape {' '.join(map(str, pairs.image_shape))}"
        )
    return pairs


def class_label(name: str) -> str:
    """Name of a class with its article, in lower case: "an ankle boot"."""
    word = name.lower().replace("/", " or ")
    if word.endswith("s"):
        return word
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _without_template(text: str) -> str:
    for template in TEMPLATES:
        before, after = template.split("{}")
        if text.startswith(before) and text.endswith(after):
            return text.removeprefix(before).removesuffix(after)
    return text


class PairBatches:
    """Pairs of a step, from the run's seed and the step alone, so a killed run goes on alike.

    Args:
        pairs: to draw from.
        tokeniser: of their captions.
        run: whose seed and device are used.
        batch_size: pairs of a step.
        partners: see `Pairs.draw`.
        num_negatives: captions of the same words beside each, drawn from those that do not fit.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokeniser: CaptionTokeniser,
        run: Run,
        batch_size: int,
        partners: int = 0,
        num_negatives: int = 0,
    ):
        self.pairs, self.tokeniser, self.run = pairs, tokeniser, run
        self.batch_size, self.partners, self.num_negatives = batch_size, partners, num_negatives

    def __call__(self, step: int) -> CLIPBatch:
        """Pairs on the run's device."""
        import torch

        from generative.clip import CLIPBatch

        generator = torch.Generator().manual_seed(self.run.seed_for("batch", step))
        x, texts, fits = self.pairs.draw(self.batch_size, generator, self.partners)
        negatives = None
        if self.num_negatives:
            negatives = self._negatives(texts, generator)
        if negatives is not None:
            negatives = negatives.to(self.run.device)
        tokens, device = self.tokeniser.encode(texts), self.run.device
        return CLIPBatch(x.to(device), tokens.to(device), fits.to(device), negatives)

    def _negatives(self, texts: Sequence[str], generator: Generator) -> Tensor:
        """int64 (B, K, L), padding where there is none."""
        import torch

        rows = torch.zeros(len(texts), self.num_negatives, self.tokeniser.length, dtype=torch.int64)
        order = torch.rand(len(texts), 3, generator=generator).argsort(1).tolist()
        for row, text, chosen in zip(rows, texts, order, strict=True):
            known = _chosen(self.pairs.negatives(text), chosen[: self.num_negatives])
            row[: len(known)] = self.tokeniser.encode(known)
        return rows


def _chosen(texts: Sequence[str], order: Sequence[int]) -> list[str]:
    """Texts at the places of an order that they have."""
    return [texts[i] for i in order if i < len(texts)]
