"""Do a model's weights of modalities follow their quality?"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.samples import SampleState
from trainables.metrics.shift import spearman


class Reliance(SampleState):
    """Rank correlation of the weights r_m with the severity to which each modality was corrupted.

    Less than 0 means that the model turns away from what is bad.

    - overall: over all pairs of a sample and a modality that is present there. As the weights of
      a sample sum to 1, it also sees in how many modalities a sample has.
    - within: over the present modalities of one sample, mean over the samples where these differ
      in severity; 0 for a sample of equal weights.
    - pairs, samples: How many either was computed from.

    Both correlations lie in [-1, 1], NaN where there is nothing to compute from or a weight is NaN.
    Exact up to 65,536 samples, above that of a fixed sample of so many (see `SampleState`).
    """

    names = ("overall", "within", "pairs", "samples")

    def update(self, prediction: Prediction, batch: Batch) -> None:
        """Take in a batch that was corrupted modality by modality, and what was predicted for it.

        Raises:
            ValueError: without weights (B, M) or severities (B, M) to compare.
        """
        weight, severity = prediction.reliability, batch.severity
        if weight is None or severity is None or weight.shape != severity.shape:
            shapes = [None if v is None else tuple(v.shape) for v in (weight, severity)]
            raise ValueError(f"weights {shapes[0]} and severities {shapes[1]} cannot be compared")
        present = torch.ones_like(severity) if batch.present is None else batch.present
        self.add(batch.sample_id, [weight, severity, present])

    def compute(self) -> dict[str, float]:
        if not len(self.rows):
            return dict(zip(self.names, (math.nan, math.nan, 0.0, 0.0), strict=True))
        weight, severity, present = np.split(self.rows, 3, axis=1)
        there = present > 0
        single = _within(weight, severity, there)
        return {
            "overall": spearman(weight[there], severity[there]),
            "within": float(single.mean()) if len(single) else math.nan,
            "pairs": float(there.sum()),
            "samples": float(len(single)),
        }


def _within(weight: np.ndarray, severity: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(k,): Spearman's coefficient of each of the k rows whose severities differ."""
    x, y = _centred_ranks(weight, there), _centred_ranks(severity, there)
    differ = (y != 0).any(axis=1)
    x, y = x[differ], y[differ]
    extent = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), extent, out=np.zeros(len(x)), where=extent != 0)


def _centred_ranks(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(n, M): the rank of each present value in its row less their mean; 0 for the absent."""
    ranks = stats.rankdata(np.where(there, values, math.nan), axis=1, nan_policy="omit")
    # The mean of k ranks is (k + 1) / 2, ties or not.
    return np.where(there, ranks - (there.sum(axis=1, keepdims=True) + 1) / 2, 0.0)
