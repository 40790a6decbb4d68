"""The JSB chorales in the two forms in which results are published: voices and piano rolls.

Both have Boulanger-Lewandowski's split into 229, 76 and 77 chorales (2012). The user has to get the
files; this repository holds none of them.
"""

from __future__ import annotations

import codecs
import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from generative.training.archives import HEADERS, open_zip, read_member
from generative.training.files import DamagedFileError, open_file, read_json, reading

__all__ = ["KEYS", "PAGE", "load_jsb_rolls", "load_jsb_voices", "roll_of_chords"]

PAGE = "https://github.com/czhuang/JSB-Chorales-dataset"
VOICE_FILES = ("Jsb16thSeparated.json", "jsb-chorales-16th.json", "Jsb16thSeparated.npz")
ROLL_FILE = "jsb-chorales-quarter.json"
PART_NAMES = {"train": "train", "val": "valid", "test": "test"}
MAX_BYTES = 16 * 2**20
"""Largest size of a file, and of its unpacked content; more than ten times that of these files."""
KEYS, LOWEST_KEY = 88, 21
"""Number of keys of a piano, and the MIDI number of its lowest key, A0."""


def load_jsb_voices(folder: Path | str) -> dict[str, list[np.ndarray]]:
    """Load soprano, alto, tenor and bass at every sixteenth note, for train, val and test.

    Args:
        folder: holds Jsb16thSeparated.json, jsb-chorales-16th.json or Jsb16thSeparated.npz.
    Returns:
        int64 (T, 4) for each chorale, MIDI pitches, -1 where a voice is silent.
    Raises:
        FileNotFoundError: none of them is there; says where to get one.
        DamagedFileError: it does not hold chorales.
    """
    path = _find(Path(folder), VOICE_FILES)
    raw = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
    return {name: [_voices(piece, path) for piece in raw[p]] for name, p in PART_NAMES.items()}


def load_jsb_rolls(folder: Path | str) -> dict[str, list[np.ndarray]]:
    """Load the piano keys that sound at every quarter note, for train, val and test.

    Args:
        folder: holds jsb-chorales-quarter.json.
    Returns:
        bool (T, 88) for each chorale.
    Raises:
        FileNotFoundError: it is not there; says where to get it.
        DamagedFileError: it does not hold chorales.
    """
    path = _find(Path(folder), (ROLL_FILE,))
    raw = _read_json(path)
    try:
        return {n: [roll_of_chords(piece) for piece in raw[p]] for n, p in PART_NAMES.items()}
    except (TypeError, IndexError) as error:
        raise DamagedFileError(f"{path}: does not hold lists of chords ({error})") from error


def roll_of_chords(chords: list[list[int]]) -> np.ndarray:
    """Lists of MIDI pitches, -1 for none -> bool (T, 88).

    Raises:
        IndexError: a pitch is not on a piano.
    """
    roll = np.zeros((len(chords), KEYS), dtype=bool)
    for row, chord in zip(roll, chords, strict=True):
        keys = np.array([pitch for pitch in chord if pitch >= 0], dtype=np.int64) - LOWEST_KEY
        if len(keys) and keys.min() < 0:
            raise IndexError(f"pitch {keys.min() + LOWEST_KEY} is below a piano's {LOWEST_KEY}")
        row[keys] = True
    return roll


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder / names[0]} is missing; get {' or '.join(names)} from {PAGE} and put it into "
        f"{folder}"
    )


def _voices(piece: Any, path: Path) -> np.ndarray:
    voices = np.array(piece, dtype=np.float64)
    if voices.ndim != 2 or voices.shape[1] != 4:
        raise DamagedFileError(f"{path}: a chorale has the shape {voices.shape}, not (T, 4)")
    voices = np.nan_to_num(voices, nan=-1).astype(np.int64)
    if voices.min(initial=0) < -1 or voices.max(initial=0) > 127:
        raise DamagedFileError(f"{path}: holds pitches beyond -1 to 127")
    return voices


def _read_json(path: Path) -> dict[str, Any]:
    return _with_parts(read_json(path, MAX_BYTES, links=True), path)


def _with_parts(raw: Any, path: Path) -> dict[str, Any]:
    if not isinstance(raw, dict) or not set(PART_NAMES.values()) <= set(raw):
        raise DamagedFileError(f"{path}: has no parts {', '.join(PART_NAMES.values())}")
    return raw


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled arrays of numbers and refuses everything else, so that no code runs.

    An array begins empty, whatever size the pickle asks for, and then takes the values that the
    file holds.
    """

    FOUND: ClassVar[dict[str, Any]] = {
        "_reconstruct": lambda *_: np.empty(0),
        "ndarray": object,
        "dtype": np.dtype,
        "encode": codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in (
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "numpy.ndarray",
            "numpy.dtype",
            "_codecs.encode",
        ):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return self.FOUND[name]


def _read_npz(path: Path) -> dict[str, Any]:
    """The object arrays of the file, without numpy's `allow_pickle`, which could run code."""
    raw = {}
    with (
        open_file(path, MAX_BYTES, links=True) as file,
        open_zip(file, path, MAX_BYTES) as archive,
        reading(path, "can not be read"),
    ):
        for name in archive.namelist():
            data = io.BytesIO(read_member(archive, name, path))
            _, _, dtype = HEADERS[np.lib.format.read_magic(data)](data)
            if not dtype.hasobject:
                raise ValueError(f"{name} holds {dtype}, not a list of chorales")
            pieces = list(_ArraysOnly(data, encoding="latin1").load())
            good = all(isinstance(p, np.ndarray) and p.dtype.kind in "fiu" for p in pieces)
            # One array can stand in the list many times.
            if not good or sum(piece.nbytes for piece in pieces) > MAX_BYTES:
                raise ValueError(
                    f"{name} is no list of arrays of numbers, of {MAX_BYTES:,} bytes at most"
                )
            raw[name.removesuffix(".npy")] = pieces
    return _with_parts(raw, path)
