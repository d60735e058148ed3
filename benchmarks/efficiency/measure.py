"""What a search had for what it spent, measured from the median trial of full-length sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from replay import Played

from distributed.front import Direction, hypervolume
from efficiency.problem import Floats, Problem

#: Of the full hypervolume, from which on a search counts as there.
ENOUGH = 0.95
#: Quantile of the runs' final hypervolumes that is to reach 0.98 of the full one.
LOW = 0.05
_POINTS = 81

#: way to seed to history
Runs = Mapping[str, Mapping[int, Sequence[Played]]]


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
        cls, history: Sequence[Played], directions: Sequence[Direction], reference: Floats
    ) -> Trace:
        ended = [played for played in history if not played.stopped]
        values = np.array([played.values for played in ended])
        point = reference.tolist()
        volume = [hypervolume(values[: i + 1], directions, point) for i in range(len(ended))]
        spent = np.array([played.spent for played in ended])
        return cls(spent, np.array(volume), history[-1].spent)

    @property
    def final(self) -> float:
        """Hypervolume at the end."""
        return float(self.volume[-1]) if len(self.volume) else 0.0

    def cost_to(self, volume: float) -> float:
        """What had been spent when the hypervolume was reached; infinite if it never was."""
        if volume <= 0:
            return 0.0
        reached = np.flatnonzero(self.volume >= volume)
        return float(self.spent[reached[0]]) if len(reached) else np.inf

    def at(self, spent: Floats) -> Floats:
        """The hypervolume that there was when so much had been spent."""
        steps = np.searchsorted(self.spent, spent, side="right")
        return np.concatenate([[0.0], self.volume])[steps]


@dataclass(frozen=True)
class Measured:
    """All runs of a problem.

    Attributes:
        reference: (m,) the point that hypervolumes are measured from.
        traces: Way to seed to trace.
        baseline: The way whose runs are the full-length sweeps.
    """

    problem: Problem
    reference: Floats
    traces: Mapping[str, Mapping[int, Trace]]
    baseline: str

    @classmethod
    def of(cls, problem: Problem, runs: Runs, median_of: str = "random") -> Measured:
        """The baseline is OptunaSearch, or a pool's whole in random order.

        The reference is, per objective, the quantile `problem.reference` (the median) of the final
        values of all trials of all runs of the full-length way `median_of`: the same for all ways
        and seeds. Of random trials, it is a model that anybody has without a search.
        """
        baseline = "optuna" if problem.pool is None else "random"
        median_of = median_of if problem.pool is None else "random"
        finals = np.concatenate([finals_of(run) for run in runs[median_of].values()])
        signs = np.array([1.0 if o.direction == "min" else -1.0 for o in problem.objectives])
        reference = signs * np.nanquantile(signs * finals, problem.reference, axis=0)
        directions = [o.direction for o in problem.objectives]
        traces = {
            way: {seed: Trace.of(run, directions, reference) for seed, run in of_way.items()}
            for way, of_way in runs.items()
        }
        return cls(problem, reference, traces, baseline)

    @property
    def full(self) -> Mapping[int, Trace]:
        """The full-length sweeps, by seed."""
        return self.traces[self.baseline]

    def to_dict(self) -> dict[str, Any]:
        """Everything that tables and figures need, as plain values."""
        problem = self.problem
        names = [o.name for o in problem.objectives]
        return {
            "name": problem.name,
            "objectives": {o.name: o.direction for o in problem.objectives},
            "steps": list(problem.steps),
            "unit": problem.unit,
            "reference": dict(zip(names, self.reference.tolist(), strict=True)),
            "full_cost": _median([trace.total for trace in self.full.values()]),
            "full_hypervolume": _median([trace.final for trace in self.full.values()]),
            "rows": [
                *(self._row(way, traces) for way, traces in self.traces.items()),
                self._chance(),
            ],
            "curves": {way: self._curve(traces) for way, traces in self.traces.items()},
        }

    def _chance(self) -> dict[str, Any]:
        """The row of the baseline's runs, each against the full-length sweep of the next seed.

        What the same search with other luck would score: 0.98 of one sweep's hypervolume in 95 %
        of runs is no fair demand where this falls short of it.
        """
        seeds = list(self.full)
        others = [self.full[s] for s in (*seeds[1:], seeds[0])]
        shifted = dict(zip(seeds, others, strict=True))
        return self._row(f"{self.baseline}, another seed", shifted)

    def _curve(self, traces: Mapping[int, Trace]) -> dict[str, list[float]]:
        """Quartiles over runs of the hypervolume, and the cost, as shares of the full sweep's.

        A way that spent less stands still from there on; its curve ends where its last run did.
        """
        end = max(trace.total / self.full[seed].total for seed, trace in traces.items())
        cost = np.linspace(0, end, _POINTS)
        volumes = [
            trace.at(cost * self.full[seed].total) / self.full[seed].final
            for seed, trace in traces.items()
        ]
        low, middle, high = np.quantile(volumes, [0.25, 0.5, 0.75], axis=0)
        columns = {"cost": cost, "low": low, "median": middle, "high": high}
        return {name: np.round(column, 4).tolist() for name, column in columns.items()}

    def _row(self, way: str, traces: Mapping[int, Trace]) -> dict[str, Any]:
        """Figures of a way over its runs, each against the full-length sweep of its seed."""
        full = self.full
        goals = {seed: ENOUGH * full[seed].final for seed in traces}
        costs = {seed: trace.cost_to(goals[seed]) for seed, trace in traces.items()}
        shares = [costs[seed] / full[seed].total for seed in traces]
        ratios = [costs[seed] / full[seed].cost_to(goals[seed]) for seed in traces]
        finals = [trace.final / full[seed].final for seed, trace in traces.items()]
        return {
            "problem": self.problem.name,
            "way": way,
            "runs": len(traces),
            "reached": float(np.mean(np.isfinite(shares))),
            "cost": _median(shares),
            "ratio": _median(ratios),
            "spent": _median([t.total / full[s].total for s, t in traces.items()]),
            "final": float(np.median(finals)),
            "final_low": float(np.quantile(finals, LOW)),
        }


def finals_of(history: Sequence[Played]) -> Floats:
    """(n, m) final values of the trials that ran to the end."""
    return np.array([played.values for played in history if not played.stopped])


def _median(values: Sequence[float]) -> float | None:
    """The median, the upper of the middle two; None where it is infinite."""
    middle = float(np.quantile(values, 0.5, method="higher"))
    return middle if np.isfinite(middle) else None
