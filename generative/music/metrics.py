"""Measures of style for music in several tracks, and distances of two sets of pieces in them.

    ours, theirs = style(samples), style(chorales)      # a number for each piece and track
    style_distance(ours, theirs)                        # one number for each measure

The measures are those of MuseGAN (Dong et al. 2018, section 5.1).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

__all__ = ["Style", "StyleDistance", "real_distance", "style", "style_distance", "wasserstein"]


class Style(NamedTuple):
    """Measures of N pieces with P tracks, float64; NaN if a piece has nothing to measure."""

    empty_bars: np.ndarray
    """Share of the bars in which the track is silent, (N, P)."""
    used_pitch_classes: np.ndarray
    """Number of pitch classes in a bar of the track, of 12, mean over the bars, (N, P)."""
    qualified_notes: np.ndarray
    """Share of the notes that last at least `shortest` steps, (N, P); the rest are fragments."""
    tonal_distance: np.ndarray
    """Between two tracks, mean over the beats, (N, P (P - 1) / 2); see `tonal_centroid`."""


class StyleDistance(NamedTuple):
    """Distances of the measures between two sets of pieces, each in the unit of its measure."""

    empty_bars: float
    used_pitch_classes: float
    qualified_notes: float
    tonal_distance: float


def style(
    voices: np.ndarray, steps_per_bar: int = 16, steps_per_beat: int = 4, shortest: int = 2
) -> Style:
    """Measure pieces.

    Args:
        voices: the pitch of each track at each step, ints (N, T, P), negative for silence; T is a
            multiple of steps_per_bar.
        shortest: steps of a qualified note. The paper asks for a 32nd; on a grid of sixteenths a
            fragment is a note of one step, so the default is 2.
    Raises:
        ValueError: voices have another shape.
    """
    if voices.ndim != 3 or voices.shape[1] % steps_per_bar or not voices.shape[1]:
        raise ValueError(
            f"got pieces of shape {voices.shape}; needed are (N, T, P) with whole bars of "
            f"{steps_per_bar} steps"
        )
    n, t, p = voices.shape
    chroma = (voices[..., None] % 12 == np.arange(12)) & (voices[..., None] >= 0)  # (N, T, P, 12)
    in_bar = chroma.reshape(n, t // steps_per_bar, steps_per_bar, p, 12).any(2)
    counts = chroma.reshape(n, t // steps_per_beat, steps_per_beat, p, 12).sum(2)
    centroids = tonal_centroid(counts)  # (N, beats, P, 6)
    sounds = counts.any(-1)
    distances = []
    for i, j in itertools.combinations(range(p), 2):
        apart = np.linalg.norm(centroids[:, :, i] - centroids[:, :, j], axis=-1)
        distances.append(_mean_where(apart, sounds[:, :, i] & sounds[:, :, j]))
    return Style(
        1.0 - in_bar.any(-1).mean(1),
        in_bar.sum(-1).mean(1),
        _qualified(voices, shortest),
        np.stack(distances, 1) if distances else np.zeros((n, 0)),
    )


def tonal_centroid(chroma: np.ndarray) -> np.ndarray:
    """Weights of the twelve pitch classes (..., 12) -> points in tonal space (..., 6).

    Circles of fifths, of minor thirds and of major thirds, with radii 1, 1 and 1/2 (Harte, Sandler
    & Gasser 2006): pitches that harmonise lie close together. Silence is at 0.
    """
    pitch = np.arange(12)
    phi = np.concatenate(
        [
            [r * np.sin(pitch * step * np.pi), r * np.cos(pitch * step * np.pi)]
            for r, step in ((1.0, 7 / 6), (1.0, 3 / 2), (0.5, 2 / 3))
        ]
    )  # (6, 12)
    total = chroma.sum(-1, keepdims=True)
    return chroma @ phi.T / np.maximum(total, 1)


def _qualified(voices: np.ndarray, shortest: int) -> np.ndarray:
    """Share of a track's notes of at least `shortest` steps, (N, P)."""
    n, t, p = voices.shape
    begins = np.ones((n, t, p), dtype=bool)
    begins[:, 1:] = voices[:, 1:] != voices[:, :-1]
    # A note lasts if no note begins, and the piece does not end, in the next steps.
    lasts = begins.copy()
    for k in range(1, shortest):
        same = np.zeros_like(begins)
        same[:, : t - k] = ~begins[:, k:]
        lasts &= same
    note = begins & (voices >= 0)
    with np.errstate(invalid="ignore"):
        return (note & lasts).sum(1) / note.sum(1)


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(where, values, 0).sum(1) / where.sum(1)


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein distance of two samples of numbers: area between their distribution functions.

    NaN are left out; NaN if a sample then is empty.
    """
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return float("nan")
    points = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(a, points[:-1], side="right") / len(a)
    below_b = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float((np.abs(below_a - below_b) * np.diff(points)).sum())


def style_distance(a: Style, b: Style) -> StyleDistance:
    """Mean over the tracks (or pairs of tracks) of `wasserstein` between two sets of pieces."""
    found = []
    for of_a, of_b in zip(a, b, strict=True):
        columns = [wasserstein(x, y) for x, y in zip(of_a.T, of_b.T, strict=True)]
        found.append(float(np.mean(columns)) if columns else 0.0)
    return StyleDistance(*found)


def real_distance(
    samples: Style, real: Style, rng: np.random.Generator, num_splits: int = 100
) -> tuple[StyleDistance, StyleDistance]:
    """Distance of samples from real pieces, and of real pieces from real pieces, fairly compared.

    The real pieces are split at random into halves, num_splits times. The distance between two
    halves is that of chance. As many samples as a half are compared with a half in the same way.

    Returns:
        Means over the splits: (samples to a half, half to half).
    """
    half = len(real.empty_bars) // 2
    ours, theirs = [], []
    for _ in range(num_splits):
        order = rng.permutation(len(real.empty_bars))
        one, other = (_rows(real, order[part]) for part in (slice(half), slice(half, 2 * half)))
        drawn = rng.choice(len(samples.empty_bars), half, replace=False)
        ours.append(style_distance(_rows(samples, drawn), one))
        theirs.append(style_distance(other, one))
    return StyleDistance(*np.mean(ours, 0)), StyleDistance(*np.mean(theirs, 0))


def _rows(measures: Style, rows: np.ndarray) -> Style:
    return Style(*(values[rows] for values in measures))
