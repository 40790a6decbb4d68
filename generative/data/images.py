"""Any folder of images, by Pillow. Folders in it, if there are any, are the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from generative.data.image_set import ImageSet, random_split
from generative.training.files import DamagedFileError
from generative.training.progress import progress

__all__ = ["load_images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}


def load_images(folder: Path | str, side: int = 64, colour: bool = True, seed: int = 0) -> ImageSet:
    """All images below a folder, cut to their middle square and brought to side x side pixels.

    A tenth each is kept for validation and test (at least one image each).

    Args:
        folder: images in it belong to class 0; if it holds folders only, each of them is a class,
            in alphabetical order.
        side: in pixels.
        colour: three channels; else one, grey.
        seed: of the split.
    Raises:
        FileNotFoundError: there are fewer than three images.
        DamagedFileError: one of them cannot be read; it is named.
    """
    from PIL import Image, UnidentifiedImageError

    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 3:
        raise FileNotFoundError(
            f"{folder} holds {len(files)} images; at least 3 are needed, as "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    names = sorted({p.relative_to(folder).parts[0] for p in files if p.parent != folder})
    pixels = np.empty((len(files), side, side, 3 if colour else 1), dtype=np.uint8)
    labels = np.zeros((len(files), 1), dtype=np.int64)
    for i, path in enumerate(progress(files, "reading images")):
        try:
            with Image.open(path) as image:
                image = image.convert("RGB" if colour else "L")
        except (UnidentifiedImageError, OSError) as error:
            raise DamagedFileError(f"{path}: cannot be read as an image ({error})") from error
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.crop((left, top, left + edge, top + edge))
        square = square.resize((side, side), Image.Resampling.LANCZOS)
        pixels[i] = np.asarray(square).reshape(side, side, -1)
        if path.parent != folder:
            labels[i] = names.index(path.relative_to(folder).parts[0])
    kept = max(1, len(files) // 10)
    return ImageSet(pixels, labels, random_split(len(files), kept, kept, seed))
