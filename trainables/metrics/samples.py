"""States that need the images themselves, not sums over them: a bounded sample, the same always."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trustsweep.trainables.metrics.base import MergeableState, StateDict

#: Images kept per state; above it, a sample that depends on the identifiers alone.
CAPACITY = 65_536


class SampleState(MergeableState):
    """A row of numbers for each image.

    Exact up to 65,536 images. Above that the images with the smallest hashes of `sample_id` are
    kept, so that the sample is the same for every order of batches and split over workers. A row
    with a NaN is kept before all others: NaN is never sampled away.
    """

    def __init__(self, uncertainty: str | None = None) -> None:
        super().__init__(uncertainty)
        self._keys = np.zeros(0, dtype=np.uint64)
        self._rows = np.zeros((0, 0))
        # Sorting once in a while is cheaper than with every batch.
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def rows(self) -> np.ndarray:
        """(n, columns) float64, in an order that no order of arrival can change; (0, 0) if none."""
        self._sort()
        return self._rows

    def add(self, sample_ids: Sequence[str], columns: Sequence[Tensor]) -> None:
        """Take in B images by columns, (B,) or (B, k) each."""
        if not sample_ids:
            return
        parts = [c.detach().to("cpu", torch.float64).reshape(len(c), -1) for c in columns]
        self._take(_hashes(sample_ids), torch.cat(parts, dim=1).numpy())

    def merge(self, other: Self) -> None:
        if len(rows := other.rows):
            self._take(other._keys, rows)

    def state_dict(self) -> StateDict:
        rows = self.rows.copy()
        return {"keys": self._keys.copy(), "rows": rows}

    def _load(self, state: Mapping[str, Any]) -> None:
        self._keys = np.array(state["keys"], dtype=np.uint64)
        self._rows = np.array(state["rows"], dtype=np.float64)
        self._waiting = []

    def _take(self, keys: np.ndarray, rows: np.ndarray) -> None:
        self._waiting.append((keys, rows))
        if sum(len(waiting) for waiting, _ in self._waiting) >= CAPACITY:
            self._sort()

    def _sort(self) -> None:
        """Take in the waiting rows, and keep the first `CAPACITY` rows."""
        if not self._waiting:
            return
        known = [(self._keys, self._rows)] if len(self._keys) else []
        keys, rows = (np.concatenate(part) for part in zip(*known, *self._waiting, strict=True))
        numbers = ~np.isnan(rows).any(axis=1)
        order = np.lexsort((*rows.T, keys, numbers))[:CAPACITY]
        self._keys, self._rows, self._waiting = keys[order], rows[order], []


def _hashes(sample_ids: Sequence[str]) -> np.ndarray:
    digests = [hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sample_ids]
    return np.array([int.from_bytes(d, "little") for d in digests], dtype=np.uint64)
