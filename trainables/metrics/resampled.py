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


#: Events that are compared with all patients at once.
_BLOCK = 256


def survival_likelihood(columns: Columns) -> NDArray[np.float64]:
    """(n,) of what was observed: S_{k−1} − S_k of an event in interval k, S_k of one censored
    there."""
    rows, place = np.arange(len(columns["time"])), columns["interval"].astype(int)
    survival = np.pad(columns["survival"], ((0, 0), (1, 0)), constant_values=1.0)
    after = survival[rows, place + 1]
    return np.where(columns["event"] == 1, survival[rows, place] - after, after)


def kaplan_meier(time: NDArray[Any], event: NDArray[Any]) -> tuple[NDArray[Any], Floats]:
    """The product-limit estimate (Kaplan & Meier 1958, JASA 53) of (n,) times and events, 0 or 1.

    Returns:
        The different times, ascending, and the share that has no event up to each of them.
    """
    times, place = np.unique(time, return_inverse=True)
    died = np.bincount(place, event, len(times))
    at_risk = np.bincount(place, minlength=len(times))[::-1].cumsum()[::-1]
    return times, np.cumprod(1 - died / at_risk)


class _Censoring:
    """G, the Kaplan-Meier estimate of not being censored yet, in resamples of n patients.

    At equal times events come before censoring, so that G(T) of an event is that just before it.
    """

    def __init__(self, columns: Columns) -> None:
        censored = columns["event"] == 0
        self._order = np.lexsort((censored, columns["time"]))
        self._places = np.argsort(self._order)
        self._censored = censored[self._order]
        self._intervals = np.sort(columns["interval"])

    def estimate(self, weights: Floats) -> Floats:
        """(r, n + 1), in the order of times: G behind each patient, the first 1."""
        ordered = weights[:, self._order]
        at_risk = np.cumsum(ordered[:, ::-1], axis=1)[:, ::-1]
        lost = ordered * self._censored
        share = np.divide(lost, at_risk, out=np.zeros_like(lost), where=at_risk > 0)
        # Rounding of the sum must not leave a little of what is lost as a whole.
        share[np.isclose(share, 1, atol=1e-12)] = 1
        ends = np.cumprod(1 - share, axis=1)
        return np.concatenate([np.ones((len(ends), 1)), ends], axis=1)

    def at_own(self, estimate: Floats) -> Floats:
        """(r, n): G(T) of each patient, who is taken to have the event."""
        return estimate[:, self._places]

    def at_edge(self, estimate: Floats, interval: int) -> Floats:
        """(r,): G where an interval begins."""
        return estimate[:, np.searchsorted(self._intervals, interval)]


def _inverse(values: Floats) -> Floats:
    """1 / values, 0 where they are 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


def _edge_weights(columns: Columns, weights: Floats) -> list[tuple[NDArray[np.bool_], Floats]]:
    """For each inner edge, (n,) who was followed beyond it, and (r, n) weights w times `weights`;
    see `metrics.survival.SurvivalMetrics`."""
    censoring = _Censoring(columns)
    estimate = censoring.estimate(weights)
    own = _inverse(censoring.at_own(estimate)) * (columns["event"] == 1)
    edges = []
    for edge in range(1, columns["survival"].shape[1]):
        alive = columns["interval"] >= edge
        beyond = _inverse(censoring.at_edge(estimate, edge))[:, None]
        edges.append((alive, weights * np.where(alive, beyond, own)))
    return edges


def _integrated_brier(columns: Columns) -> Statistic:
    survival = columns["survival"]

    def statistic(weights: Floats) -> Floats:
        total = np.zeros(len(weights))
        edges = _edge_weights(columns, weights)
        for place, (alive, theirs) in enumerate(edges):
            total += theirs @ (alive - survival[:, place]) ** 2
        return _ratio(total / max(len(edges), 1), weights.sum(axis=1))

    return statistic


def _survival_bin(probability: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) to (n, 15): which of 15 equal bins each lies in."""
    places = np.clip(np.ceil(np.nan_to_num(probability) * CALIBRATION_BINS), 1, CALIBRATION_BINS)
    return np.eye(CALIBRATION_BINS)[places.astype(int) - 1]


def _survival_ece(columns: Columns) -> Statistic:
    survival = columns["survival"]

    def statistic(weights: Floats) -> Floats:
        gaps, total = np.zeros((len(weights), CALIBRATION_BINS)), np.zeros(len(weights))
        for place, (alive, theirs) in enumerate(_edge_weights(columns, weights)):
            gap = (alive - survival[:, place])[:, None] * _survival_bin(survival[:, place])
            gaps += theirs @ gap
            total += theirs.sum(axis=1)
        return _ratio(np.abs(gaps).sum(axis=1), total)

    return statistic


def survival_bins(columns: Columns) -> tuple[Floats, Floats, Floats]:
    """By bin of the predicted survival, (15,) each: the sum of the weights, of the predicted
    survival, and of who survived, over patients and inner edges."""
    weight, predicted, observed = np.zeros((3, CALIBRATION_BINS))
    once = np.ones((1, len(columns["time"])))
    for place, (alive, theirs) in enumerate(_edge_weights(columns, once)):
        survival = columns["survival"][:, place]
        bins = theirs.T * _survival_bin(survival)
        weight += bins.sum(axis=0)
        predicted += survival @ bins
        observed += alive @ bins
    return weight, predicted, observed


def _concordance(columns: Columns, weighted: bool) -> Statistic:
    """Over pairs of an event and whoever is known to have lived longer; takes as long as there are
    such pairs."""
    time, event, risk = columns["time"], columns["event"], columns["risk"]
    first = np.flatnonzero(event == 1)
    censoring = _Censoring(columns)

    def statistic(weights: Floats) -> Floats:
        if np.isnan(risk).any():
            return np.full(len(weights), math.nan)
        factors = weights
        if weighted:
            factors = weights * _inverse(censoring.at_own(censoring.estimate(weights)) ** 2)
        pairs, right = np.zeros(len(weights)), np.zeros(len(weights))
        for block in (first[start : start + _BLOCK] for start in range(0, len(first), _BLOCK)):
            mine, level = time[block, None], risk[block, None]
            later = ((time > mine) | ((time == mine) & (event == 0))).astype(np.float64)
            better = later * ((risk < level) + 0.5 * (risk == level))
            own = factors[:, block]
            pairs += (own * (weights @ later.T)).sum(axis=1)
            right += (own * (weights @ better.T)).sum(axis=1)
        return _ratio(right, pairs)

    return statistic


def _of_known(make: Callable[[Columns], Statistic]) -> Callable[[Columns], Statistic]:
    """A statistic of the patients whose time is known."""

    def of(columns: Columns) -> Statistic:
        known = ~np.isnan(columns["time"])
        inner = make({name: values[known] for name, values in columns.items()})
        return lambda weights: inner(weights[:, known])

    return of


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
#: Of the columns of `tasks.survival`.
SURVIVAL: Mapping[str, Callable[[Columns], Statistic]] = {
    "c_index": _of_known(lambda c: _concordance(c, weighted=False)),
    "c_index_ipcw": _of_known(lambda c: _concordance(c, weighted=True)),
    "integrated_brier": _of_known(_integrated_brier),
    "ece": _of_known(_survival_ece),
    "nll": _of_known(lambda c: _mean(-np.log(survival_likelihood(c).clip(NLL_CLAMP, 1)))),
}
