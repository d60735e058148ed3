"""What a Tune result means: the one reading that the sampler, the ledger and the display share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed.ledger import State
from distributed.slot import FAILED, FINISHED, METRICS


@dataclass(frozen=True)
class Outcome:
    """The state that a trial ended in, and why if it did not complete."""

    state: State
    reason: str = ""


def metrics_of(result: Mapping[str, Any] | None) -> dict[str, float]:
    """The figures of a result, as a slot returned it or flattened by Tune for searchers."""
    result = result or {}
    if isinstance(nested := result.get(METRICS), Mapping):
        return dict(nested)
    prefix = f"{METRICS}/"
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def outcome(
    result: Mapping[str, Any] | None, objectives: Sequence[str], error: str = ""
) -> Outcome:
    """Read a trial's last result. `error` is the exception that ended it, if one did."""
    if error:
        return Outcome(State.FAILED, error)
    if not result:
        return Outcome(State.FAILED, "ended without a result")
    if result.get(FAILED):
        return Outcome(State.FAILED, str(result[FAILED]))
    if not result.get(FINISHED):
        return Outcome(State.STOPPED, "stopped by the scheduler")
    metrics = metrics_of(result)
    for name in objectives:
        if not math.isfinite(metrics.get(name, math.nan)):
            return Outcome(State.FAILED, f"objective {name} is {metrics.get(name, 'missing')}")
    return Outcome(State.COMPLETED)
