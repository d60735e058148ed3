"""Sweeps in processes of their own, to be killed, and what must be the same whatever befalls them.

A sweep is watched by its ledger: things happen after so many lines of it, never after so many
seconds, as a slow machine is no defect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import yaml

from trustsweep.distributed.run.ledger import END, EPOCH, LEDGER, Ledger, State

STUDY = {
    "name": "chaos",
    "methods": ["unet"],
    "objectives": ["dice_area", "clean.brier"],
    "space": {"epochs": 6, "width": 4, "regime": "none", "corruption_fraction": 0.2},
    "search": {"trials": 10, "sampler": "tpe", "scheduler": "none"},
    "evaluation": {
        "epsilons": [0, 0.01],
        "attack": "fgsm",
        "final": "fast",
        "attack_steps": 1,
        "corruptions": ["gaussian-noise"],
        "severities": [3],
    },
    "resources": {"slots": 1, "gpus_per_worker": 0},
}
#: Seconds that a session may take to its end on a machine that has other things to do.
PATIENCE = 900.0


class Ended(NamedTuple):
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


@dataclass
class Session:
    """A call of `trustsweep sweep`, the leader of its own process group."""

    arguments: list[str]
    logs: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        self.logs.mkdir(parents=True)
        with (self.logs / "out").open("wb") as out, (self.logs / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("trustsweep")), "sweep", *self.arguments],
                env=environment | self.environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_for(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
        """Until the condition holds, while the process lives."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended before it should: {self.ended}"
            assert time.monotonic() < deadline, f"waited {seconds} s in vain: {self.ended}"
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL; returns when Ray's processes below it have followed.

        Its agents take a minute to notice, which has no bearing on the run: they are helped along.
        """
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, late = psutil.wait_procs(below, timeout=5)
        for process in late:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def finish(self, seconds: float = PATIENCE) -> Ended:
        """Wait for its own end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end in {seconds} s: {self.ended}") from None
        return self.ended

    def below(self, name: str) -> list[psutil.Process]:
        """The processes below it that Ray calls so."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if name in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def ended(self) -> Ended:
        out, err = ((self.logs / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return Ended(self.process.poll() or 0, out, err)


@dataclass
class Sweep:
    """A run of `STUDY`, in as many sessions as it takes."""

    run: Path
    study: Path
    data: str | Path
    changes: tuple[str, ...] = ()
    sessions: list[Session] = field(default_factory=list)

    def begin(self, **environment: str) -> Session:
        settings = [part for change in self.changes for part in ("--set", change)]
        where = ["--data", str(self.data), "--out", str(self.run)]
        return self._session([str(self.study), *where, *settings], environment)

    def resume(self, **environment: str) -> Session:
        return self._session(["--resume", str(self.run)], environment)

    def _session(self, arguments: list[str], environment: dict[str, str]) -> Session:
        logs = self.study.parent / self.run.parent.name / f"{len(self.sessions)}"
        self.sessions.append(Session(arguments, logs, environment))
        return self.sessions[-1]

    @property
    def lines(self) -> int:
        """Whole lines of the ledger."""
        path = self.run / LEDGER
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.run)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these kinds, all if none is named."""
        return [event for event in self.ledger.events() if not kinds or event["event"] in kinds]

    def reached(self, ended: int) -> bool:
        """Whether so many trials have ended and another has finished an epoch."""
        return len(self.events(END)) >= ended and any(
            record.epochs for record in self.ledger.of(State.RUNNING)
        )

    def outcomes(self) -> dict[str, tuple]:
        """What became of each trial, but for what it took.

        The images that a trial was trained on are part of it: no epoch counts twice. The losses are
        not, as who takes up a trial after its last epoch has not seen them. Of a trial that was
        stopped, what it was judged by.
        """
        found = {}
        for record in self.ledger.records.values():
            figures = {
                name: value
                for name, value in record.metrics.items()
                if name == "cost.images" or not name.startswith(("cost.", "train.", "evaluate."))
            }
            if record.state is State.STOPPED:
                figures = {name: figures[name] for name in STUDY["objectives"]}
            verdict = (record.state, record.reason, record.dominated_by)
            found[record.id] = (record.number, record.stage, verdict, record.epochs, figures)
        return found

    def assert_ended_as(self, other: Sweep) -> None:
        """It has the trials and the front of the other, each trial accepted once."""
        assert self.outcomes() == other.outcomes()
        header, *front = (self.run / "front.csv").read_text().splitlines()
        other_header, *other_front = (other.run / "front.csv").read_text().splitlines()
        assert front
        # Where trials run side by side, their order is chance.
        assert (header, sorted(front)) == (other_header, sorted(other_front))
        assert set(Counter(event["id"] for event in self.events(END)).values()) == {1}
        epochs: dict[str, int] = {}
        for event in self.events(EPOCH):
            assert event["epochs"] > epochs.get(event["id"], 0)
            epochs[event["id"]] = event["epochs"]
        judged = {path.stem for path in (self.run / "evaluation").glob("*.json")}
        assert judged == {row.split(",")[0] for row in front}
        assert json.loads((self.run / "summary.json").read_text())["interrupted"] is None

    def assert_halted(self, ended: Ended, code: int, *words: str) -> None:
        """It ended in one line that says why and how to go on; no trial has failed of it."""
        assert ended.code == code, ended
        assert "Traceback" not in ended.out + ended.err, ended
        last = ended.err.splitlines()[-1]
        assert last.startswith("trustsweep: "), ended
        assert last.endswith(f"Resume with: trustsweep sweep --resume {self.run}"), last
        assert not [word for word in words if word not in last], last
        ledger = self.ledger
        assert ledger.of(State.RUNNING)
        assert not ledger.of(State.FAILED)


class Sweeps:
    """Makes runs, and ends what is left of their processes."""

    def __init__(self, study: Path, data: Path) -> None:
        self._study, self._data = study, data
        self._made: list[Sweep] = []

    def __call__(self, run: Path, *changes: str, data: str | Path | None = None) -> Sweep:
        """A run in a new folder; `changes` as of ``--set``."""
        self._made.append(Sweep(run, self._study, data or self._data, changes))
        return self._made[-1]

    def end(self) -> None:
        for session in (session for sweep in self._made for session in sweep.sessions):
            if session.process.poll() is None:
                session.kill()


@pytest.fixture(scope="session")
def sweeps(phantoms, tmp_path_factory) -> Iterator[Sweeps]:
    study = tmp_path_factory.mktemp("chaos") / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    sweeps = Sweeps(study, phantoms)
    yield sweeps
    sweeps.end()


@pytest.fixture(scope="session")
def undisturbed(sweeps, tmp_path_factory) -> Callable[..., Sweep]:
    """The run that nothing happened to, under these changes of the study."""
    done: dict[tuple[str, ...], Sweep] = {}

    def get(*changes: str) -> Sweep:
        if changes not in done:
            sweep = done[changes] = sweeps(tmp_path_factory.mktemp("undisturbed") / "run", *changes)
            ended = sweep.begin().finish()
            assert ended.code == 0, ended
            assert len(sweep.events(END)) == STUDY["search"]["trials"]
            assert not sweep.ledger.of(State.FAILED)
        return done[changes]

    return get


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """The state of a training, in small."""
    return {"model.a": torch.arange(6.0), "optimiser.0.step": torch.tensor(3.0)}
