"""CelebA: 202,599 faces of 178x218 pixels with 40 attributes (Liu et al. 2015).

Its authors allow non-commercial research only and give the files out by hand:

    FOLDER/img_align_celeba/000001.jpg ...   or img_align_celeba.zip
    FOLDER/list_attr_celeba.txt              or .csv, as Kaggle has it
    FOLDER/list_eval_partition.txt           or .csv

    faces = load_celeba(folder, side=64)
    smiling = faces.factors[:, faces.factor_names.index("Smiling")]      # 0 or 1
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from generative.data.download import Source
from generative.data.folders import is_companion
from generative.data.image_set import PARTS, ImageSet, evenly
from generative.data.images import MAX_FILE_BYTES, read_each
from generative.training.archives import open_zip, read_member
from generative.training.files import DamagedFileError, open_file, read_file, reading

__all__ = ["SOURCES", "load_celeba"]

IMAGES = "img_align_celeba"
PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
SOURCES = tuple(
    Source(name, "", md5)
    for name, md5 in {
        f"{IMAGES}.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
        "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
        "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
    }.items()
)
"""By hand from PAGE; scripts/download_data.py compares the checksums."""
MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_LIST_BYTES = 64 * 2**20


def load_celeba(
    folder: Path | str,
    side: int = 64,
    colour: bool = True,
    max_images: int | None = None,
    stretch: bool = False,
) -> ImageSet:
    """Load the aligned faces with their attributes as factors 0 and 1.

    Images are read one at a time and kept at the wanted size only: all of them take 2.5 GB at 64
    pixels. Parts lie together, so that `part` takes no more.

    Args:
        folder: see the module; without the list of attributes there is one factor, always 0;
            without the partition the last tenth is for testing, the one before for validation.
        side: in pixels.
        colour: three channels; otherwise one, grey.
        max_images: largest number of images to read, evenly spaced.
        stretch: resize 178x218 to a square, as the book does; otherwise crop the middle square.
    Raises:
        FileNotFoundError: the images are missing, or one that a list names.
        DamagedFileError: a list or an image is not what it should be.
    """
    folder = Path(folder)
    found = _find(folder)
    names = sorted(found)
    attributes = _read_list(folder, "list_attr_celeba")
    partition = _read_list(folder, "list_eval_partition")
    for path, _, rows in filter(None, (attributes, partition)):
        unknown = next((name for name in rows if name not in found), None)
        if unknown is not None:
            raise FileNotFoundError(f"{path} names {unknown}, which is not among the images")
        names = [name for name in names if name in rows]
    names = [names[i] for i in evenly(len(names), max_images)]

    factor_names, factors = ("class",), np.zeros((len(names), 1), dtype=np.int64)
    if attributes is not None:
        path, factor_names, rows = attributes
        signs = np.array([rows[name] for name in names])
        if not np.isin(signs, (-1, 1)).all():
            raise DamagedFileError(f"{path}: attributes are -1 or 1, here {np.unique(signs)[:5]}")
        factors = (signs > 0).astype(np.int64)
    split = np.zeros(len(names), dtype=np.uint8)
    if partition is not None:
        path, _, rows = partition
        parts = np.array([rows[name][0] for name in names])
        if parts.min() < 0 or parts.max() >= len(PARTS):
            raise DamagedFileError(f"{path}: parts are 0, 1, 2, here {np.unique(parts)[:5]}")
        split = parts.astype(np.uint8)
    elif len(names) > 2:
        tenth = max(1, len(names) // 10)
        split[-2 * tenth :], split[-tenth:] = PARTS.index("val"), PARTS.index("test")
    pixels = read_each(_read(found, names), len(names), side, colour, stretch)
    return ImageSet(pixels, factors, split, factor_names=factor_names)


def _find(folder: Path) -> Mapping[str, Path | tuple[Path, str]]:
    """Every image by its name: a file, or a zip and the member in it."""
    # Kaggle's archive unpacks to a folder within a folder of the same name.
    for place in (folder / IMAGES / IMAGES, folder / IMAGES, folder):
        files = {path.name: path for path in place.glob("*.jpg") if not is_companion(path.name)}
        if files:
            return files
    archive = folder / f"{IMAGES}.zip"
    if not archive.is_file():
        raise FileNotFoundError(
            f"{folder / IMAGES} (or {archive.name}) is missing; get it with list_attr_celeba.txt "
            f"and list_eval_partition.txt from {PAGE} and put them into {folder}"
        )
    with (
        open_file(archive, MAX_ARCHIVE_BYTES, links=True) as file,
        open_zip(file, archive, MAX_ARCHIVE_BYTES) as images,
    ):
        members = {
            name.rpartition("/")[2]: (archive, name)
            for name in images.namelist()
            if name.endswith(".jpg") and not any(map(is_companion, name.split("/")))
        }
    if not members:
        raise DamagedFileError(f"{archive}: holds no .jpg")
    return members


def _read(
    found: Mapping[str, Path | tuple[Path, str]], names: list[str]
) -> Iterator[tuple[str, bytes]]:
    with contextlib.ExitStack() as stack:
        archive = None
        for name in names:
            place = found[name]
            if isinstance(place, Path):
                yield str(place), read_file(place, MAX_FILE_BYTES, links=True)
                continue
            path, member = place
            if archive is None:
                file = stack.enter_context(open_file(path, MAX_ARCHIVE_BYTES, links=True))
                archive = stack.enter_context(open_zip(file, path, MAX_ARCHIVE_BYTES))
            yield f"{path}/{member}", read_member(archive, member, path)


def _read_list(
    folder: Path, stem: str
) -> tuple[Path, tuple[str, ...], dict[str, list[int]]] | None:
    """(file, names of columns, numbers by image) of a list, or None if it is not there."""
    path = next((p for p in (folder / f"{stem}.txt", folder / f"{stem}.csv") if p.is_file()), None)
    if path is None:
        return None
    split = "," if path.suffix == ".csv" else None
    with reading(path, "is not a text in UTF-8"):
        text = read_file(path, MAX_LIST_BYTES, links=True).decode()
    lines = [line.split(split) for line in text.splitlines() if line.strip()]
    header: list[str] = []
    # The attributes begin with their number and names, a csv with names; the partition with rows.
    while lines and not lines[0][0].endswith(".jpg"):
        header = lines.pop(0)
    columns = len(lines[0]) - 1 if lines else 0
    rows = {}
    for line in lines:
        try:
            rows[line[0]] = [int(word) for word in line[1:]]
        except ValueError as error:
            raise DamagedFileError(f"{path}: line of {line[0]} ({error})") from error
        if len(rows[line[0]]) != columns:
            raise DamagedFileError(
                f"{path}: {line[0]} has {len(line) - 1} numbers, others have {columns}"
            )
    header = header[len(header) - columns :]  # a csv names the column of images too
    if not rows or (header and len(header) != columns):
        raise DamagedFileError(f"{path}: has {len(rows)} images and names {header[:3]} of columns")
    return path, tuple(header), rows
