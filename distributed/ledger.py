"""The ledger of a run: append-only JSON lines that say what became of each trial.

Exactly one result per trial id is accepted; `trials.csv`, `front.csv` and `hypervolume.csv` are
views that are written anew from it. A torn last line (a kill while writing) is left out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from data_pipelines.errors import UserError
from data_pipelines.machine import write_atomically

LEDGER = "ledger.jsonl"


class State(StrEnum):
    """What became of a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One trial. `metrics` are those of its last epoch; `reason` says why it failed or stopped.

    `seconds` is what the trial took, `ended` when it ended, in seconds after the run began.
    """

    id: str
    config: dict[str, Any]
    state: State = State.RUNNING
    reason: str = ""
    epochs: int = 0
    seconds: float = 0.0
    ended: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


def trial_id(config: Mapping[str, Any], data_fingerprint: str, version: str) -> str:
    """The name of a trial: a hash of all that its figures depend on (the seed is in the config)."""
    text = json.dumps([dict(config), data_fingerprint, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Ledger:
    """The records of one run folder, in the order in which the trials ended.

    Raises `UserError` for a ledger with an unreadable line before its last.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / LEDGER
        self.records: dict[str, Record] = {}
        self._torn_bytes = 0
        if self._path.is_file():
            self._read()

    def start(self, record: Record) -> None:
        """Note that a trial runs. A trial that has ended stays ended."""
        if record.id not in self.records:
            self._append(record)

    def end(self, record: Record) -> bool:
        """Accept a trial's result; False if it already has one."""
        known = self.records.get(record.id)
        if known is not None and known.state is not State.RUNNING:
            return False
        self._append(record)
        return True

    def of(self, state: State) -> list[Record]:
        """The trials in that state, in order."""
        return [r for r in self.records.values() if r.state is state]

    def write_trials(self, path: Path) -> None:
        """`trials.csv`: a row per trial, `config.*` and `metric.*` columns, empty where absent."""
        records = list(self.records.values())
        configs = _names(r.config for r in records)
        metrics = _names(r.metrics for r in records)
        header = ["id", "state", "reason", "epochs", "seconds"]
        header += [f"config.{n}" for n in configs] + [f"metric.{n}" for n in metrics]
        rows = [
            [r.id, r.state.value, r.reason, r.epochs, round(r.seconds, 3)]
            + [r.config.get(n, "") for n in configs]
            + [r.metrics.get(n, "") for n in metrics]
            for r in records
        ]
        write_csv(path, header, rows)

    def _append(self, record: Record) -> None:
        # A trial's place is where it ended, not where it began.
        self.records.pop(record.id, None)
        self.records[record.id] = record
        line = json.dumps({**record.__dict__, "state": record.state.value})
        if self._torn_bytes:
            os.truncate(self._path, self._path.stat().st_size - self._torn_bytes)
            self._torn_bytes = 0
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        lines = self._path.read_text(encoding="utf-8").split("\n")
        torn = lines.pop()  # empty when the last line is whole
        for number, line in enumerate(lines, start=1):
            try:
                raw = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{self._path}: line {number} is unreadable; restore the file from a backup."
                ) from error
            record = Record(**{**raw, "state": State(raw["state"])})
            self.records.pop(record.id, None)
            self.records[record.id] = record
        self._torn_bytes = len(torn.encode())


def write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    """Replace a CSV file as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every key, in the order of first appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
