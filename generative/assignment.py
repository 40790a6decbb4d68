"""The cheapest pairing of as many rows as columns, by the Hungarian method.

columns = assign(cost)               # row i belongs to column columns[i]
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["assign"]


def assign(cost: np.ndarray) -> np.ndarray:
    """The permutation of least total cost: int64 (N,), the column of each row.

    By shortest augmenting paths with prices (Kuhn 1955; Jonker & Volgenant 1987); the time grows as
    N^3 at most.

    Args:
        cost: (N, N), finite.
    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    cost = np.ascontiguousarray(cost, dtype=np.float64)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ValueError(f"got costs of shape {cost.shape}; a pairing needs (N, N)")
    if not np.isfinite(cost).all():
        raise ValueError("got a cost that is not finite; every row must fit every column")
    return _assign(cost)


@njit(cache=True, nogil=True)
def _assign(cost: np.ndarray) -> np.ndarray:
    n = len(cost)
    row_price, column_price = np.zeros(n), np.zeros(n)
    row_of = np.full(n, -1)  # of each column
    for first in range(n):
        # Dijkstra's shortest path from a free row to a free column, by reduced costs.
        least, before = np.full(n, np.inf), np.full(n, -1)
        settled = np.zeros(n, np.bool_)
        row, column, length = first, -1, 0.0
        while row >= 0:
            nearest, closest = -1, np.inf
            for j in range(n):
                if settled[j]:
                    continue
                far = length + cost[row, j] - row_price[row] - column_price[j]
                if far < least[j]:
                    least[j], before[j] = far, column
                if least[j] < closest:
                    nearest, closest = j, least[j]
            column, length = nearest, closest
            settled[column] = True
            row = row_of[column]
        row_price[first] += length
        for j in range(n):
            if settled[j] and j != column:
                column_price[j] -= length - least[j]
                row_price[row_of[j]] += length - least[j]
        column_price[column] -= length - least[column]
        # Along the path every row moves to the next column.
        while column >= 0:
            last = before[column]
            row_of[column] = row_of[last] if last >= 0 else first
            column = last
    columns = np.empty(n, np.int64)
    for j in range(n):
        columns[row_of[j]] = j
    return columns
