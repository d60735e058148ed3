"""The cost of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.folder import Run, cost_names, total_cost
from trustsweep.distributed.run.ledger import SEARCH, Record, State


@dataclass(frozen=True)
class CostSummary:
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


class CostSection(Section[list[CostSummary]]):
    def gather(self, run: Run) -> list[CostSummary]:
        return costs(run)


def costs(run: Run) -> list[CostSummary]:
    """Every cost that some trial has, in the order in which trials name them."""
    ended = [t for t in run.trials if t.state is not State.RUNNING]
    return [_cost(n, [t for t in ended if n in t.metrics]) for n in cost_names(ended)]


def _cost(name: str, trials: list[Record]) -> CostSummary:
    values = [t.metrics[name] for t in trials]
    search, seeds = (
        total_cost(name, [t for t in trials if (t.stage == SEARCH) == searched])
        for searched in (True, False)
    )
    return CostSummary(name, float(np.median(values)), max(values), search, seeds, len(trials))
