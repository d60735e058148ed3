"""Figures of a split with their 95 % intervals, from what each of its samples scored.

Patients are redrawn, not images: those of one patient resemble each other. Whatever is a mean over
images is resampled as one; AUROC, balanced accuracy and calibration error are computed anew from
each resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.inspection.counted import UNKNOWN, group_value
from trustsweep.data_pipelines.schema import Task
from trustsweep.distributed.statistics.inference import Estimate, Floats, Statistic, bootstrap
from trustsweep.trainables.evaluation import CLEAN, EvaluationPlan
from trustsweep.trainables.metrics.calibration import CALIBRATION_BINS
from trustsweep.trainables.metrics.catalog import (
    AREAS,
    NLL_CLAMP,
    SKILL,
    attacked_name,
    corrupted_name,
    leaf,
    metric_info,
)
from trustsweep.trainables.metrics.skill import TrivialMetrics, best_trivial, skill
from trustsweep.trainables.sample_scores import SampleScores

Columns: TypeAlias = Mapping[str, NDArray[Any]]

#: Samples below which nothing is said of a group.
LEAST_IN_GROUP = 50


def headline_names(task: Task, plan: EvaluationPlan, asked: Iterable[str]) -> list[str]:
    """What a study asks for, and every metric here of clean images and of the strongest attack."""
    conditions = dict.fromkeys((CLEAN, attacked_name(max(plan.epsilons))))
    every = [f"{condition}.{leaf}" for condition in conditions for leaf in STATISTICS[task]]
    return list(dict.fromkeys([*asked, *every]))


def estimates(
    scores: SampleScores,
    plan: EvaluationPlan,
    names: Iterable[str],
    patients: Sequence[Hashable],
    kept: NDArray[np.bool_] | None = None,
    trivial: TrivialMetrics | None = None,
) -> dict[str, Estimate]:
    """Figures by their full names, those left out that samples' scores do not tell.

    Args:
        scores: Of n samples.
        plan: What it was judged under.
        names: Such as "dice_area", "clean.auroc", "attacked.dice".
        patients: Of each sample.
        kept: (n,) the samples to judge by; all if None.
        trivial: What the trivial predictors reach on the split, for skills: the interval is that of
            the model against the best of them as it stands.
    """
    there = np.ones(len(patients), dtype=bool) if kept is None else kept
    chosen = [patient for patient, here in zip(patients, there, strict=True) if here]
    found: dict[str, Estimate] = {}
    wanted = list(names)
    skills = [name for name in wanted if name.startswith(f"{SKILL}.")]
    plain = [name.removeprefix(f"{SKILL}.") for name in skills]
    for name in dict.fromkeys([*plain, *(n for n in wanted if n not in skills)]):
        own, weights = _terms(name, plan)
        make = STATISTICS[scores.task].get(own)
        if make is None or not weights or not weights.keys() <= {*scores.conditions}:
            continue
        parts = [
            (weight, make({k: v[there] for k, v in scores.columns(condition).items()}))
            for condition, weight in weights.items()
        ]
        found[name] = bootstrap(_combined(parts), chosen)
    for name, of in zip(skills, plain, strict=True):
        if of in found:
            found[name] = _skill(of, found[of], trivial or {})
    return {name: found[name] for name in wanted if name in found}


def _skill(name: str, value: Estimate, trivial: TrivialMetrics) -> Estimate:
    info = metric_info(name)
    reference = best_trivial(trivial, leaf(name))[1]
    ends = (skill(end, reference, info) for end in (value.value, value.low, value.high))
    middle, *others = ends
    return Estimate(middle, min(others), max(others))


def group_estimates(
    scores: SampleScores, plan: EvaluationPlan, patients: Sequence[Hashable]
) -> dict[str, Any]:
    """Figures of each group of at least `LEAST_IN_GROUP` samples, clean and at their worst.

    Returns:
        - least: `LEAST_IN_GROUP`.
        - conditions: "clean" and, where anything was perturbed, the condition under which the
          whole split has the lowest Dice or balanced accuracy.
        - rows: for each group "group" (the column), "value", "images", "patients" and "figures",
          by full name an `Estimate`.
        Empty without such a group.
    """
    main, *others = GROUP_METRICS[scores.task]
    make = STATISTICS[scores.task][main]
    once = np.ones((1, len(patients)))

    def merit(condition: str) -> float:
        value = float(make(scores.columns(condition))(once)[0])
        return math.inf if math.isnan(value) else value

    worse = [condition for condition in scores.conditions if condition != CLEAN]
    conditions = [CLEAN, *([min(worse, key=merit)] if worse else [])]
    names = [f"{condition}.{leaf}" for condition in conditions for leaf in (main, *others)]
    rows = []
    for group, values in scores.groups.items():
        told = np.array([group_value(group, value) for value in values])
        for value in sorted({*told} - {UNKNOWN}):
            kept = told == value
            if kept.sum() < LEAST_IN_GROUP:
                continue
            who = {patient for patient, here in zip(patients, kept, strict=True) if here}
            rows.append(
                {
                    "group": group, "value": str(value), "images": int(kept.sum()),
                    "patients": len(who), "figures": estimates(scores, plan, names, patients, kept),
                }
            )  # fmt: skip
    return {"least": LEAST_IN_GROUP, "conditions": conditions, "rows": rows} if rows else {}


def _terms(name: str, plan: EvaluationPlan) -> tuple[str, dict[str, float]]:
    """A metric's own name, and the conditions whose mean it is, with their weights."""
    if name in AREAS:
        epsilons = np.array(plan.epsilons)
        if len(epsilons) < 2:
            return "", {}
        steps = np.diff(epsilons) / epsilons[-1] / 2
        heights = np.append(steps, 0) + np.insert(steps, 0, 0)
        weights = zip(map(attacked_name, plan.epsilons), heights.tolist(), strict=True)
        return name.removesuffix("_area"), dict(weights)
    condition, _, leaf = name.rpartition(".")
    several = {
        "corrupted": [corrupted_name(*cell) for cell in plan.corruptions],
        "attacked": [attacked_name(epsilon) for epsilon in plan.budgets],
    }
    members = several.get(condition, [condition])
    return leaf, {member: 1 / len(members) for member in members}


def _combined(parts: Sequence[tuple[float, Statistic]]) -> Statistic:
    """The weighted sum of several, over the same resamples."""

    def statistic(weights: Floats) -> Floats:
        values = [share * part(weights) for share, part in parts]
        return np.asarray(np.sum(values, axis=0), dtype=np.float64)

    return statistic


def _ratio(amount: Floats, count: Floats, empty: float = math.nan) -> Floats:
    """Of (r,) sums; `empty` where there is nothing of either."""
    filled = np.divide(amount, count, out=np.full(amount.shape, math.nan), where=count != 0)
    return np.where((count == 0) & (amount == 0), empty, filled)


def _mean(values: NDArray[Any]) -> Statistic:
    return lambda weights: _ratio(weights @ values, weights.sum(axis=1))


def _some(values: NDArray[Any], counted: NDArray[Any]) -> Statistic:
    """The mean over some of the images; NaN for a resample without any."""
    amount, count = np.where(counted, values, 0).astype(np.float64), counted.astype(np.float64)
    return lambda weights: _ratio(weights @ amount, weights @ count)


def _micro(part: NDArray[Any], whole: NDArray[Any]) -> Statistic:
    return lambda weights: _ratio(weights @ part, weights @ whole, empty=1.0)


def _both(columns: Columns) -> NDArray[Any]:
    """Pixels of each image that are both lesion and prediction: Dice tells them."""
    return columns["dice"] * (columns["lesion_pixels"] + columns["predicted_pixels"]) / 2


def _iou(columns: Columns) -> Statistic:
    both = _both(columns)
    union = columns["lesion_pixels"] + columns["predicted_pixels"] - both
    return _mean(_ratio(both, union, empty=1.0))


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
    """Mean over the classes that a resample holds of the share of their images that is found."""
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


def _nll(columns: Columns) -> Statistic:
    return _mean(-np.log(columns["probability_of_truth"].clip(NLL_CLAMP, 1 - NLL_CLAMP)))


def _brier(columns: Columns) -> Statistic:
    p = columns["probability"]
    miss = p - (columns["truth"][:, None] == np.arange(p.shape[1]))
    return _mean((miss**2).sum(axis=1) / 2)


#: What samples' scores tell of a split, by a metric's own name.
STATISTICS: dict[Task, dict[str, Callable[[Columns], Statistic]]] = {
    Task.SEGMENTATION: {
        "dice_lesion": lambda c: _some(c["dice"], c["lesion_pixels"] > 0),
        "false_alarms": lambda c: _some(c["predicted_pixels"] > 0, c["lesion_pixels"] == 0),
        "dice": lambda c: _mean(c["dice"]),
        "iou": _iou,
        "dice_micro": lambda c: _micro(
            2 * _both(c), c["lesion_pixels"] + c["predicted_pixels"]
        ),
        "ece": lambda c: _binned(c["gap"], c["pixels"]),
        "ece_region": lambda c: _binned(c["region_gap"], c["region_pixels"]),
        "brier": lambda c: _mean(c["brier"]),
        "ause": lambda c: _mean(c["ause"]),
    },
    Task.CLASSIFICATION: {
        "accuracy": lambda c: _mean(c["correct"]),
        "balanced_accuracy": _balanced,
        "auroc": _auroc,
        "ece": _class_ece,
        "nll": _nll,
        "brier": _brier,
    },
}  # fmt: skip
#: What is told of groups; the first decides which condition is the worst.
GROUP_METRICS: dict[Task, tuple[str, ...]] = {
    Task.SEGMENTATION: ("dice_lesion", "false_alarms", "ece_region"),
    Task.CLASSIFICATION: ("balanced_accuracy", "auroc", "ece"),
}
