"""Does a model's uncertainty notice the attack that changes its answer?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import stats
from torch import Tensor

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.base import State, StateDict, foreground, uncertainty_map
from trainables.metrics.overlap import dice
from trainables.uncertainty import image_score

#: Images kept per state; above it, a sample that depends on the identifiers alone.
CAPACITY = 65_536


class Shift(State):
    """Each image attacked, beside itself before the attack. The image score is the map's mean.

    - spearman: rank correlation over images of U_attacked − U_clean and Dice_attacked − Dice_clean;
      0 where either is the same for all images, NaN for fewer than two.
    - auroc: probability that an attacked image is more uncertain than a clean one, ties half.

    Exact up to 65,536 images. Above that the images with the smallest hashes of `sample_id` are
    kept, so that the sample is the same for every order of batches and split over workers.
    """

    names = ("spearman", "auroc")

    def __init__(self, uncertainty: str | None = None) -> None:
        super().__init__(uncertainty)
        self.keys = np.zeros(0, dtype=np.uint64)
        # Columns: uncertainty clean and attacked, Dice clean and attacked.
        self.values = np.zeros((0, 4))

    def update(self, clean: Prediction, attacked: Prediction, batch: Batch) -> None:
        """Take in what was predicted for a batch before and after the attack."""
        columns = [
            *(image_score("mean", uncertainty_map(p, self.uncertainty)) for p in (clean, attacked)),
            *(dice(*foreground(p, batch)) for p in (clean, attacked)),
        ]
        self._take(_hashes(batch.sample_id), np.stack([_array(c) for c in columns], axis=1))

    def merge(self, other: Self) -> None:
        self._take(other.keys, other.values)

    def compute(self) -> dict[str, float]:
        before, after, dice_before, dice_after = self.values.T
        return {
            "spearman": _spearman(after - before, dice_after - dice_before),
            "auroc": _auroc(before, after),
        }

    def state_dict(self) -> StateDict:
        return {"keys": self.keys.copy(), "values": self.values.copy()}

    def _load(self, state: Mapping[str, Any]) -> None:
        self.keys = np.array(state["keys"], dtype=np.uint64)
        self.values = np.array(state["values"], dtype=np.float64).reshape(-1, 4)

    def _take(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add rows, in an order that no order of arrival can change, and keep the first."""
        keys, values = np.concatenate([self.keys, keys]), np.concatenate([self.values, values])
        order = np.lexsort((*values.T, keys))[:CAPACITY]
        self.keys, self.values = keys[order], values[order]


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _hashes(sample_ids: Sequence[str]) -> np.ndarray:
    digests = [hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sample_ids]
    return np.array([int.from_bytes(d, "little") for d in digests], dtype=np.uint64)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return math.nan
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def _auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    """The Mann-Whitney form, which needs no curve."""
    both = np.concatenate([negative, positive])
    if not len(both) or np.isnan(both).any():
        return math.nan
    n, m = len(negative), len(positive)
    ranks = stats.rankdata(both)[n:].sum()
    return float((ranks - m * (m + 1) / 2) / (n * m))
