"""The ledger of a run: append-only JSON lines with the result of each trial.

The first line states the format of the run folder. Each other one is an event: a session of the
sweep began, a trial was suggested, it finished an epoch, it ended, the session closed. Exactly one
result per trial id is accepted; the tables of a run folder are exports that can be written anew
from here. A torn last line (a kill while writing) is left out.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.version import VERSION

LEDGER = "ledger.jsonl"
_LOCK = ".lock"
#: Version of the format of a run folder; raise it when keys of its files, or their meaning, change.
RUN_FORMAT = 3

#: Kinds of events; the first line alone is of the kind `FORMAT`.
FORMAT = "format"
SESSION, START, EPOCH, END, PRIOR = "session", "start", "epoch", "end", "prior"
CLOSE = "close"
#: Stages of a sweep: the search, and training its front again under other seeds.
SEARCH, SEEDS = "search", "seeds"


class State(StrEnum):
    """The state of a trial."""

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
        draw: Notes of the sampler from when it drew the config.
        state, reason: Its state, and why it did not complete.
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
    ledger of another format (`RUN_FORMAT`), and for one with an unreadable line before its last.
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
        #: How the last session closed: "seconds" of the whole sweep, and "interrupted", why it is
        #: not at its end (None where it is). None while a session is going on, and after a kill.
        self.closed: dict[str, Any] | None = None
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

    def close(self, seconds: float, interrupted: str | None) -> None:
        """Note that the session is over, after so many seconds of all sessions together.

        `interrupted` says why the sweep is not at its end.
        """
        event = {"event": CLOSE, "seconds": seconds, "interrupted": interrupted}
        self._append(event, durable=True)

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
        """Note a finished epoch, with its metrics if a rung stands at its end."""
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
                    kind = event["event"]
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(
                        f"{self._path}: line {number} is unreadable; restore the file from a "
                        "backup."
                    ) from error
                if number == 1:
                    self._check_format(kind, event)
                self._whole = file.tell()
                if number > 1:
                    yield event

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
        self.closed = None
        for event in self.events():
            try:
                self._take(event)
            except (TypeError, KeyError, ValueError) as error:  # a key or kind that is not known
                raise self._of_another_version(f"unreadable event: {error}") from error

    def _check_format(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind != FORMAT:
            began = f", begun by trustsweep {event['version']}" if "version" in event else ""
            raise self._of_another_version(f"none stated{began}")
        if event.get("version") != RUN_FORMAT:
            raise self._of_another_version(
                f"{event.get('version')}, written by trustsweep {event.get('trustsweep')}"
            )

    def _of_another_version(self, version: str) -> UserError:
        return UserError(
            f"{self._path.parent}: a run folder of another version (format: {version}; trustsweep "
            f"{VERSION} reads format {RUN_FORMAT}). Open it with the trustsweep that wrote it, or "
            "run its study again in a new folder."
        )

    def _append(self, event: dict[str, Any], durable: bool = False) -> None:
        """Write an event. Only events that could not be recovered wait for the disk (`durable`).

        All that was written before an event is on disk with it: an epoch that a machine loses with
        its power is one that nothing durable has followed.

        Raises OSError if it could not be written; the file is as before then.
        """
        lines = json.dumps(event).encode() + b"\n"
        if not self._whole:
            head = {"event": FORMAT, "version": RUN_FORMAT, "trustsweep": VERSION}
            lines = json.dumps(head).encode() + b"\n" + lines
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(self._whole)  # a torn line of an earlier session
        try:
            if self._file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._whole)
            error.filename = error.filename or str(self._path)
            raise
        self._whole += len(lines)
        self._take(_parse(lines.splitlines()[-1]))

    def _take(self, event: dict[str, Any]) -> None:
        """Bring the records up to an event."""
        kind = event.pop("event")
        if kind == SESSION:
            self.sessions.append(event)
            self.closed = None
        elif kind == CLOSE:
            self.closed = {key: event[key] for key in ("seconds", "interrupted")}
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
        else:
            raise ValueError(f"{kind!r} is no kind of event")


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
