"""Ranks trials by several objectives.

Trials stand in three tiers: those that keep every bound, those that break one (by how much), and
those with a figure that is no number. The first tier is sorted into fronts, each front by what its
members add to it; or, "scalarised", by the mean of its objectives, each from 0 for the best to 1
for the worst of the tier. Within a front metrics enter as ranks among the trials compared, so that
order depends neither on a metric's unit nor on any monotone rescaling of it; the scalarised one
does not depend on unit and origin.

Source: Schmucker, Donini, Zafar, Salinas, Archambeau (2021), "Multi-objective asynchronous
successive halving"; Emmerich, Beume, Naujoks (2005), "An EMO algorithm using the hypervolume
measure as selection criterion", for the contribution to the hypervolume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from trustsweep.distributed.search.stopping.policy import Bound, Metrics
from trustsweep.distributed.statistics.front import Direction, Floats, Objective, hypervolume

Ranking: TypeAlias = Literal["hypervolume", "epsilon-net", "scalarised"]
Indices: TypeAlias = NDArray[np.intp]


def losses_of(metrics: Metrics, objectives: Sequence[Objective]) -> Floats:
    """A trial's objectives, (m,), signed so that smaller is better; NaN where missing."""
    signs = [-1.0 if o.direction == "max" else 1.0 for o in objectives]
    values = [metrics.get(o.name, np.nan) for o in objectives]
    return np.multiply(signs, values)


def violations_of(metrics: Metrics, constraints: Sequence[Bound]) -> Floats:
    """By how much a trial breaks each bound, (c,), at most 0 where it keeps it; NaN if unknown."""
    return np.array([c.violation(metrics.get(c.metric, np.nan)) for c in constraints], dtype=float)


def rank(losses: Floats, violations: Floats, method: Ranking = "hypervolume") -> Indices:
    """The trials from best to worst.

    Args:
        losses: (n, m), smaller is better; NaN is worst.
        violations: (n, c) by how much each trial breaks each bound, at most 0 where it keeps it.
        method: What goes first within a front: what adds most hypervolume to it, or what lies
            farthest from those before it (ε-net). "scalarised" sorts without fronts; what
            dominates another comes before it all the same.

    Returns:
        (n,) indices; of equals, the first stays first.
    """
    excess = np.where(is_broken(losses, violations), np.inf, total_violation(violations))
    counted = max(1, np.isfinite(excess).sum())
    points = rankdata(losses, method="dense", axis=0, nan_policy="omit") / counted
    if method == "scalarised":
        whole = np.flatnonzero(excess == 0)
        ranked = [whole[np.argsort(_scalarised(losses[whole]), kind="stable")]]
    else:
        ranked = [front[_within(points[front], method)] for front in fronts(losses, excess == 0)]
    behind = np.flatnonzero(excess > 0)
    ranked.append(behind[np.argsort(excess[behind], kind="stable")])
    return np.concatenate(ranked)


def is_broken(losses: Floats, violations: Floats) -> NDArray[np.bool_]:
    """Which of n trials have a figure that is no number."""
    return np.asarray(np.isnan(np.hstack([losses, violations])).any(axis=1))


def total_violation(violations: Floats) -> Floats:
    """By how much each trial breaks its bounds: (n, c) to (n,), 0 where it keeps them all.

    Each bound counts in units of the worst violation of it, whatever the unit of its metric.
    """
    positive = np.nan_to_num(np.maximum(violations, 0.0), nan=0.0)
    worst = positive.max(axis=0, initial=0.0)
    total: Floats = (positive / np.where(worst > 0, worst, 1.0)).sum(axis=1)
    return total


def dominates(losses: Floats, others: Floats) -> NDArray[np.bool_]:
    """Whether row i of (n, m) is no worse than row j of (k, m) everywhere and better somewhere."""
    no_worse = (losses[:, None] <= others[None]).all(axis=2)
    better = (losses[:, None] < others[None]).any(axis=2)
    return np.asarray(no_worse & better)


def fronts(losses: Floats, among: NDArray[np.bool_]) -> list[Indices]:
    """Non-dominated sorting of the rows of `losses` (n, m) that `among` (n,) names: indices by
    front, the best first. O(n² m) time and memory.
    """
    left = np.flatnonzero(among)
    beats = dominates(losses[left], losses[left])
    beaten_by = beats.sum(axis=0)
    layers = []
    while (free := np.flatnonzero(beaten_by == 0)).size:
        layers.append(left[free])
        beaten_by -= beats[free].sum(axis=0)
        beaten_by[free] = -1
    return layers


def _within(points: Floats, method: Ranking) -> Indices:
    """The order within a front of (n, m) points in (0, 1]."""
    if method == "epsilon-net":
        return _farthest_first(points)
    return np.argsort(-_contributions(points), kind="stable")


def _scalarised(losses: Floats) -> Floats:
    """The mean of the objectives, each from 0 (best) to 1 (worst): (n, m) to (n,).

    What is infinite lies beyond the range of what is not, a whole extent of it.
    """
    finite = np.isfinite(losses)
    low = losses.min(axis=0, initial=np.inf, where=finite)
    high = losses.max(axis=0, initial=-np.inf, where=finite)
    low, high = (np.where(np.isfinite(end), end, 0.0) for end in (low, high))
    extent = np.where(high > low, high - low, 1.0)
    within = (np.clip(losses, low, high) - low) / extent
    return np.asarray((within + (losses > high) - (losses < low)).mean(axis=1))


def _contributions(points: Floats) -> Floats:
    """The hypervolume that is lost without each point: (n, m) in (0, 1] to (n,).

    The reference lies a whole extent beyond the worst point, so that the ends of a front, which
    nothing else covers, go first.
    """
    if points.shape[1] == 2:
        return _contributions_2d(points)
    directions: list[Direction] = ["min"] * points.shape[1]
    reference = [2.0] * points.shape[1]
    whole = hypervolume(points, directions, reference)
    rests = (np.delete(points, i, axis=0) for i in range(len(points)))
    return np.array([whole - hypervolume(rest, directions, reference) for rest in rests])


def _contributions_2d(points: Floats) -> Floats:
    """The same in closed form: what lies between a point and its neighbours along the front."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    x, y = points[order].T
    widths = np.append(x[1:], 2.0) - x
    heights = np.insert(y[:-1], 0, 2.0) - y
    contributions = np.empty(len(points))
    contributions[order] = widths * heights
    return contributions


def _farthest_first(points: Floats) -> Indices:
    """Greedy ε-net: the best of the first objective, then always what is farthest from the rest."""
    chosen = [int(np.lexsort(points.T[::-1])[0])]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < len(points):
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.intp)
