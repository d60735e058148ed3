"""Do a model's weights of modalities follow their quality?"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.shift import spearman

#: Permutations behind a null interval and a p-value.
PERMUTATIONS = 999


class Reliance(SampleState):
    """Rank correlation of the weights r_m with the severity to which each modality was corrupted.

    Below 0, the model gives less weight to what is corrupted.

    - overall: over all pairs of a sample and a modality that is present there. As the weights of
      a sample sum to 1, it also sees in how many modalities a sample has.
    - within: over the present modalities of one sample, mean over the samples where these differ
      in severity; 0 for a sample of equal weights.
    - overall_low, overall_high, within_low, within_high: the central 95 % of the same where weights
      know nothing of severity: the severities of each sample permuted among its present modalities,
      999 times, from a fixed seed.
    - overall_p, within_p: the two-sided p-value of that permutation test, (1 + b) / 1000 with b the
      permutations at least as far from their mean as the observed value (Phipson & Smyth 2010,
      Stat. Appl. Genet. Mol. Biol. 9).
    - pairs, samples: How many either was computed from.

    A modality counts as present where `batch.present` is above 0. One whose values a corruption has
    blanked is absent for a model that masks what it cannot see: its weight of 0 beside a severity
    above 0 would be a correlation that no weighing made (-0.09 for equal weights on UCI heart).
    `trustsweep.trainables.reliance.reliance` takes care of this.

    Correlations lie in [-1, 1], NaN where there is nothing to compute from or a weight is NaN.
    Exact up to 65,536 samples, above that of a fixed sample of so many (see `SampleState`).
    """

    names = (
        "overall", "within", "pairs", "samples", "overall_low", "overall_high", "overall_p",
        "within_low", "within_high", "within_p",
    )  # fmt: skip

    def update(self, prediction: Prediction, batch: Batch) -> None:
        """Take in a batch that was corrupted modality by modality, and what was predicted for it.

        Raises:
            ValueError: without weights (B, M) or severities (B, M) to compare.
        """
        weight, severity = prediction.modality_weights, batch.severity
        if weight is None or severity is None or weight.shape != severity.shape:
            shapes = [None if v is None else tuple(v.shape) for v in (weight, severity)]
            raise ValueError(f"weights {shapes[0]} and severities {shapes[1]} cannot be compared")
        present = torch.ones_like(severity) if batch.present is None else batch.present
        self.add(batch.sample_id, [weight, severity, present])

    def compute(self) -> dict[str, float]:
        metrics = dict.fromkeys(self.names, math.nan)
        if not len(self.rows):
            return {**metrics, "pairs": 0.0, "samples": 0.0}
        weight, severity, present = np.split(self.rows, 3, axis=1)
        there = present > 0
        single = _within(weight, severity, there)
        metrics |= {
            "overall": spearman(weight[there], severity[there]),
            "within": float(single.mean()) if len(single) else math.nan,
            "pairs": float(there.sum()),
            "samples": float(len(single)),
        }
        if not np.isnan(weight[there]).any():
            overall, within = _permuted(weight, severity, there)
            metrics |= _tested("overall", metrics["overall"], overall)
            metrics |= _tested("within", metrics["within"], within)
        return metrics


def _permuted(
    weight: np.ndarray, severity: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(`PERMUTATIONS`,) each: both correlations with the severities of each sample permuted.

    Ranks stay what they are under a permutation, and so do the correlations' denominators.
    """
    rng = np.random.default_rng(0)
    whole = [_whole_ranks(values, there) for values in (weight, severity)]
    own = [_centred_ranks(values, there) for values in (weight, severity)]
    differ = (own[1] != 0).any(axis=1)
    extents = [np.sqrt((r**2).sum(axis=1, keepdims=True)) for r in own]
    own = [
        np.divide(r, e, out=np.zeros_like(r), where=e != 0)
        for r, e in zip(own, extents, strict=True)
    ]
    extent = math.sqrt((whole[0] ** 2).sum() * (whole[1] ** 2).sum())
    overall = np.full(PERMUTATIONS, math.nan)
    within = np.full(PERMUTATIONS, math.nan)
    # What is absent comes last in every order, so that places of the present stay among them.
    places = np.argsort(~there, axis=1, kind="stable")
    for i in range(PERMUTATIONS):
        order = np.argsort(np.where(there, rng.random(there.shape), 2.0), axis=1, kind="stable")
        shuffled = []
        for ranks in (whole[1], own[1]):
            moved = np.empty_like(ranks)
            np.put_along_axis(moved, places, np.take_along_axis(ranks, order, axis=1), axis=1)
            shuffled.append(moved)
        overall[i] = (whole[0] * shuffled[0]).sum() / extent if extent else 0.0
        if differ.any():
            within[i] = (own[0] * shuffled[1]).sum() / differ.sum()
    return overall, within


def _tested(name: str, observed: float, null: np.ndarray) -> dict[str, float]:
    """The interval of the null distribution, and the p-value of the observed statistic."""
    if math.isnan(observed) or np.isnan(null).any():
        return {}
    low, high = np.quantile(null, [0.025, 0.975])
    centre = null.mean()
    # Rounding must not separate equal distances.
    further = np.abs(null - centre) >= abs(observed - centre) - 1e-12
    p = (1 + further.sum()) / (1 + len(null))
    return {f"{name}_low": float(low), f"{name}_high": float(high), f"{name}_p": float(p)}


def _whole_ranks(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(n, M): the rank of each present value among all of them less their mean; else 0."""
    ranks = np.zeros(values.shape)
    ranks[there] = stats.rankdata(values[there])
    return np.where(there, ranks - (there.sum() + 1) / 2, 0.0)


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
