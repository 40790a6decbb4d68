"""Batches of recorded frames for training V, also from more frames than memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from worldmodels.rollouts import RolloutStore, common_frame_shape, load_frames, read_rows

__all__ = ["MAX_BYTES", "FrameBatches"]

MAX_BYTES = 4 * 2**30
"""Memory for frames in bytes: 350,000 of 64x64 colours. The paper's recording has 10 million."""


class FrameBatches:
    """Batches drawn from all frames of all episodes: a function of the step's number alone.

    Frames that fit into `max_bytes` are kept, and every batch is drawn from all of them. Otherwise
    as many whole episodes as fit are drawn and read from their files. Batches are drawn from these
    until as many frames were drawn as they have; then other episodes replace them.

    Args:
        stores: the recorded episodes, one store or several of the same frame shape.
        batch_size: frames of a batch.
        rng: (purpose, number) -> generator, always with the same numbers (`Run.rng`).
        shape: needed shape of a frame, such as (64, 64, 3).
        max_bytes: largest memory of the frames.
    Raises:
        ValueError: as `load_frames`.
    """

    def __init__(
        self,
        stores: Iterable[RolloutStore],
        batch_size: int,
        rng: Callable[..., np.random.Generator],
        shape: tuple[int, ...] | None = None,
        max_bytes: int = MAX_BYTES,
    ):
        self._stores, self._batch_size, self._rng = list(stores), batch_size, rng
        self._shape = common_frame_shape(self._stores, shape)
        lengths = [record.steps + 1 for store in self._stores for record in store.records]
        self._first = np.concatenate([[0], np.cumsum(lengths)])
        width = np.uint8().nbytes if len(self._shape) == 3 else np.float32().nbytes
        self._room = max(1, max_bytes // (width * int(np.prod(self._shape))))
        self._all = load_frames(self._stores) if len(self) <= self._room else None
        self._pool, self._number = np.empty(0, np.uint8), -1

    def __len__(self) -> int:
        """Number of frames in all episodes."""
        return int(self._first[-1])

    def __call__(self, step: int) -> np.ndarray:
        """Batch of a step, (batch_size, *shape): uint8 frames, or float32 vectors."""
        pool = self._pool_of(step)
        return pool[self._rng("batch", step).integers(len(pool), size=self._batch_size)]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Frames of these distinct indices, in their order."""
        if self._all is not None:
            return self._all[rows]
        order = np.argsort(rows)
        return read_rows(self._stores, self._shape, rows[order])[np.argsort(order)]

    def _pool_of(self, step: int) -> np.ndarray:
        """Frames from which the batch of a step is drawn."""
        if self._all is not None:
            return self._all
        number = step // max(1, self._room // self._batch_size)
        if number != self._number:
            order = self._rng("pool", number).permutation(len(self._first) - 1)
            lengths = np.diff(self._first)[order]
            count = max(1, int(np.searchsorted(np.cumsum(lengths), self._room, side="right")))
            self._pool = self._pool[:0].copy()  # frees its memory before others are read
            chosen = np.zeros(len(order), bool)
            chosen[order[:count]] = True
            rows = np.flatnonzero(np.repeat(chosen, np.diff(self._first)))
            self._pool = read_rows(self._stores, self._shape, rows)
            self._number = number
        return self._pool
