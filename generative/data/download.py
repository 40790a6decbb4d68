"""Downloads of public data sets, whole and with the right checksum or not at all.

    download([Source("train-images-idx3-ubyte.gz", "https://...", "f68b...")], folder)

Nothing is fetched unless a loader is called with `download=True`, or scripts/download_data.py is
run.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

from generative.training.files import DamagedFileError, sync_folder
from generative.training.progress import progress

__all__ = ["Source", "check_md5", "download", "missing"]

BLOCK = 2**20
"""Bytes read at a time."""
TIMEOUT = 60.0
"""Seconds without a byte before a download is given up."""


class Source(NamedTuple):
    """A file of a data set."""

    name: str
    """What it is called in the folder."""
    url: str
    """Where it is published; empty where it has to be fetched by hand."""
    md5: str
    """As published with it."""


def download(sources: Iterable[Source], folder: Path | str) -> None:
    """Bring files into folder; those that are there and whole are left as they are.

    Each is written beside its place, checked, and renamed, so that a file of that name is always a
    whole one.

    Raises:
        ConnectionError: the server cannot be reached or breaks off; says what to do by hand.
        DamagedFileError: a checksum is wrong, of what came or of a file that was there before;
            names the file and both checksums.
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
    with open(path, "rb") as file:
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
    request = urllib.request.Request(source.url, headers={"User-Agent": "Python"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(beside, "wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            with progress(length or None, f"downloading {path.name}") as bar:
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.advance(len(block))
            file.flush()
            os.fsync(file.fileno())
        try:
            check_md5(beside, source.md5)
        except DamagedFileError as error:
            raise DamagedFileError(f"{source.url}: {str(error).partition(': ')[2]}") from None
        os.replace(beside, path)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"{source.url} cannot be had ({getattr(error, 'reason', error)}); get it on a machine "
            f"with a network and put it into {path.parent}"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)
