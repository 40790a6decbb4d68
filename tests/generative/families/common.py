"""What the shared tests need to know of a family, and input that several families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

VOCABULARY = {"loss", "sample", "log_prob", "bound", "encode", "decode", "reconstruct", "translate"}
"""Verbs of docs/families.md."""


@dataclass(frozen=True)
class Family:
    """A family as the shared tests need it.

    Args:
        make: the tiny model.
        examples: n examples as the model takes them.
        learner: what trains it in so many steps, and how it takes the examples.
        logged, below: the value of `update` that shows it overfits eight examples, and what it has
            to come below within `steps`.
        wrong: input that is refused, and words of the answer.
        sample_range: smallest and largest value of a sample.
        without: verbs that its model has and that are of no use to this family.
        script, words: command that trains it, and what to tell it besides `smoke` and `--out`;
            words may first prepare files in a folder.
    """

    make: Callable[[], nn.Module]
    examples: Callable[[int], Tensor]
    learner: Callable[[Any, int], Any]
    logged: str
    below: float
    steps: int
    wrong: tuple[tuple[Tensor, str], ...]
    sample_range: tuple[float, float] | None = None
    without: frozenset[str] = frozenset()
    script: str | None = None
    words: Callable[[Path], tuple[object, ...]] = lambda folder: ()
    loss: Callable[[Any, Tensor], Tensor] = lambda model, x: model.loss(x).loss
    """A scalar of examples that every parameter has a part in."""
    to_batch: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    """Examples -> what the learner's update takes."""

    @cached_property
    def verbs(self) -> frozenset[str]:
        """Verbs of the vocabulary that the tiny model has."""
        model = self.make()
        return frozenset(verb for verb in VOCABULARY if hasattr(model, verb)) - self.without


def pictures(c: int, side: int) -> Callable[[int], Tensor]:
    """Images of bright squares on dark ground at different places."""

    def make(n: int) -> Tensor:
        x = torch.full((n, c, side, side), 0.1)
        for i in range(n):
            row, column = (3 * i) % (side // 2), (5 * i) % (side // 2)
            x[i, i % c, row : row + side // 2, column : column + side // 2] = 0.9
        return x

    return make


def grey_levels(n: int) -> Tensor:
    """4x4 images of five levels."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(5, size=(n, 1, 4, 4)) / 4).float()


def points(n: int) -> Tensor:
    """Points in the plane."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 2))).float()


def tokens(vocab_size: int, length: int) -> Callable[[int], Tensor]:
    """Texts of tokens 2 and above, as 0 ends a text and 1 is what no vocabulary has."""

    def make(n: int) -> Tensor:
        rng = np.random.default_rng(0)
        return torch.from_numpy(rng.integers(2, vocab_size, size=(n, length)))

    return make


def wrong_images(c: int, side: int) -> tuple[tuple[Tensor, str], ...]:
    """What no model of such images takes."""
    good = torch.full((2, c, side, side), 0.5)
    return (
        (good[:, :, 1:], rf"\(2, {c}, {side - 1}, {side}\).*\(B, {c}, {side}, {side}\)"),
        (good.byte(), r"uint8.*float"),
        (255 * good, r"127\.5.*\[0, 1\]"),
    )


def wrong_tokens(vocab_size: int, length: int) -> tuple[tuple[Tensor, str], ...]:
    """What no model of texts of at most so many tokens takes."""
    good = torch.full((2, length), 2)
    return (
        (good[0], rf"\({length},\).*\(B, T\)"),
        (torch.full((2, length + 1), 2), rf"\(2, {length + 1}\).*T from 1 to {length}"),
        (good.float(), r"float32.*int64"),
        (good + vocab_size, rf"{vocab_size + 2}.*0 to {vocab_size - 1}"),
    )


def recorded_frames(folder: Path) -> tuple[object, ...]:
    """Two short episodes in folder, and the words that name them."""
    from worldmodels.rollouts import Episode, RolloutStore

    store = RolloutStore(folder / "episodes")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        store.append(
            Episode(
                frames=rng.integers(256, size=(9, 64, 64, 3), dtype=np.uint8),
                actions=np.zeros((8, 3), np.float32),
                rewards=np.zeros(8, np.float32),
                terminated=np.zeros(8, bool),
            )
        )
    return ("--rollouts", folder / "episodes", "--steps", 101)


def to_frames(x: Tensor) -> Tensor:
    """float (B, C, H, W) in [0, 1] -> uint8 (B, H, W, C)."""
    return x.mul(255).round().byte().movedim(1, -1)
