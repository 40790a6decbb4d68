"""Downloads of public data sets, whole and with the right checksum or not at all.

    download([Source("train-images-idx3-ubyte.gz", "https://...", "f68b...")], folder)

Nothing is fetched unless a loader is called with `download=True`, or scripts/download_data.py is
run.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

from generative.training.files import DamagedFileError, cut, open_file, sync_folder
from generative.training.progress import progress

__all__ = ["Source", "check_md5", "download", "missing"]

BLOCK = 2**20
"""Bytes read at a time."""
TIMEOUT = 60.0
"""Seconds without a byte before a download is given up."""
MAX_BYTES = 4 * 2**30
"""Largest file, in bytes; the largest of the data sets, CelebA's images, has 1.4 GB."""


class Source(NamedTuple):
    """A file of a data set."""

    name: str
    """File name in the folder."""
    url: str
    """Address of the file; empty if it has to be fetched by hand."""
    md5: str
    """Checksum published with the file."""


def download(sources: Iterable[Source], folder: Path | str) -> None:
    """Download files into a folder; files that are there and whole are left as they are.

    Each is written beside its place, checked, and renamed, so that a file of that name is always
    whole.

    Raises:
        ConnectionError: the server cannot be reached or breaks off; says what to do by hand.
        DamagedFileError: the checksum of a download or of an existing file is wrong; names the
            file and both checksums.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = folder / source.name
        if path.exists():
            check_md5(path, source.md5)
        else:
            _fetch(source, path)


def check_md5(path: Path, md5: str) -> None:
    """Raise DamagedFileError, with both checksums, unless the file has this one."""
    digest = hashlib.md5(usedforsecurity=False)
    with open_file(path, MAX_BYTES, links=True) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != md5:
        raise DamagedFileError(
            f"{path}: its MD5 is {digest.hexdigest()}, the published one {md5}; delete it and get "
            "it again"
        )


def missing(name: str, what: str, sources: Iterable[Source], folder: Path) -> FileNotFoundError:
    """The error for files that are not there: where to get them, where to put them."""
    urls = " ".join(dict.fromkeys(source.url for source in sources))
    return FileNotFoundError(
        f"{what} is missing; get it from {urls}, or run scripts/download_data.py {name} "
        f"--folder {folder}"
    )


def _fetch(source: Source, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            for block in _blocks(source, path):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        try:
            check_md5(beside, source.md5)
        except DamagedFileError as error:
            raise DamagedFileError(f"{source.url}: {str(error).partition(': ')[2]}") from None
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _blocks(source: Source, path: Path) -> Iterator[bytes]:
    """Blocks of bytes that the server sends, whatever its headers say."""
    request = urllib.request.Request(source.url, headers={"User-Agent": "Python"})
    # ValueError: numbers and addresses in headers that are none.
    trouble = (
        URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException, ValueError
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            length, received = answer.headers.get("Content-Length") or "", 0
            known = length.isascii() and length.isdigit() and len(length) < 15
            with progress(
                int(length) or None if known else None, f"downloading {path.name}"
            ) as bar:
                while block := answer.read(BLOCK):
                    received += len(block)
                    if received > MAX_BYTES:
                        raise ValueError(f"it sends more than {MAX_BYTES} bytes")
                    yield block
                    bar.advance(len(block))
    except trouble as error:
        reason = cut(str(getattr(error, "reason", error)), 200)
        raise ConnectionError(
            f"{source.url} cannot be had ({reason}); get it on a machine with a network and put it "
            f"into {path.parent}"
        ) from error
