"""Trials that were stopped early: when, dominated by which, and the cost saved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record


@dataclass(frozen=True)
class Stop:
    """A trial that was stopped after `trial.epochs` of the `length` epochs of its config.

    `length` is None where its configuration does not say, `rung` (from 0) where it stopped at
    none that the study names.
    """

    trial: Record
    length: int | None
    rung: int | None


@dataclass(frozen=True)
class Stops:
    """The effect of early stopping in a run.

    Attributes:
        policy: As the study names it.
        stops: In the order in which they happened.
        trained, full: Epochs that the stopped and the completed trials of the search trained, and
            those that they would have trained at full length; both 0 where lengths are unknown.
    """

    policy: str
    stops: list[Stop]
    trained: int
    full: int

    @property
    def by_rung(self) -> list[tuple[int | None, int]]:
        """Rungs, ascending, and how many trials were stopped there; None stands for no rung."""
        counts = Counter(stop.rung for stop in self.stops)
        return sorted(counts.items(), key=lambda item: (item[0] is None, item[0]))

    @property
    def dominators(self) -> list[tuple[str, int]]:
        """Trials that dominate stopped ones, and how many, most first."""
        return Counter(i for stop in self.stops for i in stop.trial.dominated_by).most_common()


class StoppedSection(Section[Stops]):
    def gather(self, run: Run) -> Stops:
        return stops(run)


def stops(run: Run) -> Stops:
    """The early stopping of a run, from its trials and study."""
    scheduler = run.study.search.scheduler
    early = []
    for trial in run.stopped:
        length = _length(trial)
        rungs = scheduler.rung_epochs(length) if length else {}
        early.append(Stop(trial, length, rungs.get(trial.epochs)))
    ended = [t for t in (*run.completed, *run.stopped) if _length(t)]
    return Stops(
        policy=scheduler.policy,
        stops=early,
        trained=sum(t.epochs for t in ended),
        full=sum(_length(t) or 0 for t in ended),
    )


def _length(trial: Record) -> int | None:
    epochs = trial.config.get("epochs")
    return epochs if isinstance(epochs, int) else None
