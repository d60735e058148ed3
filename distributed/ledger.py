"""The ledger of a run: append-only JSON lines that say what became of each trial.

A line is an event: a session of the sweep began, a trial was suggested, it finished an epoch, it
ended. Exactly one result per trial id is accepted; everything else in a run folder is a view that
can be written anew from here. A torn last line (a kill while writing) is left out.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from data_pipelines.errors import UserError
from data_pipelines.machine import write_atomically

LEDGER = "ledger.jsonl"
_LOCK = ".lock"

#: Kinds of events.
SESSION, START, EPOCH, END, PRIOR = "session", "start", "epoch", "end", "prior"
#: What a trial is for: finding the front, or training a model of it again under another seed.
SEARCH, SEEDS = "search", "seeds"


class State(StrEnum):
    """What became of a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One trial.

    Attributes:
        id: See `trial_id`.
        config: Flat parameters, the seed among them.
        number: Of the suggestion within its stage, from 0.
        stage: `SEARCH` or `SEEDS`.
        of: In stage `SEEDS` the id of the front's model that it repeats, or the name of one of
            the study's `references`.
        draw: What the sampler noted when it drew the config.
        state, reason: What became of it, and why if it did not complete.
        dominated_by: Trials that left a stopped one behind.
        epochs: Finished ones.
        seconds: Of training and evaluation.
        ended: Seconds of the sweep until it ended, over all its sessions.
        metrics: Those of its last epoch.
        rungs: Objectives and constrained metrics at each rung that it passed.
        code: Revision of the code that trained it (`distributed.version.code_revision`); several
            with ", " between them where it went on under another. Empty where it is not known.
    """

    id: str
    config: dict[str, Any]
    number: int = 0
    stage: str = SEARCH
    of: str = ""
    draw: dict[str, Any] = field(default_factory=dict)
    state: State = State.RUNNING
    reason: str = ""
    dominated_by: tuple[str, ...] = ()
    epochs: int = 0
    seconds: float = 0.0
    ended: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    code: str = ""


def trial_id(
    config: Mapping[str, Any], data_fingerprint: str, code: str, evaluation: Mapping[str, Any]
) -> str:
    """The name of a trial: a hash of all that its figures depend on (the seed is in the config).

    `code` is the revision of the code, `evaluation` the study's section of that name.
    """
    text = json.dumps([dict(config), data_fingerprint, code, dict(evaluation)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Ledger:
    """The records of one run folder, in the order in which the trials ended.

    Reading needs no permission; before the first write, `lock` the run. Raises `UserError` for a
    ledger with an unreadable line before its last.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / LEDGER
        self._file: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._whole = 0
        self.records: dict[str, Record] = {}
        #: Of an earlier run, for the sampler alone.
        self.priors: list[Record] = []
        self.sessions: list[dict[str, Any]] = []
        self._read()

    def lock(self) -> None:
        """Keep other processes from writing here, until this one ends.

        Raises `UserError` if another one does.
        """
        self._lock = self._path.with_name(_LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._path.parent}: another sweep is writing here. Wait for it, or end it."
            ) from None
        except OSError:
            # A file system without locks; who shares one takes care of this himself.
            self._lock = None
        # Whoever held the lock may have written since.
        self._read()

    def session(self, **about: Any) -> None:
        """Note that a sweep begins here, or goes on."""
        self._append({"event": SESSION, **about}, durable=True)

    def prior(self, record: Record) -> None:
        """Keep a trial of another run, which the sampler learns from."""
        self._append({"event": PRIOR, **asdict(record)})

    def start(self, record: Record) -> None:
        """Note that a trial was suggested. One that is known already stays as it is."""
        if record.id not in self.records:
            keys = ("id", "number", "stage", "of", "config", "draw")
            self._append({"event": START, **{key: getattr(record, key) for key in keys}})

    def epoch(
        self,
        trial: str,
        epochs: int,
        seconds: float,
        rung: int | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Note a finished epoch, and what was measured if a rung stands at its end."""
        known = self.records[trial]
        if known.state is State.RUNNING and epochs > known.epochs:
            event = {"event": EPOCH, "id": trial, "epochs": epochs, "seconds": seconds}
            if rung is not None:
                event |= {"rung": rung, "figures": dict(figures or {})}
            self._append(event)

    def end(self, record: Record) -> bool:
        """Accept a trial's result; False if it already has one."""
        known = self.records.get(record.id)
        if known is None:
            self.start(record)
        elif known.state is not State.RUNNING:
            return False
        keys = ("id", "state", "reason", "dominated_by", "epochs", "seconds", "ended", "metrics")
        self._append({"event": END, **{key: getattr(record, key) for key in keys}}, durable=True)
        return True

    def of(self, state: State, stage: str | None = None) -> list[Record]:
        """The trials in that state (of that stage), in order."""
        return [r for r in self.records.values() if r.state is state and stage in (None, r.stage)]

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event of the file, in the order in which it happened."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    event = _parse(line)
                    event["event"]
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(
                        f"{self._path}: line {number} is unreadable; restore the file from a "
                        "backup."
                    ) from error
                self._whole = file.tell()
                yield event

    def write_trials(self, path: Path) -> None:
        """`trials.csv`: a row per trial, `config.*` and `metric.*` columns, empty where absent."""
        records = list(self.records.values())
        configs = _names(r.config for r in records)
        metrics = _names(r.metrics for r in records)
        header = ["id", "number", "stage", "of", "state", "reason", "dominated_by"]
        header += ["epochs", "seconds", "ended", "code"]
        header += [f"config.{n}" for n in configs] + [f"metric.{n}" for n in metrics]
        rows = (
            [r.id, r.number, r.stage, r.of, r.state.value, r.reason, " ".join(r.dominated_by)]
            + [r.epochs, round(r.seconds, 3), round(r.ended, 3), r.code]
            + [r.config.get(n, "") for n in configs]
            + [r.metrics.get(n, "") for n in metrics]
            for r in records
        )
        write_csv(path, header, rows)

    @property
    def _code(self) -> str:
        """The revision of the code of the session that is under way."""
        return str(self.sessions[-1].get("code", "")) if self.sessions else ""

    def _read(self) -> None:
        """Bring the records up to the file."""
        self._whole = 0
        self.records.clear()
        self.priors.clear()
        self.sessions.clear()
        for event in self.events():
            self._take(event)

    def _append(self, event: dict[str, Any], durable: bool = False) -> None:
        """Write an event. Only what could not be found out again waits for the disk (`durable`).

        All that was written before an event is on disk with it: an epoch that a machine loses with
        its power is one that nothing durable has followed.

        Raises OSError if it could not be written; the file is as before then.
        """
        line = json.dumps(event).encode() + b"\n"
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(self._whole)  # a torn line of an earlier session
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._whole)
            error.filename = error.filename or str(self._path)
            raise
        self._whole += len(line)
        self._take(_parse(line))

    def _take(self, event: dict[str, Any]) -> None:
        """Bring the records up to an event."""
        kind = event.pop("event")
        if kind == SESSION:
            self.sessions.append(event)
        elif kind == PRIOR:
            self.priors.append(_record(event))
        elif kind == START:
            self.records[event["id"]] = replace(_record(event), code=self._code)
        elif kind == EPOCH:
            known = self.records[event["id"]]
            if self._code and self._code not in known.code.split(", "):
                event["code"] = f"{known.code}, {self._code}" if known.code else self._code
            rung = event.pop("rung", None)
            figures = event.pop("figures", {})
            rungs = known.rungs if rung is None else {**known.rungs, rung: figures}
            self.records[event["id"]] = replace(known, **event, rungs=rungs)
        elif kind == END:
            # A trial's place is where it ended, not where it began.
            known = self.records.pop(event["id"])
            self.records[event["id"]] = replace(known, **_typed(event))


def _parse(line: bytes) -> Any:
    """JSON whose keys are kept once for all trials."""
    return json.loads(line, object_pairs_hook=lambda pairs: {sys.intern(k): v for k, v in pairs})


def _record(raw: Mapping[str, Any]) -> Record:
    rungs = {int(rung): figures for rung, figures in raw.get("rungs", {}).items()}
    return Record(**{**_typed(raw), "rungs": rungs})


def _typed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields as JSON gives them, with the types they have here."""
    types = {"state": State, "dominated_by": tuple}
    return {key: types[key](value) if key in types else value for key, value in raw.items()}


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
