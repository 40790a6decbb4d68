"""Oxford Flowers: 8,189 photographs of 102 kinds of flower (Nilsback & Zisserman 2008)."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from generative.data.download import Source, missing
from generative.data.download import download as fetch
from generative.data.folders import is_companion
from generative.data.image_set import ImageSet, evenly, random_split
from generative.data.images import (
    MAX_FILE_BYTES,
    find_images,
    natural_order,
    read_each,
    read_images,
)
from generative.training.archives import open_tar_gz
from generative.training.files import DamagedFileError, open_file, read_file, reading

__all__ = ["NUM_CLASSES", "SOURCES", "load_flowers", "read_mat_row"]

NUM_CLASSES = 102
MAX_BYTES, MAX_LABEL_BYTES = 2**30, 2**20
ARCHIVE, LABELS = "102flowers.tgz", "imagelabels.mat"
URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
SOURCES = (
    Source(ARCHIVE, URL + ARCHIVE, "52808999861908f626f3c1f4e79d11fa"),
    Source(LABELS, URL + LABELS, "e0620be6f572b9609742df49c70aed4d"),
)


def load_flowers(
    folder: Path | str,
    side: int = 64,
    colour: bool = True,
    max_images: int | None = None,
    stretch: bool = False,
    seed: int = 0,
    download: bool = False,
) -> ImageSet:
    """Load the photographs with their kind, 0 to 101.

    A tenth each is kept for validation and test. The set's own split trains on 1,020 images, too
    few to train a generative model.

    Args:
        folder: holds 102flowers.tgz, or the folder jpg that it unpacks to, and imagelabels.mat; or
            the same images in folders named by their kind, 1 to 102, as the book has them from
            Kaggle. Without labels every class is 0.
        side: in pixels.
        colour: three channels; otherwise one, grey.
        max_images: largest number of images to read, evenly spaced.
        stretch: resize other shapes to a square, as the book does; otherwise crop the middle.
        seed: seed of the split.
        download: get the archive and the labels if they are missing.
    Raises:
        FileNotFoundError: there are no images; says where to get them.
        DamagedFileError: a file is not what it should be; it is named.
    """
    folder = Path(folder)
    if download:
        fetch(SOURCES, folder)
    archive = folder / ARCHIVE
    if (folder / "jpg").is_dir() or not archive.is_file():
        if not any(folder.rglob("*.jpg")):
            raise missing("flowers", str(archive), SOURCES, folder)
        files = sorted(find_images(folder), key=lambda path: natural_order(path.name))
        labels = _labels(folder, len(files), [path.parent.name for path in files])
        rows = evenly(len(files), max_images)
        pixels = read_images([files[i] for i in rows], side, colour, stretch)
    else:
        names = _members(archive)
        labels = _labels(folder, len(names), [""] * len(names))
        rows = evenly(len(names), max_images)
        wanted = {names[i]: k for k, i in enumerate(rows)}
        order = []
        pixels = read_each(_stream(archive, wanted, order), len(rows), side, colour, stretch)
        pixels[order] = pixels.copy()
    kept = max(1, len(rows) // 10)
    return ImageSet(pixels, labels[rows], random_split(len(rows), kept, kept, seed))


def _members(archive: Path) -> list[str]:
    """Names of the images in the archive, in the order of the labels."""
    with (
        open_file(archive, MAX_BYTES, links=True) as file,
        reading(archive, "is not a whole tar.gz"),
        open_tar_gz(file, archive, MAX_BYTES, MAX_FILE_BYTES) as tar,
    ):
        names = [
            member.name
            for member in tar
            if member.name.endswith(".jpg") and not any(map(is_companion, member.name.split("/")))
        ]
    if len(names) < 3:
        raise DamagedFileError(f"{archive}: holds {len(names)} .jpg")
    return sorted(names, key=natural_order)


def _stream(archive: Path, wanted: dict[str, int], order: list[int]) -> Iterator[tuple[str, bytes]]:
    """The wanted images in the order of the archive; `order` has the place of each."""
    with (
        open_file(archive, MAX_BYTES, links=True) as packed,
        open_tar_gz(packed, archive, MAX_BYTES, MAX_FILE_BYTES) as tar,
    ):
        for member in tar:
            if member.name in wanted:
                file = tar.extractfile(member)
                if file is None or member.size > MAX_FILE_BYTES:
                    raise DamagedFileError(f"{archive}/{member.name}: is not an ordinary file")
                order.append(wanted[member.name])
                yield f"{archive}/{member.name}", file.read()


def _labels(folder: Path, n: int, folders: list[str]) -> np.ndarray:
    """int64 (n, 1), from imagelabels.mat or, without it, from the folders' names."""
    path = folder / LABELS
    if path.is_file():
        kinds = read_mat_row(path)
        if len(kinds) != n or kinds.min() < 1 or kinds.max() > NUM_CLASSES:
            raise DamagedFileError(
                f"{path}: has {len(kinds)} labels from {kinds.min()} to {kinds.max()}, for {n} "
                f"images of {NUM_CLASSES} kinds"
            )
        return kinds[:, None] - 1
    if all(re.fullmatch(r"\d{1,3}", name) and 1 <= int(name) <= NUM_CLASSES for name in folders):
        return np.array([[int(name) - 1] for name in folders], dtype=np.int64)
    return np.zeros((n, 1), dtype=np.int64)


def read_mat_row(path: Path) -> np.ndarray:
    """The first matrix of a MATLAB file (version 5) that holds whole numbers, int64 (N,).

    Raises:
        DamagedFileError: the file is not of this kind.
    """
    data = read_file(path, MAX_LABEL_BYTES, links=True)
    with reading(path, "cannot be read"):
        # 128 bytes of text and version, then elements: a type, a length, and the content.
        if data[126:128] != b"IM":
            raise ValueError("no MATLAB 5 file of a little-endian machine")
        kind, content, _ = _element(data, 128)
        if kind == 15:  # compressed
            content = zlib.decompressobj().decompress(content, MAX_LABEL_BYTES)
            kind, content, _ = _element(content, 0)
        if kind != 14:
            raise ValueError(f"element of type {kind}, not a matrix")
        # A matrix is four elements: its flags, dimensions, name, and numbers.
        start = 0
        for _ in range(3):
            _, _, start = _element(content, start)
        kind, numbers, _ = _element(content, start)
        dtype = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 9: "<f8"}[kind]
        return np.frombuffer(numbers, dtype=dtype).astype(np.int64)


def _element(data: bytes, start: int) -> tuple[int, bytes, int]:
    """(type, content, where the next begins) of the element at start."""
    kind, length = struct.unpack_from("<II", data, start)
    if kind >> 16:  # short: length and type share four bytes, the content has the other four
        return kind & 0xFFFF, data[start + 4 : start + 4 + (kind >> 16)], start + 8
    content = data[start + 8 : start + 8 + length]
    if len(content) != length:
        raise ValueError(f"ends after {len(content)} of {length} bytes")
    return kind, content, start + 8 + length + -length % 8
