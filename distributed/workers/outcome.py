"""The keys of a slot's config and result, and how a result is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trustsweep.distributed.run.ledger import State

#: Keys of a Tune config: a trial's id, its parameters, and whether it may be stopped at its rungs.
TRIAL, CONFIG, STOPPABLE = "trial", "config", "stoppable"
#: Keys of a result: the figures so far, whether they are final, the rung that they were measured
#: at, why the trial failed, and what failed outside of it.
METRICS, FINISHED, RUNG, FAILED, OUTSIDE = "metrics", "finished", "rung", "failed", "outside"
#: Among the metrics of an evaluation: 1 where a trial's patience has run out.
EXHAUSTED = "exhausted"


@dataclass(frozen=True)
class Outcome:
    """The state that a trial is in, and why if it failed."""

    state: State
    reason: str = ""


def metrics_of(result: Mapping[str, Any] | None) -> dict[str, float]:
    """The figures of a result, as a slot returned it or flattened by Tune."""
    result = result or {}
    if isinstance(nested := result.get(METRICS), Mapping):
        return dict(nested)
    prefix = f"{METRICS}/"
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def outcome(result: Mapping[str, Any], objectives: Sequence[str]) -> Outcome:
    """Read a trial's result; one that is not final leaves it running."""
    if result.get(FAILED):
        return Outcome(State.FAILED, str(result[FAILED]))
    if not result.get(FINISHED):
        return Outcome(State.RUNNING)
    metrics = metrics_of(result)
    for name in objectives:
        if not math.isfinite(metrics.get(name, math.nan)):
            return Outcome(State.FAILED, f"objective {name} is {metrics.get(name, 'missing')}")
    return Outcome(State.COMPLETED)
