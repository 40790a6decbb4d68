"""Archives: their unpacked size is known and bounded before anything is unpacked."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from generative.training.files import DamagedFileError, cut, reading, short

__all__ = ["open_tar_gz", "open_zip", "read_array", "read_member", "read_npz"]

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def open_zip(file: BinaryIO, path: Path, max_bytes: int) -> zipfile.ZipFile:
    """Open a zip whose members together have at most max_bytes.

    Args:
        file: its bytes.
        path: named in errors.
    Raises:
        DamagedFileError: the file is no zip, uses an uncommon compression, or unpacks to more.
    """
    with reading(path, "is not a whole zip"):
        archive = zipfile.ZipFile(file)
    names = [member.filename.lower() for member in archive.infolist()]
    if len(set(names)) < len(names):  # readers differ in which of two equal names they take
        raise DamagedFileError(f"{path}: has several members of one name")
    total = sum(member.file_size for member in archive.infolist())
    kinds = {member.compress_type for member in archive.infolist()}
    if total > max_bytes or not kinds <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DamagedFileError(
            f"{path}: unpacks to {total} bytes by methods {sorted(kinds)}; at most {max_bytes} are "
            "expected, stored or deflated"
        )
    return archive


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Read a member of a zip of `open_zip`, never more bytes than the zip states.

    Raises:
        DamagedFileError: the member is missing or not whole.
    """
    with reading(path, f"{short(name)} in it is not whole"), archive.open(name) as member:
        size = archive.getinfo(name).file_size
        data = member.read(size)
        if len(data) != size:
            raise EOFError(f"{len(data)} of {size} bytes")
        return data


def read_npz(
    file: BinaryIO, path: Path, names: Collection[str], max_bytes: int
) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file by name, read-only.

    Args:
        file: its bytes.
        path: named in errors.
        names: arrays to read.
        max_bytes: largest size of all arrays together.
    Raises:
        DamagedFileError: see `open_zip`, `read_array`; or one of the names is missing.
    """
    with open_zip(file, path, max_bytes) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        missing = [name for name in names if name not in there]
        if missing:
            raise DamagedFileError(
                f"{path}: has no array {', '.join(missing)}, only {cut(', '.join(there), 200)}; "
                f"needed are {', '.join(names)}"
            )
        return {n: read_array(read_member(archive, f"{n}.npy", path), path, n) for n in names}


def read_array(data: bytes, path: Path, name: str) -> np.ndarray:
    """Read the array of an .npy file, read-only; its header must give the number of bytes.

    Raises:
        DamagedFileError: it is no such file, or holds something other than numbers.
    """
    with reading(path, f"{name} is not a whole array of numbers"):
        stream = io.BytesIO(data)
        shape, by_column, dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
        start = stream.tell()
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(data) - start:
            raise ValueError(f"{dtype} {short(shape)} in {len(data) - start} bytes")
        order = "F" if by_column else "C"
        return np.ndarray(shape, dtype, data, start, order=order)


def open_tar_gz(file: BinaryIO, path: Path, max_bytes: int, max_member: int) -> tarfile.TarFile:
    """Open a .tar.gz that unpacks to at most max_bytes, with members of at most max_member each.

    Args:
        file: its bytes.
        path: named in errors.
    Raises:
        DamagedFileError: it is no such archive; later, while it is read, that it is larger.
    """
    with reading(path, "is not a whole tar.gz"):
        unpacked = _Bounded(gzip.GzipFile(fileobj=file), path, max_bytes, max_member)
        return tarfile.open(fileobj=unpacked, mode="r:")  # type: ignore[arg-type]


class _Bounded:
    """A stream with a limit on all bytes read from it and on the bytes of one read.

    tarfile reads names and headers of any length at once.
    """

    def __init__(self, file: gzip.GzipFile, path: Path, max_bytes: int, max_member: int):
        self._file, self._path = file, path
        self._max_bytes, self._max_member = max_bytes, max_member
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._check(size, self._max_member)
        self._check(self.tell() + size, self._max_bytes)
        return self._file.read(size)

    def seek(self, place: int) -> int:
        self._check(place, self._max_bytes)
        return self._file.seek(place)

    def _check(self, needed: int, most: int) -> None:
        if not 0 <= needed <= most:
            raise DamagedFileError(f"{self._path}: unpacks to {needed} bytes, at most {most} fit")
