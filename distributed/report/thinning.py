"""Thins out long runs for the page: everything would be too much for a browser.

The front is always shown whole; `trials.csv` has the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record

Item = TypeVar("Item")

#: Figures (trials times metrics) up to which every metric of every trial is on the page.
MOST_CELLS = 200_000
#: Rows of a table of trials or repeats.
MOST_ROWS = 500
#: Models in a table of the front, or beside each other in that of every metric.
MOST_MODELS = 12
#: Lines of the parallel coordinates.
MOST_LINES = 500
#: Trials that the importances are worked out from: their cost grows with the square.
MOST_SAMPLES = 250


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, in order, as evenly spaced as can be, both ends among them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def thinned(trials: Sequence[Record], most: int, keep: Collection[str]) -> list[Record]:
    """At most so many trials in their order: those whose ids are in `keep`, the others evenly.

    At least half are others, so that of a very long front a part is left out as well.
    """
    if len(trials) <= most:
        return list(trials)
    kept = evenly([t.id for t in trials if t.id in keep], most // 2)
    others = [t.id for t in trials if t.id not in keep]
    chosen = {*kept, *evenly(others, most - len(kept))}
    return [t for t in trials if t.id in chosen]


def shown_metrics(run: Run) -> list[str]:
    """The metrics that can be picked and read on the page, the objectives first.

    In a long run those of one corruption or one ε ("@") are left out, but for objectives and
    constraints.
    """
    names = list(run.metrics)
    if len(names) * len(run.trials) <= MOST_CELLS:
        return names
    needed = {o.name for o in run.objectives} | {c.metric for c in run.constraints}
    return [n for n in names if "@" not in n or n in needed]
