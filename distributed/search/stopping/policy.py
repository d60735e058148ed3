"""The interface of early-stopping policies for several objectives; free of Ray, so replayable.

A policy sees the metrics of each trial at its rungs, and the final ones of trials that ran to the
end. Its state depends only on the sequence of calls: replaying them restores an interrupted search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trustsweep.distributed.statistics.front import Objective

#: Names to metrics; a missing one counts as NaN, which is worst.
Metrics = Mapping[str, float]


class Bound(Protocol):
    """A constraint on a metric, such as `trustsweep.search_spaces.study.Constraint`."""

    @property
    def metric(self) -> str: ...

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side; at most 0 when the bound is kept."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Whether a trial goes on after a rung.

    Attributes:
        stop: Whether to stop it.
        reason: Why, for the report; empty where it goes on.
        dominated_by: The ids of the trials that leave it behind.
    """

    stop: bool = False
    reason: str = ""
    dominated_by: tuple[str, ...] = field(default=())


class Policy(ABC):
    """Decides at each rung whether a trial goes on.

    Args:
        objectives: What the front is made of, with their directions.
        constraints: Bounds; a trial that breaks one ranks below every trial that breaks none.
        rungs: How many rungs a full trial passes before its end.
        seed: Of whatever a policy draws.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Bound] = (),
        *,
        rungs: int,
        seed: int = 0,
    ) -> None:
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.rungs = rungs
        self.seed = seed

    @abstractmethod
    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        """Enter a trial's metrics at a rung (from 0) and decide whether it goes on.

        A trial may skip rungs; each rung is reported at most once, in ascending order.
        """

    @abstractmethod
    def end(self, trial: str, metrics: Metrics | None) -> None:
        """A trial ended: at its full length with these final metrics, or without any (None).

        Not called for a trial that `report` stopped.
        """
