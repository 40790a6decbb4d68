"""Images with captions, from any source, in one form: a folder of one's own, classes with names.

    data = load_captioned_folder(folder, side=64)             # a.png, and its caption in a.txt
    images, texts = data.part("train").batch(64, generator)   # float32 (64, 3, 64, 64), 64 captions

What is drawn follows from the generator alone, so a run that seeds one for every step goes on after
a stop as if there had been none. `generative.known.captioned_scenes` offers the same `batch`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from generative.data.folders import find_files
from generative.data.image_set import ImageSet, evenly, random_split
from generative.data.images import SUFFIXES, find_images, read_images
from generative.training.files import DamagedFileError, decode_text, read_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["LIST", "Captioned", "CaptionedImages", "caption_classes", "load_captioned_folder"]

LIST = "captions.jsonl"
"""File in a folder of images with a line of JSON for each: {"file": "a.png", "caption": "..."}."""
MAX_BYTES = 2**28
"""Largest list of captions, in bytes."""
NAMED = 3
"""Files that an error names before it counts the rest."""


class Captioned(Protocol):
    """Source of pairs of an image and a caption."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    def batch(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, list[str]]:
        """Draw n images, float32 (n, C, H, W) in [0, 1], and a caption of each."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class CaptionedImages:
    """Images in memory, each with one caption or several.

    Args:
        images: with their split.
        captions: of each image, at least one.
        files: of each image, in their folder; none if they are of no folder.
    Raises:
        ValueError: an image has no caption, or there are captions or files of more images.
    """

    images: ImageSet
    captions: tuple[tuple[str, ...], ...]
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.captions) != len(self.images):
            raise ValueError(
                f"got {len(self.images)} images and captions of {len(self.captions)}; each image "
                "needs a tuple of captions"
            )
        if self.files and len(self.files) != len(self.images):
            raise ValueError(
                f"got {len(self.images)} images and {len(self.files)} files; give one of each image"
            )
        bare = [row for row, texts in enumerate(self.captions) if not texts]
        if bare:
            raise ValueError(f"image {bare[0]} has no caption, and so have {len(bare) - 1} others")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        number = sum(map(len, self.captions))
        return f"CaptionedImages({number} captions of {self.images!r})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as models take it."""
        return self.images.image_shape

    def __getitem__(self, rows: np.ndarray) -> CaptionedImages:
        """The images of these rows only."""
        files = tuple(self.files[row] for row in rows) if self.files else ()
        return CaptionedImages(self.images[rows], tuple(self.captions[row] for row in rows), files)

    def part(self, *names: str) -> CaptionedImages:
        """The images of one part of the split, or of several: part("train", "val").

        Raises:
            ValueError: no such part, or nothing in it.
        """
        rows = np.arange(len(self))
        kept = ImageSet(self.images.images, rows[:, None], self.images.split, self.images.levels)
        return self[kept.part(*names).factors[:, 0]]

    def batch(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, list[str]]:
        """Draw n images evenly, float32 (n, C, H, W) in [0, 1], and one caption of each, evenly.

        Raises:
            ValueError: n is below 1.
        """
        import torch

        if n < 1:
            raise ValueError(f"{n} images are asked for; ask for at least 1")
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64).numpy()
        rows = np.minimum((u[:, 0] * len(self)).astype(np.int64), len(self) - 1)
        texts = [
            self.captions[row][min(int(v * len(self.captions[row])), len(self.captions[row]) - 1)]
            for row, v in zip(rows.tolist(), u[:, 1].tolist(), strict=True)
        ]
        return self.images.as_tensor(rows), texts


def caption_classes(
    images: ImageSet, names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> CaptionedImages:
    """Caption images by the names of their classes.

    Args:
        images: whose first factor is the class.
        names: of each class, with their article: "a dress".
        templates: sentences with {} in place of the name, such as "a photo of {}"; every image has
            one caption for each.
    Raises:
        ValueError: a class has no name, or a template no {}.
    """
    classes = images.factors[:, 0]
    if len(classes) and int(classes.max()) >= len(names):
        raise ValueError(
            f"images are of classes up to {int(classes.max())}, and {len(names)} names are given; "
            "give one for each class"
        )
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"templates are {list(templates)}; each needs {{}} once, where the name goes, as in "
            "'a photo of {}'"
        )
    of_class = [tuple(template.replace("{}", name) for template in templates) for name in names]
    return CaptionedImages(images, tuple(of_class[label] for label in classes))


def load_captioned_folder(
    folder: Path | str,
    side: int = 64,
    colour: bool = True,
    seed: int = 0,
    max_images: int | None = None,
) -> CaptionedImages:
    """Load a folder of images with captions, cropped to the middle square, side x side pixels.

    Captions stand in captions.jsonl, one line for each image ("file" is its path in the folder,
    "caption" a text or a list of texts), or beside each image in a text file of the same name, one
    caption a line. A tenth each is kept for validation and test.

    Args:
        folder: images may lie in folders below it.
        side: in pixels.
        colour: three channels; otherwise one, grey.
        seed: seed of the split.
        max_images: largest number of images to read, evenly spaced; None reads all.
    Raises:
        FileNotFoundError: there are fewer than three images, an image has no caption, or a listed
            image is missing; says what to do.
        DamagedFileError: an image or a list cannot be read; it is named.
    """
    folder = Path(folder)
    listed = folder / LIST
    if listed.is_file():
        known = _read_list(listed)
        files = [folder / name for name in known]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{listed} names {_some(missing, folder)}, and there is no such file; put it "
                "there, or take out the line"
            )
        if len(files) < 3:
            raise FileNotFoundError(f"{listed} lists {len(files)} images; at least 3 are needed")
        captions = list(known.values())
    else:
        files = _images(folder)
        captions = [_read_beside(path) for path in files]
        bare = [path for path, texts in zip(files, captions, strict=True) if not texts]
        if bare:
            raise FileNotFoundError(
                f"{len(bare)} of {len(files)} images in {folder} have no caption: "
                f"{_some(bare, folder)}; write one into {bare[0].with_suffix('.txt').name} beside "
                f"the image, or list all in {LIST}, a line such as "
                f'{{"file": "{bare[0].relative_to(folder).as_posix()}", "caption": "..."}}'
            )
    rows = evenly(len(files), max_images)
    kept = max(1, len(rows) // 10)
    pixels = read_images([files[i] for i in rows], side, colour)
    labels = np.zeros((len(rows), 1), dtype=np.int64)
    images = ImageSet(pixels, labels, random_split(len(rows), kept, kept, seed))
    names = tuple(files[i].relative_to(folder).as_posix() for i in rows)
    return CaptionedImages(images, tuple(captions[i] for i in rows), names)


def _images(folder: Path) -> list[Path]:
    # Without the text files, whose captions would be counted as files of another format.
    files = find_files(folder, {*SUFFIXES, ".txt"})
    files = [path for path in files if path.suffix.lower() in SUFFIXES]
    besides = f", each with its captions in a .txt of the same name beside it, or all in {LIST}"
    return files if len(files) >= 3 else find_images(folder, besides)


def _read_beside(image: Path) -> tuple[str, ...]:
    """Captions in the text file of the same name, none if there is no such file."""
    path = image.with_suffix(".txt")
    if not path.is_file():
        return ()
    text = decode_text(read_file(path, MAX_BYTES, links=True), path)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _read_list(path: Path) -> dict[str, tuple[str, ...]]:
    """File names of a list and the captions of each, in its order; several lines of one add up."""
    found: dict[str, tuple[str, ...]] = {}
    text = decode_text(read_file(path, MAX_BYTES, links=True), path)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            name, captions = _read_line(line, f"{path}, line {number}")
            found[name] = (*found.get(name, ()), *captions)
    if not found:
        raise DamagedFileError(f"{path}: lists no image")
    return found


def _read_line(line: str, place: str) -> tuple[str, tuple[str, ...]]:
    example = '{"file": "a.png", "caption": "a red disc"}'
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{place}: is no JSON ({error}); write {example}") from error
    record = record if isinstance(record, dict) else {}
    name, texts = record.get("file"), record.get("caption")
    texts = [texts] if isinstance(texts, str) else texts
    whole = isinstance(name, str) and isinstance(texts, list) and texts
    if not whole or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DamagedFileError(f"{place}: needs a file and a caption or several; write {example}")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DamagedFileError(f"{place}: names {name}; give its path inside the folder")
    return name, tuple(text.strip() for text in texts)


def _some(paths: Sequence[Path], folder: Path) -> str:
    names = [path.relative_to(folder).as_posix() for path in paths[:NAMED]]
    rest = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(names) + rest
