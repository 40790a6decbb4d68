"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels in ten classes (Krizhevsky 2009).

The binary version is read. The Python version holds pickles, which can run code when loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from generative.data.download import Source, missing
from generative.data.download import download as fetch
from generative.data.image_set import PARTS, ImageSet
from generative.training.archives import open_tar_gz
from generative.training.files import DamagedFileError, open_file, read_file, reading

__all__ = ["CLASSES", "SOURCES", "load_cifar10"]

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
SOURCES = (
    Source(
        ARCHIVE,
        f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
ROW = 1 + 3 * 32 * 32
"""Bytes of an image: its class, then all of red, all of green, all of blue."""
MAX_FILE_BYTES = 10_000 * ROW
MAX_BYTES = 256 * 2**20


def load_cifar10(folder: Path | str, download: bool = False) -> ImageSet:
    """Load the images with their classes. There is no validation part; the book validates on tests.

    Args:
        folder: holds cifar-10-binary.tar.gz, or what it unpacks to.
        download: get the archive if it is missing.
    Raises:
        FileNotFoundError: the folder holds neither; says where to get the archive.
        DamagedFileError: a file is not what it should be.
    """
    folder = Path(folder)
    if download:
        fetch(SOURCES, folder)
    batches = [_read_batch(data, path) for path, data in _read_files(folder)]
    rows = np.concatenate(batches)
    split = np.full(len(rows), PARTS.index("train"), dtype=np.uint8)
    split[len(rows) - len(batches[-1]) :] = PARTS.index("test")
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ImageSet(np.ascontiguousarray(images), rows[:, :1].astype(np.int64), split)


def _read_files(folder: Path) -> list[tuple[Path, bytes]]:
    for unpacked in (folder / FOLDER, folder):
        if (unpacked / FILES[0]).is_file():
            paths = [unpacked / name for name in FILES]
            for path in paths:
                if not path.is_file():
                    raise missing("cifar-10", str(path), SOURCES, folder)
            return [(path, read_file(path, MAX_FILE_BYTES, links=True)) for path in paths]
    archive = folder / ARCHIVE
    if not archive.is_file():
        error = missing("cifar-10", str(archive), SOURCES, folder)
        if (folder / "cifar-10-python.tar.gz").exists() or (
            folder / "cifar-10-batches-py"
        ).exists():
            error.add_note("What is there is the Python version; its pickles are not read here.")
        raise error
    found = {}
    # Members are read by their exact names and nothing is unpacked to the disk.
    with (
        open_file(archive, MAX_BYTES, links=True) as file,
        reading(archive, "is not a whole tar.gz"),
        open_tar_gz(file, archive, MAX_BYTES, MAX_FILE_BYTES) as tar,
    ):
        for member in tar:
            name = member.name.removeprefix(f"{FOLDER}/")
            if member.isfile() and name in FILES:
                data = tar.extractfile(member)
                assert data is not None
                found[name] = data.read(MAX_FILE_BYTES + 1)
    absent = sorted(set(FILES) - set(found))
    if absent:
        raise DamagedFileError(f"{archive}: holds no {', '.join(absent)}")
    return [(archive / FOLDER / name, found[name]) for name in FILES]


def _read_batch(data: bytes, path: Path) -> np.ndarray:
    """uint8 (N, ROW)."""
    if not data or len(data) % ROW:
        raise DamagedFileError(f"{path}: has {len(data)} bytes, no multiple of {ROW} for an image")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, ROW)
    if rows[:, 0].max() >= len(CLASSES):
        raise DamagedFileError(f"{path}: names a class {rows[:, 0].max()}; there are 0 to 9")
    return rows
