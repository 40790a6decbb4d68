"""Files: written so that a crash leaves the old or the new one, and read only if whole."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import reprlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from generative.training.platforms import open_ordinary

MANIFEST_NAME = "manifest.json"
MAX_CONFIG_BYTES = 2**20
"""Largest JSON file of settings, in bytes. Parsed, JSON takes up to fifty times its bytes."""
MAX_MODEL_CONFIG_BYTES = 8 * 2**20
"""Largest JSON file of a model's settings, in bytes: a model of texts has its words there."""
MAX_LIST_BYTES = 64 * 2**20
"""Largest JSON file of data, in bytes: vocabularies, pieces of music, foreign weights, and lists
that grow with a run (scores of episodes, calls that were tried, results of many runs)."""
MAX_STATE_BYTES = 16 * 2**30
"""Largest file of weights, of a learner's state or of encoded frames, in bytes."""


class DamagedFileError(ValueError):
    """A file is not as it was written: cut, changed, missing, or not ours."""


def write_file(path: Path, data: bytes) -> None:
    """Write data to a file beside path and rename it; it is on the disk when this returns.

    Raises:
        OSError: the disk is full or the folder not writable; an older file stays unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        check_place(path)
        _write_synced(beside, data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_file` of value as indented JSON; refuses NaN and infinity, which JSON lacks."""
    write_file(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Encode value as indented, strict JSON that ends with a newline."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def append_file(path: Path, data: bytes, sync: bool = False) -> None:
    """Append data to a file, which is made if it is missing: all of it or nothing.

    Args:
        sync: return only when the data are on the disk.
    Raises:
        OSError: the disk is full or the file not writable; names it and the missing bytes.
    """
    check_place(path)
    before = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "ab", opener=regular) as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        if path.exists() and path.stat().st_size > before:
            os.truncate(path, before)
        reason = f"{error.strerror}: {len(data)} bytes could not be added"
        raise OSError(error.errno, reason, str(path)) from error


def check_place(path: Path) -> None:
    """Raise OSError if path cannot be written: its folder is missing, or it is a folder."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no such folder, where {path.name} is to be written"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, where a file is needed; give another name")


def regular(path: str | Path, flags: int, links: bool = False) -> int:
    """Opener for `open` that takes an ordinary file only, no device or pipe, and never blocks.

    Args:
        links: follow links.
    Raises:
        DamagedFileError: path is something else; says what.
        OSError: path cannot be opened.
    """
    try:
        place = os.path.realpath(path) if links else path
        descriptor = open_ordinary(place, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        kind = "a link" if error.errno == errno.ELOOP else "not an ordinary file"
        raise DamagedFileError(f"{path}: is {kind}; put an ordinary file there") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
        raise DamagedFileError(f"{path}: is {kind}; put an ordinary file there")
    return descriptor


@contextlib.contextmanager
def open_file(path: Path, max_bytes: int, links: bool = False) -> Iterator[BufferedReader]:
    """Open an ordinary file of at most max_bytes for reading.

    Args:
        links: follow links, for folders of the user's own data.
    Raises:
        DamagedFileError: names the file and what is wrong with it.
    """
    try:
        opener = functools.partial(regular, links=links)
        file = open(path, "rb", opener=opener)  # noqa: SIM115, closed below
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise DamagedFileError(f"{path}: has {size} bytes, at most {max_bytes} are expected")
        yield file


def read_file(path: Path, max_bytes: int, links: bool = False) -> bytes:
    """Read all bytes of an ordinary file; of one that grows, those at the start. See `open_file`.

    Raises:
        DamagedFileError: names the file and what is wrong with it.
    """
    with open_file(path, max_bytes, links) as file:
        return file.read(min(max_bytes, os.fstat(file.fileno()).st_size))


@contextlib.contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn any error while a file is parsed into a `DamagedFileError` with the file's name.

    Args:
        what: message about the file, such as "is not an image"; the error's own words follow.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except Exception as error:  # damaged bytes can make a parser raise anything
        reason = cut(str(error) or type(error).__name__, 200)
        raise DamagedFileError(
            f"{path}: {what} ({reason})" if what else f"{path}: {reason}"
        ) from error


def short(value: Any, length: int = 60) -> str:
    """`repr` of a value for a message, at most `length` characters, never built in full."""
    return cut(_REPR.repr(value), length)


def cut(text: str, length: int) -> str:
    """Text for a message, cut to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 4]} ..."


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 200, 1000, 200
_REPR.maxtuple = _REPR.maxlist = _REPR.maxdict = _REPR.maxset = 20


def read_json(path: Path, max_bytes: int = MAX_CONFIG_BYTES, links: bool = False) -> Any:
    """Read the content of a JSON file; see `open_file`.

    Raises:
        DamagedFileError: the file cannot be read, is longer than max_bytes or is not JSON.
    """
    return parse_json(read_file(path, max_bytes, links), path)


def parse_json(data: bytes, path: Path) -> Any:
    """Parse JSON from bytes of path, which errors name."""
    with reading(path, "is damaged, not JSON"):
        return json.loads(data)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and a manifest of their sizes and SHA-256 into folder, all of it or nothing.

    They are written to a folder beside it, flushed, and renamed. An existing folder
    is replaced in one step; it may hold only files that this function wrote.

    Raises:
        OSError: disk full or not writable; the earlier content stays whole.
        ValueError: the folder holds files that are not ours to delete.
    """
    refuse_strangers(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    manifest = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        beside.chmod(0o777 & ~_umask())
        for name, data in files.items():
            _write_synced(beside / name, data)
        _write_synced(beside / MANIFEST_NAME, json_bytes({"format": 1, "files": manifest}))
        sync_folder(beside)
        _move_folder(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_folder(folder.parent)


def read_folder(folder: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Read the files that `write_folder` put into folder, checked against its manifest.

    Args:
        folder: folder of the files.
        limits: largest size in bytes by file name; exactly these files must be listed.
    Raises:
        DamagedFileError: names the file that is missing, too long, cut or changed.
    """
    entries = read_manifest(folder, limits)
    return {name: read_listed(folder / name, entries[name], limits[name]) for name in entries}


def read_listed(path: Path, entry: dict[str, Any], max_bytes: int) -> bytes:
    """Read a file that a manifest lists, if its size and hash are those of its entry.

    Raises:
        DamagedFileError: size or hash differ, or the file is longer than max_bytes.
    """
    data = read_file(path, min(max_bytes, entry["bytes"]))
    if len(data) != entry["bytes"]:
        raise DamagedFileError(f"{path}: has {len(data)} bytes, {entry['bytes']} were written")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DamagedFileError(f"{path}: its content has changed since it was written")
    return data


def read_manifest(folder: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Entries {"bytes": size, "sha256": hash} of a folder's manifest by file name.

    Args:
        folder: folder of the manifest.
        names: exactly these must be listed, so that a manifest can lead nowhere else.
    Raises:
        DamagedFileError: there is no manifest, or it lists other files.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise DamagedFileError(f"{folder}: there is no such folder")
    manifest = read_json(path)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format") != 1:
        raise DamagedFileError(f"{path}: is not a manifest of format 1")
    if set(files) != set(names):
        raise DamagedFileError(f"{path}: lists {short(sorted(files))}, expected {sorted(names)}")
    for name, entry in files.items():
        good = isinstance(entry, dict) and type(entry.get("bytes")) is int and entry["bytes"] >= 0
        if not good or not isinstance(entry.get("sha256"), str):
            raise DamagedFileError(f"{path}: the entry of {name} is not a size and a SHA-256")
    return files


def refuse_strangers(folder: Path, names: Mapping[str, Any]) -> None:
    """Raise ValueError if a folder to be replaced holds files that are not ours."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is a link or a file; give the name of a folder")
    present = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    strangers = sorted(present - set(names) - {MANIFEST_NAME})
    if strangers:
        raise ValueError(
            f"{folder} holds other files ({', '.join(strangers[:3])}); give an empty or new folder"
        )


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed writers in folder. Call only if nobody else writes."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged, replacing an older one; returns the path."""
    aside = path.with_name(f"{path.name}.damaged")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    os.rename(path, aside)
    return aside


def sync_folder(folder: Path) -> None:
    """Make renames in folder survive a power cut, if the file system can promise that."""
    if os.name == "nt":  # Windows opens no folders, and keeps a journal of its renames
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move_folder(new: Path, target: Path) -> None:
    """Rename new to target; an existing target is exchanged with new."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        aside = new.with_name(f"{new.name}.old.tmp")
        os.rename(target, aside)
        os.rename(new, target)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders atomically; False if the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    return renameat2 is not None and (
        renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0
    )


def _umask() -> int:
    """Umask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as the next one does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks that name the encoding of a file."""


def decode_text(data: bytes, path: Path, otherwise: str | None = None) -> str:
    """Decode the bytes of a file, without its byte order mark and with newlines as line ends.

    Args:
        data: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        path: named in the error.
        otherwise: encoding for other bytes; None refuses them.
    Raises:
        DamagedFileError: the bytes are no text in these encodings, or contain zeros.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise is None:
            raise DamagedFileError(
                f"{path}: is not in {encoding.upper()}: byte {error.start} is "
                f"{data[error.start]:#04x}; convert it, from Latin-1 by: "
                f"iconv -f LATIN1 -t UTF-8 {path} > new.txt"
            ) from None
        text = data.decode(otherwise)
    if "\0" in text:
        raise DamagedFileError(
            f"{path}: character {text.index(chr(0))} is a zero, which no text has; if it is in "
            f"UTF-16 without a mark, convert it by: iconv -f UTF-16LE -t UTF-8 {path} > new.txt"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
