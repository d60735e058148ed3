"""Learning curves played through a stopping policy, without training anything."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustsweep.distributed.search.stopping.policy import Policy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """How a trial ended.

    Attributes:
        spent: Cost of all that was trained so far, on every slot, this trial's included.
        trial: Its index.
        rung: Where it was stopped; None where it ran to the end.
        values: (m,) what it measured last: final values where it ran to the end.
        reason: Why it was stopped, in the policy's words.
    """

    spent: float
    trial: int
    rung: int | None
    values: Floats
    reason: str = ""

    @property
    def stopped(self) -> bool:
        return self.rung is not None


def play(
    policy: Policy,
    curves: Sequence[Floats] | Floats,
    costs: Sequence[Floats] | Floats,
    order: Iterable[int],
    *,
    slots: int = 1,
    names: Sequence[str] = (),
) -> Iterator[Played]:
    """Trials in the order they end, `slots` of them at once; lazy.

    `curves[trial]` is (rungs + 1, m): the figures `names` (by default the policy's objectives) at
    each rung and at the end. `costs[trial]` is (rungs + 1,): the cost from the trial's start to
    that point, which is also the time that it takes. The next trial is drawn from `order` when a
    slot is free, after the trial that freed it was yielded: a sampler that learns what is
    yielded may decide what comes next, and add its curve only then.
    """
    names = names or [o.name for o in policy.objectives]
    queue = iter(order)
    # (time, tie-break by start, trial, point of its curve that is reached then)
    running: list[tuple[float, int, int, int]] = []
    started, spent, now = 0, 0.0, 0.0
    while True:
        while len(running) < slots and (trial := next(queue, None)) is not None:
            heapq.heappush(running, (now + float(costs[trial][0]), started, trial, 0))
            started += 1
        if not running:
            return
        now, number, trial, point = heapq.heappop(running)
        cost, values = costs[trial], np.asarray(curves[trial][point], dtype=np.float64)
        spent += float(cost[point] - (cost[point - 1] if point else 0.0))
        figures = dict(zip(names, values.tolist(), strict=True))
        if point == len(cost) - 1:
            policy.end(str(trial), figures)
            yield Played(spent, trial, None, values)
            continue
        verdict = policy.report(str(trial), point, figures)
        if verdict.stop:
            yield Played(spent, trial, point, values, verdict.reason)
            continue
        step = float(cost[point + 1] - cost[point])
        heapq.heappush(running, (now + step, number, trial, point + 1))
