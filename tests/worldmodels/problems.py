"""Problems for the tests of parallel evaluation, in a module that workers import quickly."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from worldmodels.scoring import Scores


def sphere(candidate: np.ndarray, seed: int) -> Scores:
    """-|x - a|^2 with an a of the seed; the sum's bits depend on nothing else."""
    target = np.random.default_rng(seed).standard_normal(len(candidate))
    return Scores(-float(np.square(candidate - target).sum()), 7)


class Logged:
    """`sphere` that takes some time, and leaves a file for every episode that it begins.

    The files show what ran how often, whoever ran it. The first call of some candidates' episodes
    can do something else: hang, be slow, die, or return nonsense.
    """

    def __init__(self, folder: Path, seconds: float = 0.0, first: str = "", share: float = 0.1):
        self.folder, self.seconds, self.first, self.share = folder, seconds, first, share

    def __call__(self, candidate: np.ndarray, seed: int) -> Scores:
        key = f"{np.asarray(candidate).tobytes().hex()[:24]}-{seed}"
        calls = len(list(self.folder.glob(f"{key}.*")))
        (self.folder / f"{key}.{calls}.{os.getpid()}.{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        odd = np.random.default_rng([seed, int(1e6 * abs(candidate[0]))]).random() < self.share
        if odd and not calls:
            if self.first == "hang":
                time.sleep(1000)
            if self.first == "slow":
                time.sleep(3)  # thrice what counts as slow at the least
            if "speak" in self.first:
                print("the axle is about to break", file=sys.stderr, flush=True)
            if "die" in self.first:
                os._exit(5)
        return sphere(candidate, seed)

    def episodes(self) -> int:
        """Different ones that were begun."""
        return len({path.name.split(".")[0] for path in self.folder.iterdir()})

    def calls(self) -> int:
        """Of them all, repeats included."""
        return len(list(self.folder.iterdir()))


class Batch:
    """Rows and columns in one product: the score of a candidate depends on what it goes with."""

    def score_batch(self, candidates: np.ndarray, seeds: np.ndarray) -> Scores:
        mixed = candidates @ np.ones((candidates.shape[1], seeds.shape[1])) + 1e-3 * len(candidates)
        return Scores(mixed + np.sin(seeds), 3 * seeds.size)


def nan_for_some(candidate: np.ndarray, seed: int) -> float:
    """Not a number for candidates that begin with a positive one."""
    return float("nan") if candidate[0] > 0 else float(candidate.sum())


class NanAt:
    """`sphere`, but not a number in the episode of one seed."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, candidate: np.ndarray, seed: int) -> Scores:
        return Scores(float("nan"), 1) if seed == self.seed else sphere(candidate, seed)


def raises_not_finite(candidate: np.ndarray, seed: int) -> float:
    """As an environment does."""
    if candidate[0] > 0:
        raise FloatingPointError(f"Axle-v0, seed {seed}: reward at step 3 is not finite")
    return float(candidate.sum())


def word(candidate: np.ndarray, seed: int):
    """No score at all."""
    return "fast"


def broken(candidate: np.ndarray, seed: int) -> float:
    """An error with a note, as from an environment."""
    error = ZeroDivisionError("axle")
    error.add_note(f"Axle-v0, seed {seed}, after 3 steps")
    raise error


class BadShape:
    """A batch problem that loses an episode."""

    def score_batch(self, candidates: np.ndarray, seeds: np.ndarray) -> Scores:
        return Scores(np.zeros((len(seeds), seeds.shape[1] - 1)), 0)
