"""Bach's suites for cello alone as MIDI files, on which the book's music model is trained.

No single link provides them and this repository does not hold them. Any encoding of the six suites
works, with one file for each movement (cs1-1pre.mid, cs1-2all.mid, ...).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from generative.data.folders import find_files
from generative.data.image_set import PARTS
from generative.music.parsing import SUFFIXES, read_pieces
from generative.music.tokens import Streams

__all__ = ["find_music", "load_cello_suites"]


def find_music(folder: Path | str) -> list[Path]:
    """Files of music in a folder and below, in the order of their names; hidden ones are left out.

    Raises:
        FileNotFoundError: there are none; says what to put there.
    """
    folder = Path(folder)
    files = find_files(folder, SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"{folder}: holds no music; put MIDI files of the cello suites there, one a movement "
            f"(or other music, {', '.join(sorted(SUFFIXES))})"
        )
    return files


def load_cello_suites(
    folder: Path | str, max_pieces: int | None = None
) -> tuple[list[Streams], np.ndarray]:
    """Load the words of every movement, and its part of the split, uint8 (N,).

    Every ninth movement is for testing and the one before it for validation: four each with six
    suites of six movements. The book holds none back.

    Raises:
        FileNotFoundError: there is no music in the folder; says what to put there.
        DamagedFileError: a file cannot be read; it is named.
    """
    pieces = [piece for file in find_music(folder)[:max_pieces] for piece in read_pieces(file)]
    pieces = pieces[:max_pieces]
    number = np.arange(1, len(pieces) + 1)
    split = np.full(len(pieces), PARTS.index("train"), dtype=np.uint8)
    split[number % 9 == 8] = PARTS.index("val")
    split[number % 9 == 0] = PARTS.index("test")
    return pieces, split
