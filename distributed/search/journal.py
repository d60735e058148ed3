"""`optuna-journal.log`: the ended trials for optuna-dashboard. A view of the ledger only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial

from trustsweep.distributed.run.ledger import SEARCH, Ledger, Record, State
from trustsweep.distributed.search.sampling import directions
from trustsweep.distributed.statistics.front import Objective

JOURNAL = "optuna-journal.log"


class Journal:
    """The journal of one run, written in batches; nothing of it stays in memory but the ids.

    What the dashboard adds to it (notes, tags) stays, unless the file is not what the ledger says:
    then it is rewritten.

    Args:
        run: The folder that it lies in.
        name: Of the study.
        objectives: With their directions.
        as_optuna: Makes an Optuna trial of an ended record (`Sampling.as_optuna`); raises
            ValueError for one that the space does not have, which is left out.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        objectives: Sequence[Objective],
        as_optuna: Callable[[Record], FrozenTrial],
    ) -> None:
        self._path = run / JOURNAL
        self._name = name
        self._objectives = objectives
        self._as_optuna = as_optuna
        self._written: set[str] | None = None

    def write(self, ledger: Ledger) -> None:
        """Append the trials of the search that have ended since. Raises OSError."""
        if self._written is None:
            self._written = self._begin(ledger)
        ended = [record for record in _ended(ledger) if record.id not in self._written]
        if ended:
            known, self._written = self._written, None  # not to be relied on while it is written
            self._append(self._lines(ended))
            self._written = known.union(record.id for record in ended)

    def _begin(self, ledger: Ledger) -> set[str]:
        """The ids in the file; a file that does not match the ledger is rewritten."""
        records = _ended(ledger)
        shown = self._shown()
        if shown is not None:
            expected = [trial for record in records if (trial := self._trial(record))]
            if shown == [_essence(trial) for trial in expected[: len(shown)]]:
                return {trial.user_attrs["id"] for trial in expected[: len(shown)]}
        self._path.unlink(missing_ok=True)
        self._append(self._study()[1].logs)
        return set()

    def _shown(self) -> list[tuple[Any, ...]] | None:
        """The trials in the file, None where there is no such study in it, or a torn line."""
        if not self._path.is_file() or not self._path.read_bytes().endswith(b"\n"):
            return None
        try:
            storage = JournalStorage(JournalFileBackend(str(self._path)))
            study = optuna.load_study(study_name=self._name, storage=storage)
        except (ValueError, KeyError, TypeError):
            return None
        same = study.directions == directions(self._objectives)
        return [_essence(trial) for trial in study.get_trials(deepcopy=False)] if same else None

    def _study(self) -> tuple[optuna.Study, _Lines]:
        """An empty study of this name, and what a journal holds of it."""
        lines = _Lines()
        study = optuna.create_study(
            study_name=self._name,
            storage=JournalStorage(lines),
            directions=directions(self._objectives),
        )
        study.set_metric_names([o.name for o in self._objectives])
        return study, lines

    def _lines(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """The lines to append to a journal that already holds this study."""
        study, lines = self._study()
        head = len(lines.logs)
        for record in records:
            if (trial := self._trial(record)) is not None:
                study.add_trial(trial)
        return lines.logs[head:]

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if lines:  # of none, Optuna would write an empty line, which it cannot read
            # Under Optuna's own lock, as the dashboard may be writing there.
            JournalFileBackend(str(self._path)).append_logs(lines)

    def _trial(self, record: Record) -> FrozenTrial | None:
        try:
            trial = self._as_optuna(record)
        except ValueError:
            return None
        assert trial.datetime_complete is not None
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=record.seconds)
        return trial


class _Lines(BaseJournalBackend):
    """A journal in memory, to be written to a file in one go."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs.extend(logs)


def _ended(ledger: Ledger) -> list[Record]:
    return [
        record
        for record in ledger.records.values()
        if record.stage == SEARCH and record.state is not State.RUNNING
    ]


def _essence(trial: FrozenTrial) -> tuple[Any, ...]:
    """All that a trial says but for when it was written down."""
    return trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs
