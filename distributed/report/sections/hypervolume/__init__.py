"""How the hypervolume grew with trials, time and what they cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.folder import PEAKS, Run, cost_names
from trustsweep.distributed.run.ledger import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Steps of the hypervolume that are all drawn; of more, those at which it rises.
MOST_STEPS = 1_000


@dataclass(frozen=True)
class Growth:
    """The hypervolume after each of s finished trials, and what had been spent by then.

    `spent` holds s values per axis, by the axis' title; the first axis is always there.
    """

    ids: list[str]
    hypervolume: list[float]
    spent: dict[str, list[float]]


class HypervolumeSection(Section[Growth]):
    figure = "hypervolume"

    def gather(self, run: Run) -> Growth:
        return growth(run)

    def payload(self, run: Run, data: Growth) -> dict[str, Any]:
        return {"growth": dataclasses.asdict(data)}

    def draw(self, run: Run, data: Growth) -> Figure | None:
        from trustsweep.distributed.report.sections.hypervolume.figure import draw

        return draw(data)


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


def _cumulated(run: Run, times: np.ndarray) -> dict[str, list[float]]:
    """The cumulative cost of the search's ended trials at each time, stopped ones included."""
    ended = [t for t in run.search if t.state is not State.RUNNING]
    ended.sort(key=lambda t: t.ended)
    place = np.searchsorted([t.ended for t in ended], times, side="right")
    names = [name for name in cost_names(run.trials) if name not in PEAKS]
    result = {}
    for name in names:
        sums = np.cumsum([0.0, *(t.metrics.get(name, 0.0) for t in ended)])
        if sums[-1] > 0:
            result[f"{name}, all trials together"] = sums[place].tolist()
    return result
