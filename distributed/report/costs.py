"""What a run cost, and how its hypervolume grew with that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distributed.run.folder import COST_PREFIX, PEAKS, Run, total_cost
from distributed.run.ledger import SEARCH, Record, State

#: Steps of the hypervolume that are all drawn; of more, those at which it rises.
MOST_STEPS = 1_000


@dataclass(frozen=True)
class Cost:
    """One kind of cost.

    Attributes:
        name: Of the metric.
        median, most: Of one trial.
        search, seeds: Of all trials of either stage together; NaN for a stage without any.
        trials: How many have it.
    """

    name: str
    median: float
    most: float
    search: float
    seeds: float
    trials: int

    @property
    def repeated(self) -> bool:
        return not math.isnan(self.seeds)


@dataclass(frozen=True)
class Growth:
    """The hypervolume after each of s finished trials, and what had been spent by then.

    `spent` holds s values per axis, by the axis' title; the first axis is always there.
    """

    ids: list[str]
    hypervolume: list[float]
    spent: dict[str, list[float]]


def costs(run: Run) -> list[Cost]:
    """Every cost that some trial has, in the order in which trials name them."""
    ended = [t for t in run.trials if t.state is not State.RUNNING]
    names = dict.fromkeys(m for t in ended for m in t.metrics if m.startswith(COST_PREFIX))
    return [_cost(name, [t for t in ended if name in t.metrics]) for name in names]


def growth(run: Run) -> Growth:
    """The hypervolume over trials, time and every cost that adds up."""
    steps = run.history
    spent = {"trials finished": [float(s.trial) for s in steps]}
    # As in `hypervolume.csv`.
    spent["seconds since the start"] = [round(s.seconds, 3) for s in steps]
    spent |= _cumulated(run, np.array([s.seconds for s in steps]))
    kept = list(range(len(steps)))
    if len(steps) > MOST_STEPS:
        rises = {i for i in kept[1:] if steps[i].hypervolume > steps[i - 1].hypervolume}
        kept = sorted({0, *rises, len(steps) - 1})
    return Growth(
        ids=[steps[i].id for i in kept],
        hypervolume=[steps[i].hypervolume for i in kept],
        spent={title: [values[i] for i in kept] for title, values in spent.items()},
    )


def _cost(name: str, trials: list[Record]) -> Cost:
    values = [t.metrics[name] for t in trials]
    search, seeds = (
        total_cost(name, [t for t in trials if (t.stage == SEARCH) == searched])
        for searched in (True, False)
    )
    return Cost(name, float(np.median(values)), max(values), search, seeds, len(trials))


def _cumulated(run: Run, times: np.ndarray) -> dict[str, list[float]]:
    """What the search's trials that had ended by each time had cost, the stopped ones as well."""
    ended = [t for t in run.search if t.state is not State.RUNNING]
    ended.sort(key=lambda t: t.ended)
    place = np.searchsorted([t.ended for t in ended], times, side="right")
    names = [c.name for c in costs(run) if c.name not in PEAKS]
    result = {}
    for name in names:
        sums = np.cumsum([0.0, *(t.metrics.get(name, 0.0) for t in ended)])
        if sums[-1] > 0:
            result[f"{name}, all trials together"] = sums[place].tolist()
    return result
