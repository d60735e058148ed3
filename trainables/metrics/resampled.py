"""Metrics of a split and of resamples of it, as statistics of weighted samples.

A statistic is made of columns (n, ...), one row a sample, and maps weights (r, n), how often each
sample stands in each of r resamples, to (r,) values; of weights 1, it is the metric itself. So a
bootstrap of many resamples is a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trustsweep.trainables.metrics.catalog import CALIBRATION_BINS, NLL_CLAMP

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, NDArray[Any]]
#: Weights (r, n) to values (r,).
Statistic: TypeAlias = Callable[[Floats], Floats]


def _ratio(amount: Floats, count: Floats, empty: float = math.nan) -> Floats:
    """Of (r,) sums; `empty` where there is nothing of either."""
    filled = np.divide(amount, count, out=np.full(amount.shape, math.nan), where=count != 0)
    return np.where((count == 0) & (amount == 0), empty, filled)


def _mean(values: NDArray[Any]) -> Statistic:
    return lambda weights: _ratio(weights @ values, weights.sum(axis=1))


def _macro(
    amount: NDArray[Any],
    count: NDArray[Any],
    occurs: NDArray[Any] | None = None,
    empty: float = math.nan,
) -> Statistic:
    """amount / count of each foreground, from (n, C) each, and their mean.

    Left out are those with a count of 0 in a resample, and those that do not occur in it, of
    `occurs` (n, C): a foreground that is neither true nor predicted, unless there is no other.
    `empty` where there is none at all.
    """
    amount, count = amount.astype(np.float64), count.astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        total, number = weights @ amount, weights @ count
        counted = number > 0
        if occurs is not None:
            there = weights @ occurs.astype(np.float64) > 0
            counted &= there | ~there.any(axis=1, keepdims=True)
        values = np.divide(total, number, out=np.zeros_like(total), where=counted)
        counts = counted.sum(axis=1) * 1.0
        return _ratio(values.sum(axis=1), counts, empty)

    return statistic


def _each(columns: Columns, name: str) -> NDArray[Any]:
    """(n, C): a column of one foreground, or of several."""
    return columns[name].reshape(len(columns[name]), -1)


class _Masks:
    """The overlaps of n images with C foregrounds, (n, C) each."""

    def __init__(self, columns: Columns) -> None:
        self.dice = _each(columns, "dice")
        self.lesion = _each(columns, "lesion_pixels")
        self.predicted = _each(columns, "predicted_pixels")
        self.size = self.lesion + self.predicted
        self.both = self.dice * self.size / 2
        self.occurs = (self.size > 0) | np.isnan(self.dice)

    def mean(self, values: NDArray[Any]) -> Statistic:
        return _macro(values, np.ones_like(values), self.occurs)


def _dice(columns: Columns) -> Statistic:
    masks = _Masks(columns)
    return masks.mean(masks.dice)


def _dice_lesion(columns: Columns) -> Statistic:
    masks = _Masks(columns)
    there = masks.lesion > 0
    return _macro(np.where(there, masks.dice, 0), there)


def _false_alarms(columns: Columns) -> Statistic:
    masks = _Masks(columns)
    clear = masks.lesion == 0
    return _macro(np.where(clear, masks.predicted > 0, 0), clear)


def _iou(columns: Columns) -> Statistic:
    masks = _Masks(columns)
    return masks.mean(_ratio(masks.both, masks.size - masks.both, empty=1.0))


def _dice_micro(columns: Columns) -> Statistic:
    masks = _Masks(columns)
    return _macro(2 * masks.both, masks.size, empty=1.0)


def _binned(gaps: NDArray[Any], counts: NDArray[Any]) -> Statistic:
    """ECE = Σ_b |Σ gap_b| / Σ n."""
    return lambda weights: _ratio(np.abs(weights @ gaps).sum(axis=1), weights @ counts)


def _class_ece(columns: Columns) -> Statistic:
    confidence, correct = columns["probability"].max(axis=1), columns["correct"]
    bins = np.clip(np.ceil(np.nan_to_num(confidence) * CALIBRATION_BINS), 1, CALIBRATION_BINS)
    gaps = np.zeros((len(bins), CALIBRATION_BINS))
    gaps[np.arange(len(bins)), bins.astype(int) - 1] = correct - confidence
    return _binned(gaps, np.ones(len(bins)))


def _balanced(columns: Columns) -> Statistic:
    """Mean recall over the classes that a resample holds."""
    truth = columns["truth"]
    member = (truth[:, None] == np.unique(truth)).astype(np.float64)
    hit = member * columns["correct"][:, None]

    def statistic(weights: Floats) -> Floats:
        counts = weights @ member
        return _ratio(_ratio(weights @ hit, counts, empty=0.0).sum(1), (counts > 0).sum(1) * 1.0)

    return statistic


def _auroc(columns: Columns) -> Statistic:
    """Of the second of two classes; of more, each against the rest, over those that occur."""
    truth, p = columns["truth"], columns["probability"]
    members = [1] if p.shape[1] == 2 else np.unique(truth)
    parts = [_one_auroc(p[:, k], truth == k) for k in members]

    def statistic(weights: Floats) -> Floats:
        values = np.stack([part(weights) for part in parts])
        known = ~np.isnan(values)
        return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0) * 1.0)

    return statistic


def _one_auroc(score: NDArray[Any], positive: NDArray[np.bool_]) -> Statistic:
    """Probability that a positive scores above a negative, ties half (Mann-Whitney)."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-math.inf))
    mine = positive[order]
    broken = bool(np.isnan(score).any())

    def statistic(weights: Floats) -> Floats:
        if broken or not len(order):
            return np.full(len(weights), math.nan)
        ordered = weights[:, order]
        up = np.add.reduceat(ordered * mine, starts, axis=1)
        down = np.add.reduceat(ordered * ~mine, starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        return _ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))

    return statistic


def _over_labels(
    one: Callable[[NDArray[Any], NDArray[np.bool_]], Statistic],
) -> Callable[[Columns], Statistic]:
    """The mean over the labels of a statistic of one label's (probability, truth), of the samples
    where it is known; labels undefined in a resample are left out."""

    def make(columns: Columns) -> Statistic:
        truth, p = columns["truth"], columns["probability"]
        known = ~np.isnan(truth)
        rows = [np.flatnonzero(known[:, k]) for k in range(truth.shape[1])]
        parts = [one(p[r, k], truth[r, k] > 0.5) for k, r in enumerate(rows)]

        def statistic(weights: Floats) -> Floats:
            values = np.stack([part(weights[:, r]) for part, r in zip(parts, rows, strict=True)])
            there = ~np.isnan(values)
            return _ratio(np.where(there, values, 0).sum(axis=0), there.sum(axis=0) * 1.0)

        return statistic

    return make


def _label_ece(columns: Columns) -> Statistic:
    """Of the confidence max(p, 1 − p) in each known label, those of all images pooled."""
    truth, p = columns["truth"], columns["probability"]
    known = ~np.isnan(truth)
    confidence = np.maximum(p, 1 - p)
    correct = np.where(np.isnan(p), math.nan, (p > 0.5) == (truth > 0.5))
    bins = np.clip(np.ceil(np.nan_to_num(confidence) * CALIBRATION_BINS), 1, CALIBRATION_BINS)
    gaps = np.zeros((len(truth), CALIBRATION_BINS))
    rows, labels = np.nonzero(known)
    cells = (rows, bins[rows, labels].astype(int) - 1)
    np.add.at(gaps, cells, (correct - confidence)[rows, labels])
    return _binned(gaps, known.sum(axis=1) * 1.0)


def _label_accuracy(columns: Columns) -> Statistic:
    truth, p = columns["truth"], columns["probability"]
    known = ~np.isnan(truth)
    right = np.where(np.isnan(p), math.nan, (p > 0.5) == (truth > 0.5))
    amount, count = np.where(known, right, 0).sum(axis=1), known.sum(axis=1) * 1.0
    return lambda weights: _ratio(weights @ amount, weights @ count)


def _one_average_precision(score: NDArray[Any], positive: NDArray[np.bool_]) -> Statistic:
    """Σ (R_i − R_{i−1}) P_i over the distinct scores, from the highest; NaN without a positive."""
    order = np.argsort(-score, kind="stable")
    # Where each run of equal scores ends.
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    mine = positive[order]
    broken = bool(np.isnan(score).any())

    def statistic(weights: Floats) -> Floats:
        if broken or not len(order):
            return np.full(len(weights), math.nan)
        ordered = weights[:, order]
        hits = np.cumsum(ordered * mine, axis=1)[:, ends]
        drawn = np.cumsum(ordered, axis=1)[:, ends]
        precision = np.divide(hits, drawn, out=np.zeros_like(hits), where=drawn > 0)
        gained = np.diff(hits, axis=1, prepend=0)
        return _ratio((gained * precision).sum(axis=1), hits[:, -1])

    return statistic


def _one_nll(p: NDArray[Any], positive: NDArray[np.bool_]) -> Statistic:
    return _mean(-np.log(np.where(positive, p, 1 - p).clip(NLL_CLAMP, 1 - NLL_CLAMP)))


def _one_brier(p: NDArray[Any], positive: NDArray[np.bool_]) -> Statistic:
    return _mean((p - positive) ** 2)


def _nll(columns: Columns) -> Statistic:
    return _mean(-np.log(columns["probability_of_truth"].clip(NLL_CLAMP, 1 - NLL_CLAMP)))


def _brier(columns: Columns) -> Statistic:
    p = columns["probability"]
    miss = p - (columns["truth"][:, None] == np.arange(p.shape[1]))
    return _mean((miss**2).sum(axis=1) / 2)


#: By a metric's own name, of the columns of `tasks.segmentation`.
SEGMENTATION: Mapping[str, Callable[[Columns], Statistic]] = {
    "dice_lesion": _dice_lesion,
    "false_alarms": _false_alarms,
    "dice": _dice,
    "iou": _iou,
    "dice_micro": _dice_micro,
    "ece": lambda c: _binned(c["gap"], c["pixels"]),
    "ece_region": lambda c: _binned(c["region_gap"], c["region_pixels"]),
    "brier": lambda c: _mean(c["brier"]),
    "ause": lambda c: _mean(c["ause"]),
}
#: Of the columns of `tasks.classification`.
CLASSIFICATION: Mapping[str, Callable[[Columns], Statistic]] = {
    "accuracy": lambda c: _mean(c["correct"]),
    "balanced_accuracy": _balanced,
    "auroc": _auroc,
    "ece": _class_ece,
    "nll": _nll,
    "brier": _brier,
}
#: Of the columns of `tasks.multilabel`.
MULTILABEL: Mapping[str, Callable[[Columns], Statistic]] = {
    "accuracy": _label_accuracy,
    "auroc": _over_labels(_one_auroc),
    "average_precision": _over_labels(_one_average_precision),
    "ece": _label_ece,
    "nll": _over_labels(_one_nll),
    "brier": _over_labels(_one_brier),
}
