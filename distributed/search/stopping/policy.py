"""What a policy of early stopping for several objectives is; free of Ray, so it can be replayed.

A policy sees what each trial measured at its rungs and what trials that ran to the end arrived at.
Its state depends on the sequence of calls alone: fed the same calls again it decides the same,
which is how an interrupted search comes back as it was.
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
        stop: It has no hope.
        reason: Why, in a sentence that a report can print; empty where it goes on.
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
        """Take in what a trial measured at a rung (from 0); whether it goes on.

        A trial may skip rungs; each rung is reported at most once, in ascending order.
        """

    @abstractmethod
    def end(self, trial: str, metrics: Metrics | None) -> None:
        """A trial ended: at its full length with these final metrics, or without any (None).

        A trial that was told to stop is not ended again.
        """
