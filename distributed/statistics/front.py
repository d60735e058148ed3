"""Pareto fronts and the volume they dominate.

Values are (n, m): n models, m objectives. A direction per objective says which way is better;
inside this file every column is turned so that smaller is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction: TypeAlias = Literal["max", "min"]
Floats: TypeAlias = NDArray[np.float64]
Key = TypeVar("Key")

#: How far beyond the worst front value the reference lies, as a share of the front's extent.
MARGIN = 0.1


@dataclass(frozen=True)
class Objective:
    """A metric that a study optimises, and which way it is better."""

    name: str
    direction: Direction


def pareto_mask(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which of n models no other model beats: (n, m) values to (n,) bool.

    A model is beaten by one that is at least as good everywhere and better somewhere, so models
    with equal values stay on the front together. A model with a NaN is never on it and beats
    nobody. O(n² m) time, O(n m) memory.
    """
    losses = losses_of(values, directions)
    usable: NDArray[np.bool_] = np.logical_not(np.isnan(losses).any(axis=1))
    mask = usable.copy()
    for i in np.flatnonzero(usable):
        no_worse = (losses[usable] <= losses[i]).all(axis=1)
        better = (losses[usable] < losses[i]).any(axis=1)
        mask[i] = not (no_worse & better).any()
    return mask


class Archive(Generic[Key]):
    """The front of what was added so far, kept up to date at O(front) a model."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._directions = directions
        self.keys: list[Key] = []
        self.values: Floats = np.empty((0, len(directions)))

    def add(self, key: Key, values: ArrayLike) -> bool:
        """Take in a model, (m,); whether it is on the front. A NaN never is."""
        candidates = np.vstack([self.values, np.asarray(values, dtype=np.float64)])
        losses = losses_of(candidates, self._directions)
        front, new = losses[:-1], losses[-1]
        no_worse, no_better = (front <= new).all(axis=1), (new <= front).all(axis=1)
        if np.isnan(new).any() or (no_worse & ~no_better).any():
            return False
        stay = np.append(~no_better | no_worse, True)
        self.keys = [k for k, on in zip([*self.keys, key], stay, strict=True) if on]
        self.values = candidates[stay]
        return True


def hypervolume(
    values: ArrayLike, directions: Sequence[Direction], reference: Sequence[float]
) -> float:
    """Volume between a front and the reference point, in the product of the objectives' units.

    Models with a NaN, or no better than the reference in some objective, add nothing. 0.0 for no
    model at all. Source: While, Bradstreet, Barone (2012), "A fast way of calculating exact
    hypervolumes", through Optuna.
    """
    losses, corner = losses_of(values, directions), losses_of([reference], directions)[0]
    # NaN compares false, so this drops unusable models as well.
    inside = losses[(losses < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    # Loads Optuna, which the dry run of a study does without.
    from trustsweep.distributed import optuna_internals

    volume = optuna_internals.hypervolume(inside, corner)
    return sliced_volume(inside, corner) if volume is None else volume


def sliced_volume(losses: Floats, corner: Floats) -> float:
    """Volume dominated by (n, m) losses below `corner`, by sweeping along the last objective.

    Exact, O(n^(m-1) log n): what `hypervolume` uses where Optuna's private routine is gone.
    """
    if losses.shape[1] == 1:
        return float(corner[0] - losses.min())
    ordered = losses[np.argsort(losses[:, -1], kind="stable")]
    depths = np.diff(ordered[:, -1], append=corner[-1])
    return float(
        sum(
            depth * sliced_volume(ordered[: i + 1, :-1], corner[:-1])
            for i, depth in enumerate(depths)
            if depth > 0
        )
    )


def reference_point(
    values: ArrayLike,
    directions: Sequence[Direction],
    bounds: Sequence[tuple[float | None, float | None]],
) -> tuple[float, ...]:
    """The point that the hypervolume is measured from, one number per objective.

    Rule: the worst end of the metric's own range (`bounds`: low, high; None or infinite where
    open) wherever that is finite, so that sweeps over the same metrics can be compared. For an
    open end, 10 % of the front's extent beyond the front's worst value (its nadir); where the
    front has no extent, 10 % of that value, and 0.1 beside a value of 0.

    Raises ValueError if an end is open and no model has all its values.
    """
    table = _table(values, len(directions))
    front = table[pareto_mask(table, directions)]
    point = []
    for column, direction, (low, high) in zip(front.T, directions, bounds, strict=True):
        worst_end = low if direction == "max" else high
        if worst_end is not None and np.isfinite(worst_end):
            point.append(float(worst_end))
            continue
        if not column.size:
            raise ValueError("an objective without a worst end needs at least one finished model")
        nadir = column.min() if direction == "max" else column.max()
        margin = MARGIN * (float(np.ptp(column)) or abs(nadir) or 1.0)
        point.append(float(nadir - margin if direction == "max" else nadir + margin))
    return tuple(point)


def hypervolume_history(
    values: ArrayLike, directions: Sequence[Direction], reference: Sequence[float]
) -> Floats:
    """Hypervolume after each of n models, in the order of `values`: (n, m) to (n,), rising."""
    table = _table(values, len(directions))
    archive: Archive[int] = Archive(directions)
    volume = 0.0
    history = np.empty(len(table))
    for i, row in enumerate(table):
        if archive.add(i, row):
            # Rounding must not let the curve dip when a model replaces its near-equal.
            volume = max(volume, hypervolume(archive.values, directions, reference))
        history[i] = volume
    return history


def _table(values: ArrayLike, objectives: int) -> Floats:
    """Values as (n, m) float64; an empty input has n = 0. Raises ValueError for another shape."""
    table = np.asarray(values, dtype=np.float64)
    if not table.size:
        return np.empty((0, objectives))
    if table.ndim != 2 or table.shape[1] != objectives:
        raise ValueError(f"values of shape {table.shape} do not fit {objectives} objectives")
    return table


def losses_of(values: ArrayLike, directions: Sequence[Direction]) -> Floats:
    """(n, m) values turned so that smaller is better; turned twice, they are as they were.

    Raises ValueError for an unknown direction or another shape.
    """
    unknown = set(directions) - {"max", "min"}
    if unknown:
        raise ValueError(f"direction {unknown.pop()!r} is neither 'max' nor 'min'")
    signs = np.array([-1.0 if d == "max" else 1.0 for d in directions])
    return _table(values, len(directions)) * signs
