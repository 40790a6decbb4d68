"""Bach's chorales from music21's own corpus: always there, in four voices, each piece once.

chorales = load_music21_chorales("data/music21-chorales")
for score in chorales.part("train"):
    ...

The first call reads them from the installed package, which takes about half a minute, and keeps
them in the folder; nothing of the corpus is in this repository.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from generative.data.image_set import PARTS
from generative.data.score_set import ScoreSet
from generative.music.notes import Note
from generative.music.score import Score
from generative.training.extras import how_to_install
from generative.training.files import MAX_LIST_BYTES, DamagedFileError, read_json, write_json

__all__ = ["distinct", "load_music21_chorales", "melody_groups"]

TICKS = 96
"""Ticks per quarter note in the cached file; all times in the chorales are whole ticks."""
CACHE_NAME = "chorales.json"
NUM_VOICES = 4
NUM_VAL = NUM_TEST = 35


def load_music21_chorales(
    folder: Path | str | None = None, max_pieces: int | None = None
) -> ScoreSet:
    """Load music21's chorales in four voices, without repetitions, in a fixed split.

    Repetitions are left out before the pieces are split, and all settings of one melody are in the
    same part, so that no melody of the test part is in training.

    Args:
        folder: caches the pieces and is read on the next call; None reads the corpus every time.
        max_pieces: largest number of pieces to read; fewer than all are not cached.
    Raises:
        ModuleNotFoundError: music21 is not installed; says what to install.
        DamagedFileError: the cached file has changed.
    """
    version = _installed_version()
    file = None if folder is None or max_pieces is not None else Path(folder) / CACHE_NAME
    if file is not None and file.is_file():
        kept = read_json(file, MAX_LIST_BYTES)
        if not isinstance(kept, dict) or "pieces" not in kept:
            raise DamagedFileError(f"{file}: is not a list of chorales; delete it to read anew")
        if kept.get("music21") == version:
            return _split(*_from_json(kept["pieces"], file))
    names, scores = _read_corpus(max_pieces)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"music21": version, "pieces": _to_json(names, scores)})
    return _split(names, scores)


def _installed_version() -> str:
    try:
        return importlib.metadata.version("music21")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the chorales come with music21; {how_to_install('music21')}"
        ) from None


def _read_corpus(max_pieces: int | None) -> tuple[list[str], list[Score]]:
    """All chorales in four voices, in the order of the corpus; some pieces are there twice."""
    from music21 import corpus

    from generative.music.parsing import score_from_music21

    files = dict.fromkeys(map(str, corpus.chorales.Iterator(returnType="filename")))  # each once
    names, scores = [], []
    for name in files:
        if max_pieces is not None and len(names) >= max_pieces:
            break
        score = score_from_music21(corpus.parse(name, forceSource=True))
        if score.num_parts == NUM_VOICES:
            names.append(name)
            scores.append(score)
    return names, scores


def _split(names: list[str], scores: list[Score]) -> ScoreSet:
    kept = distinct(scores)
    names, scores = [names[i] for i in kept], [scores[i] for i in kept]
    groups = np.array(melody_groups(scores))
    num_held_out = min(NUM_VAL + NUM_TEST, len(scores) // 4)
    split = np.zeros(len(scores), dtype=np.uint8)
    # Melodies are drawn until validation and test have their pieces.
    for group in np.random.default_rng(0).permutation(groups.max() + 1):
        members = groups == group
        done = int((split > 0).sum())
        if done + members.sum() <= num_held_out:
            name = "test" if done < num_held_out // 2 else "val"
            split[members] = PARTS.index(name)
    return ScoreSet(tuple(scores), tuple(names), split)


def distinct(scores: Iterable[Score]) -> list[int]:
    """Indices of the scores that do not repeat the notes of an earlier one in any key."""
    seen, kept = set(), []
    for i, score in enumerate(scores):
        lowest = min((note.pitch for note in score.notes), default=0)
        notes = tuple(note._replace(pitch=note.pitch - lowest) for note in score.notes)
        if notes not in seen:
            seen.add(notes)
            kept.append(i)
    return kept


def melody_groups(scores: Iterable[Score], num_notes: int = 10) -> list[int]:
    """A number for each score, equal where the first part begins with the same melody in any key.

    The intervals of the first notes are compared, without rhythm, so that settings of a chorale
    in other metres and keys are found too.
    """
    groups: dict[tuple[int, ...], int] = {}
    numbers = []
    for score in scores:
        melody = [note.pitch for note in score.notes if note.part == 0][:num_notes]
        steps = tuple(b - a for a, b in itertools.pairwise(melody))
        numbers.append(groups.setdefault(steps, len(groups)))
    return numbers


def _to_json(names: list[str], scores: list[Score]) -> list[dict]:
    pieces = []
    for name, score in zip(names, scores, strict=True):
        rows = [[note.start * TICKS, note.duration * TICKS, *note[2:]] for note in score.notes]
        if any(Fraction(n).denominator != 1 for row in rows for n in row):
            raise ValueError(f"{name} has a time that is no multiple of 1/{TICKS} of a quarter")
        notes = [" ".join(str(int(n)) for n in row) for row in rows]
        pieces.append(
            {
                "name": name,
                "key": score.key,
                "time_signature": score.time_signature,
                "notes": ";".join(notes),
            }
        )
    return pieces


def _from_json(pieces: list[dict], file: Path) -> tuple[list[str], list[Score]]:
    names, scores = [], []
    try:
        for piece in pieces:
            notes = []
            for row in piece["notes"].split(";"):
                start, duration, pitch, part = map(int, row.split())
                notes.append(Note(Fraction(start, TICKS), Fraction(duration, TICKS), pitch, part))
            scores.append(Score(notes, piece["key"], piece["time_signature"], NUM_VOICES))
            names.append(piece["name"])
    except (KeyError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{file}: is damaged ({error}); delete it to read anew") from error
    return names, scores
