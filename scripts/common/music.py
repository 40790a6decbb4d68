"""Music data by name, in the forms that models take, and batches of it.

    pieces = load_streams("chorales", Path("data"))     # two lists of words for each voice
    voices = load_voices("jsb", Path("data"))           # a pitch for each voice and sixteenth
    rolls = load_rolls("jsb", Path("data"))             # 88 keys at each quarter note

Each is a dict of train, val and test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from generative.data.image_set import PARTS
from scripts.common.missing import folder_of

if TYPE_CHECKING:
    from generative.data.score_set import ScoreSet
    from generative.music.score import Score
    from generative.music.tokens import Streams
    from generative.training.run import Run

__all__ = [
    "RollData",
    "StreamData",
    "VoiceData",
    "load_rolls",
    "load_streams",
    "load_voices",
    "show_scores",
]

StreamData = Literal["cello-suites", "chorales", "tunes"]
"""Melodies: MIDI files of the user, every voice of music21's chorales, or made-up tunes."""
VoiceData = Literal["jsb", "chorales", "tunes"]
"""Four voices: the user's files of the JSB chorales, music21's chorales, or made-up tunes."""
RollData = VoiceData
LOWEST_KEY, KEYS = 21, 88


@folder_of("--data-dir")
def load_streams(
    name: StreamData, data_dir: Path, max_pieces: int | None = None, num_voices: int = 4
) -> dict[str, list[Streams]]:
    """Note and duration words of every melody.

    Args:
        data_dir: files are in data_dir/NAME if there is such a folder, else in data_dir itself;
            pieces read from music21's corpus are kept in data_dir/chorales.
        max_pieces: read at most this many.
        num_voices: of a piece in four voices take this many from the highest on, each by itself.
    Raises:
        FileNotFoundError, ModuleNotFoundError: something is missing; says where to get it.
    """
    if name == "cello-suites":
        from generative.data.cello_suites import load_cello_suites

        pieces, split = load_cello_suites(_own(data_dir, name), max_pieces)
        return {
            part: [pieces[i] for i in np.flatnonzero(split == k)] for k, part in enumerate(PARTS)
        }
    from generative.music.tokens import streams_of_score

    scores = _scores(name, data_dir, max_pieces)
    return {
        part: [
            streams_of_score(score, voice, end=True)
            for score in scores.part(part)
            for voice in range(num_voices)
        ]
        for part in PARTS
    }


@folder_of("--data-dir")
def load_voices(
    name: VoiceData, data_dir: Path, max_pieces: int | None = None
) -> dict[str, list[np.ndarray]]:
    """The pitch of each of four voices at every sixteenth note, int64 (T, 4), -1 for silence.

    Args and errors: as `load_streams`.
    """
    if name == "jsb":
        from generative.data.jsb_chorales import load_jsb_voices

        return {
            p: pieces[:max_pieces] for p, pieces in load_jsb_voices(_own(data_dir, name)).items()
        }
    scores = _scores(name, data_dir, max_pieces)
    return {part: [score.voices(4) for score in scores.part(part)] for part in PARTS}


@folder_of("--data-dir")
def load_rolls(
    name: RollData, data_dir: Path, max_pieces: int | None = None
) -> dict[str, list[np.ndarray]]:
    """The keys of a piano that sound at every quarter note, bool (T, 88).

    Args and errors: as `load_streams`.
    """
    if name == "jsb":
        from generative.data.jsb_chorales import load_jsb_rolls

        return {
            p: pieces[:max_pieces] for p, pieces in load_jsb_rolls(_own(data_dir, name)).items()
        }
    scores, keys = _scores(name, data_dir, max_pieces), slice(LOWEST_KEY, LOWEST_KEY + KEYS)
    return {
        part: [np.asarray(s.roll(1).any(axis=0))[:, keys] for s in scores.part(part)]
        for part in PARTS
    }


def _scores(name: str, data_dir: Path, max_pieces: int | None) -> ScoreSet:
    if name == "tunes":
        from generative.data.tunes import tunes

        return tunes(max_pieces or 200)
    from generative.data.music21_chorales import load_music21_chorales

    return load_music21_chorales(data_dir / name, max_pieces)


def _own(data_dir: Path, name: str) -> Path:
    """Folder of a data set: data_dir/name if there is one, else data_dir."""
    own = data_dir / name
    return own if own.is_dir() else data_dir


def show_scores(
    run: Run, step: int, scores: Sequence[Score], programs: Sequence[int] = (0,)
) -> None:
    """Samples of a training: a picture of piano rolls in images, MIDI files in midi."""
    from generative.music import piano_rolls

    run.metrics.log_image(step, "samples", piano_rolls(scores))
    folder = run.path / "midi"
    folder.mkdir(exist_ok=True)
    for i, score in enumerate(scores):
        score.write_midi(folder / f"sample-{step:06d}-{i}.mid", programs)
