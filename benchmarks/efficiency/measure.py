"""What a search had for what it spent, evaluations included, with intervals over its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from efficiency.problem import Floats, Problem
from efficiency.ways import TrialOutcome
from trustsweep.distributed.statistics.front import Direction, hypervolume

#: Of the goal's hypervolume, from which on a search counts as there.
ENOUGH = 0.95
_RESAMPLES = 2000
_LEVEL = 0.95

#: Name of a way to seed to history.
Runs = Mapping[str, Mapping[int, Sequence[TrialOutcome]]]


@dataclass(frozen=True)
class Trace:
    """Hypervolume against cost of one run.

    Attributes:
        spent: (n,) cost when each of the n trials that ran to the end did so, ascending.
        volume: (n,) hypervolume of all that had ended by then.
        total: Cost of the whole run.
    """

    spent: Floats
    volume: Floats
    total: float

    @classmethod
    def of(
        cls,
        history: Sequence[TrialOutcome],
        directions: Sequence[Direction],
        reference: Floats,
        weight: float = 1.0,
    ) -> Trace:
        """`weight` multiplies what evaluations cost; 0 leaves them out."""
        each = [t.training + weight * t.evaluations * t.evaluation for t in history]
        spent = np.cumsum(each)
        ended = [i for i, trial in enumerate(history) if trial.rung is None]
        values = np.array([history[i].values for i in ended])
        point = reference.tolist()
        volume = [hypervolume(values[: i + 1], directions, point) for i in range(len(ended))]
        return cls(spent[ended], np.array(volume), float(spent[-1]))

    @property
    def final(self) -> float:
        """Hypervolume at the end."""
        return float(self.volume[-1]) if len(self.volume) else 0.0

    def cost_to(self, volume: float) -> float:
        """What had been spent when the hypervolume was reached; infinite if it never was."""
        if volume <= 0:
            return 0.0
        reached = np.flatnonzero(self.volume >= volume)
        return float(self.spent[reached[0]]) if len(reached) else math.inf


@dataclass(frozen=True)
class Reached:
    """Runs of one way on one problem, by seed.

    Attributes:
        cost: (n,) until the goal, infinite where it was not reached.
        total: (n,) of the whole run.
        final: (n,) hypervolume at the end, as a share of the full one.
    """

    seeds: tuple[int, ...]
    cost: Floats
    total: Floats
    final: Floats

    def expected(self, rows: NDArray[np.intp] | slice = slice(None)) -> Floats:
        """The expected cost until the goal, of a search that is begun anew whenever it fails.

        All that was spent until the goal or to the end, over the number of runs that reached it
        (expected running time: Hansen, Auger, Ros, Mersmann, Tušar, Brockhoff 2021, "COCO", 4);
        infinite where none did. `rows` (..., n) are resamples of the runs: (...,).
        """
        cost, total = self.cost[rows], self.total[rows]
        count = np.isfinite(cost).sum(axis=-1)
        spent = np.minimum(cost, total).sum(axis=-1)
        return np.where(count > 0, spent / np.maximum(count, 1), np.inf)

    def only(self, seeds: Sequence[int]) -> Reached:
        """The runs of these seeds, in their order."""
        at = [self.seeds.index(seed) for seed in seeds]
        return Reached(tuple(seeds), self.cost[at], self.total[at], self.final[at])


def reached(problem: Problem, runs: Runs, baseline: str, weight: float = 1.0) -> dict[str, Reached]:
    """Every way's runs against goals that none of them set for itself.

    Hypervolumes are measured from the quantile `problem.reference` (the median) of the final values
    of all trials of the full-length random sweeps. A seed's goal is `ENOUGH` of the median final
    hypervolume of the `baseline` under all other seeds; of a pool, which every full-length sweep
    exhausts, of the pool's. So the baseline's own row says what it reaches under another seed.
    """
    finals = np.concatenate([finals_of(run) for run in runs["random none"].values()])
    signs = np.array([1.0 if o.direction == "min" else -1.0 for o in problem.objectives])
    reference = signs * np.nanquantile(signs * finals, problem.reference, axis=0)
    directions = [o.direction for o in problem.objectives]
    traces = {
        way: {seed: Trace.of(run, directions, reference, weight) for seed, run in of_way.items()}
        for way, of_way in runs.items()
    }
    ends = {seed: trace.final for seed, trace in traces[baseline].items()}

    def full(seed: int) -> float:
        others = [end for other, end in ends.items() if other != seed or problem.pool]
        return float(np.median(others))

    by_way = {}
    for way, of_way in traces.items():
        seeds = tuple(sorted(of_way))
        by_way[way] = Reached(
            seeds,
            np.array([of_way[s].cost_to(ENOUGH * full(s)) for s in seeds]),
            np.array([of_way[s].total for s in seeds]),
            np.array([of_way[s].final / full(s) for s in seeds]),
        )
    return by_way


def row(way: Reached, baseline: Reached) -> dict[str, Any]:
    """A way's figures, each with its 95 % interval: (value, low, high).

    `reached` is the share of runs (Wilson); `expected` the expected cost until the goal as a
    multiple of the baseline's, `spent` the whole cost as a share of the baseline's, `final` the
    median final hypervolume as a share of the full one (all three: paired bootstrap over seeds that
    both have).
    """
    seeds = [seed for seed in way.seeds if seed in baseline.seeds]
    mine, theirs = way.only(seeds), baseline.only(seeds)
    count = int(np.isfinite(mine.cost).sum())
    share = binomtest(count, len(seeds)).proportion_ci(_LEVEL, method="wilson")
    return {
        "runs": len(seeds),
        "reached": (count / len(seeds), float(share.low), float(share.high)),
        "expected": interval(lambda rows: ratio(mine, theirs, rows), len(seeds)),
        "spent": interval(
            lambda rows: mine.total[rows].sum(axis=-1) / theirs.total[rows].sum(axis=-1), len(seeds)
        ),
        "final": interval(lambda rows: np.median(mine.final[rows], axis=-1), len(seeds)),
    }


def cheaper(way: Reached, other: Reached) -> tuple[float, float, float]:
    """The share of seeds under which a way reaches the goal for less than the other, and its
    interval (Wilson). Where neither gets there, half counts."""
    seeds = [seed for seed in way.seeds if seed in other.seeds]
    mine, theirs = way.only(seeds).cost, other.only(seeds).cost
    wins = float((mine < theirs).sum() + 0.5 * (mine == theirs).sum())
    share = binomtest(round(wins), len(seeds)).proportion_ci(_LEVEL, method="wilson")
    return wins / len(seeds), float(share.low), float(share.high)


def finals_of(history: Sequence[TrialOutcome]) -> Floats:
    """(n, m) final values of the trials that ran to the end."""
    return np.array([trial.values for trial in history if trial.rung is None])


def ratio(mine: Reached, theirs: Reached, rows: NDArray[np.intp] | slice = slice(None)) -> Floats:
    """Expected costs, one as a multiple of the other; infinite where either is."""
    own, other = mine.expected(rows), theirs.expected(rows)
    return np.where(np.isfinite(other), own / np.where(np.isfinite(other), other, 1.0), np.inf)


def interval(figure: Callable[[Any], Floats], count: int) -> tuple[float, float, float]:
    """A figure of rows (..., count), and its percentile interval over bootstrap resamples."""
    draws = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    tail = (1 - _LEVEL) / 2
    # Infinite values sort last; interpolating with one would be no number.
    low, high = np.quantile(figure(draws), [tail, 1 - tail], method="closest_observation")
    return float(figure(np.arange(count))), float(low), float(high)
