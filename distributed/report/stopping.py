"""Which trials were stopped early, when, by what they were left behind, and what that saved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pydantic import ValidationError

from distributed.run_folder import Run, Trial
from search_spaces.study import Scheduler


@dataclass(frozen=True)
class Stop:
    """A trial that was stopped after `trial.epochs` of the `length` epochs that it asked for.

    `length` is None where its configuration does not say, `rung` (from 0) where it stopped at
    none that the study names.
    """

    trial: Trial
    length: int | None
    rung: int | None


@dataclass(frozen=True)
class Stops:
    """What early stopping did in a run.

    Attributes:
        policy: As the study names it; "" where it does not.
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
        """The trials that left others behind, and how many, most first."""
        return Counter(i for stop in self.stops for i in stop.trial.dominated_by).most_common()


def stops(run: Run) -> Stops:
    """Read what the run's trials and its study say of early stopping."""
    scheduler = _scheduler(run)
    told = []
    for trial in run.stopped:
        length = _length(trial)
        rungs = scheduler.rung_epochs(length) if scheduler and length else {}
        told.append(Stop(trial, length, rungs.get(int(trial.epochs))))
    ended = [t for t in (*run.completed, *run.stopped) if _length(t)]
    return Stops(
        policy=scheduler.policy if scheduler else "",
        stops=told,
        trained=sum(int(t.epochs) for t in ended),
        full=sum(_length(t) or 0 for t in ended),
    )


def _scheduler(run: Run) -> Scheduler | None:
    """None where the study says nothing that this version understands."""
    search = run.study.get("search")
    stated = search.get("scheduler") if isinstance(search, dict) else None
    try:
        return None if stated is None else Scheduler.model_validate(stated)
    except ValidationError:
        return None


def _length(trial: Trial) -> int | None:
    epochs = trial.config.get("epochs")
    return int(epochs) if isinstance(epochs, float) else None
