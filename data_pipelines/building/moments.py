"""Mean and standard deviation per column in one pass, for the train split's statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Count, mean and standard deviation of each of several columns, NaN left out.

    Parts are merged by the formula of Chan, Golub & LeVeque (1979), which does not cancel for
    values far from 0.
    """

    def __init__(self) -> None:
        self._count: Any = 0
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def update(self, values: NDArray[Any]) -> None:
        """Take in (n, columns)."""
        if not len(values):
            return
        if values.dtype == np.uint8:
            self._merge(*_whole_numbers(values))
            return
        finite = np.isfinite(values)
        filled = np.where(finite, values.astype(np.float64), 0.0)
        count = finite.sum(axis=0)
        mean = filled.sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(finite, filled - mean, 0.0) ** 2).sum(axis=0)
        self._merge(count, mean, squares)

    def update_images(self, images: NDArray[Any]) -> None:
        """Take in (n, C, *spatial): a column is a channel."""
        self.update(images.swapaxes(0, 1).reshape(images.shape[1], -1).T)

    def compute(self, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (ddof 0), each (columns,); 0 and 0 where nothing was observed."""
        count = np.broadcast_to(self._count, (columns,))
        variance = np.broadcast_to(self._squares, (columns,)) / np.maximum(count, 1)
        return np.broadcast_to(self._mean, (columns,)).astype(np.float64), np.sqrt(variance)

    def _merge(self, count: Any, mean: Any, squares: Any) -> None:
        total = self._count + count
        share = count / np.maximum(total, 1)
        gap = mean - self._mean
        self._squares = self._squares + squares + gap**2 * self._count * share
        self._mean = self._mean + gap * share
        self._count = total


def _whole_numbers(values: NDArray[np.uint8]) -> tuple[Any, Any, Any]:
    """The same exactly, and without a float copy: sums of whole numbers."""
    count = len(values)
    # float64 matrix products are exact below 2**53 and fast; 255² * n stays far below it.
    total = values.sum(axis=0, dtype=np.int64)
    squared = np.array(
        [np.dot(column, column) for column in values.T.astype(np.float64)], dtype=np.float64
    )
    mean = total / count
    return count, mean, squared - count * mean**2
