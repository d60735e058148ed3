"""What is written down as Tune reports it: epochs, ends, views, curves; and when it halts."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.run.checkpoints import save_state
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Run, objectives_of
from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import LEDGER, SEEDS, Ledger, Record, State, trial_id
from trustsweep.distributed.run.trivial import TrivialPredictors
from trustsweep.distributed.search.journal import JOURNAL, Journal
from trustsweep.distributed.search.sampling import Sampling
from trustsweep.distributed.search.stopping.policy import Verdict
from trustsweep.distributed.sweep import resources
from trustsweep.distributed.sweep.callbacks import RunCallback
from trustsweep.distributed.sweep.plan import PreparedSweep
from trustsweep.distributed.sweep.progress import SweepProgress
from trustsweep.distributed.workers.outcome import FAILED, FINISHED, METRICS, OUTSIDE, RUNG, TRIAL
from trustsweep.search_spaces.study import Study
from trustsweep.trainables.metrics.prior import Prior

FULL_DEVICE = Path("/dev/full")
STUDY = Study.model_validate(
    {
        "name": "s",
        "methods": ["unet"],
        "objectives": ["dice_area", "clean.ece"],
        "constraints": ["clean.dice >= 0.5"],
    }
)
OBJECTIVES = objectives_of(STUDY)
PLAN = resources.plan(STUDY.resources, 1, [{"CPU": 1.0}], data_bytes=0)


def identify(config):
    return trial_id(config, "data", "1", {})


@dataclass
class Reported:
    """A Tune trial as a callback sees it."""

    config: dict[str, Any]
    error: str | None = None

    def get_error(self) -> str | None:
        return self.error


class Session:
    """A run with its callback, and what is reported to it."""

    def __init__(self, run: Run, study: Study, console: Console) -> None:
        self.run = run
        trivial = TrivialPredictors(Prior(), {})
        prepared = PreparedSweep(study, Manifest.load(run.path), OBJECTIVES, trivial, PLAN, [])
        self.stopped: dict[str, Verdict] = {}
        self.halt = Halt()
        sampling = Sampling(study, OBJECTIVES, identify)
        self.callback = RunCallback(
            run,
            prepared,
            Journal(run.path, study.name, OBJECTIVES, sampling.as_optuna),
            SweepProgress(console, OBJECTIVES, study.search.trials),
            self.stopped,
            self.halt,
            earlier=100.0,
        )

    def start(self, rate: float, **more: Any) -> str:
        config = {**STUDY.search_space().defaults("unet"), "learning_rate": rate}
        record = Record(id=identify(config), config=config, **more)
        self.run.ledger.start(record)
        self.callback.on_trial_start(0, [], self._trial(record.id))
        return record.id

    def report(self, name: str, epoch: int, last: bool = False, **more: Any) -> None:
        figures = {"dice_area": 0.1 * epoch, "clean.ece": 0.2, "clean.dice": 0.9}
        figures |= {
            "train.loss": 1.0 / epoch,
            "cost.seconds": 2.0 * epoch,
            **more.pop("figures", {}),
        }
        result = {
            **{f"{METRICS}/{key}": value for key, value in figures.items()},
            **{FINISHED: last, RUNG: None, "training_iteration": epoch, **more},
        }
        self.callback.on_trial_result(0, [], self._trial(name), result)

    def error(self, name: str, text: str | None) -> None:
        self.callback.on_trial_error(0, [], self._trial(name, text))

    def record(self, name: str) -> Record:
        """As a new process would find it."""
        return Ledger(self.run.path).records[name]

    def _trial(self, name: str, error: str | None = None) -> Any:
        return Reported({TRIAL: name}, error)


@pytest.fixture
def session(tmp_path, phantoms) -> Session:
    run = Run.create(tmp_path / "run")
    run.write_study(STUDY, Manifest.load(phantoms))
    return Session(run, STUDY, Console(quiet=True))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_trial_is_written_down_epoch_by_epoch_and_when_it_ends(session):
    name = session.start(0.001)
    session.report(name, 1, **{RUNG: 0})
    first = session.record(name)
    assert (first.state, first.epochs, first.seconds) == (State.RUNNING, 1, 2.0)
    assert first.rungs == {0: {"dice_area": 0.1, "clean.ece": 0.2, "clean.dice": 0.9}}
    session.report(name, 2)
    session.report(name, 2)  # taken up from a checkpoint
    session.report(name, 3, last=True)
    session.report(name, 4, last=True)  # a second word changes nothing
    record = session.record(name)
    assert (record.state, record.epochs, record.seconds) == (State.COMPLETED, 3, 6.0)
    assert record.metrics["dice_area"] == pytest.approx(0.3)
    assert 100 < record.ended < 200
    assert list(record.rungs) == [0]
    run = session.run.path
    assert [row["id"] for row in rows(run / "front.csv")] == [name]
    assert (run / JOURNAL).is_file()
    events = EventAccumulator(str(run / "tensorboard" / name))
    events.Reload()
    assert len(events.Scalars("train.loss")) == 4
    assert events.Scalars("objective/dice_area")[0].value == pytest.approx(0.3)
    assert any("hparams" in tag for tag in events.summary_metadata)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({FAILED: "diverged"}, "diverged"),
        ({FINISHED: True, "figures": {"dice_area": math.nan}}, "objective dice_area is nan"),
        ({FINISHED: True, "figures": {"clean.ece": math.inf}}, "objective clean.ece is inf"),
    ],
)
def test_a_trial_without_finite_objectives_has_failed_and_its_states_go(session, more, reason):
    name = session.start(0.001)
    folder = session.run.checkpoints / name
    save_state(folder, {"w": torch.zeros(2)}, 1)
    session.report(name, 2, **more)
    record = session.record(name)
    assert (record.state, record.reason) == (State.FAILED, reason)
    assert not folder.exists()
    assert not session.halt


def test_a_stopped_trial_says_by_what_it_was_left_behind_and_never_reaches_the_front(session):
    name = session.start(0.001)
    save_state(session.run.checkpoints / name, {"w": torch.zeros(2)}, 1)
    session.stopped[name] = Verdict(True, "forecast is dominated", ("a", "b"))
    session.report(name, 2, **{RUNG: 1})
    record = session.record(name)
    assert (record.state, record.reason) == (State.STOPPED, "forecast is dominated")
    assert record.dominated_by == ("a", "b")
    assert record.rungs[1]["dice_area"] == pytest.approx(0.2)
    assert not (session.run.checkpoints / name).exists()
    assert rows(session.run.path / "front.csv") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Traceback\n  ...\nGroupLost: gone\n", "GroupLost: gone"), (None, "its slot died")],
)
def test_a_slot_that_died_too_often_fails_its_trial(session, text, reason):
    name = session.start(0.001)
    session.error(name, text)
    assert (session.record(name).state, session.record(name).reason) == (State.FAILED, reason)


def test_what_failed_outside_of_a_trial_halts_and_leaves_it_running(session):
    name = session.start(0.001)
    session.report(name, 1)
    session.report(name, 2, **{OUTSIDE: "OSError: storage is away", "done": True})
    assert session.halt.reason == "OSError: storage is away"
    session.error(name, "killed while the sweep was torn down")
    assert session.record(name).state is State.RUNNING
    assert session.record(name).epochs == 1


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="no /dev/full here")
def test_a_full_disk_halts_and_the_ledger_stays_as_it_was(session):
    name = session.start(0.001)
    ledger = session.run.path / LEDGER
    full = Session(Run.open(session.run.path), STUDY, Console(quiet=True))
    kept = ledger.rename(ledger.with_suffix(".kept"))
    ledger.symlink_to(FULL_DEVICE)
    full.report(name, 1)
    assert full.halt
    assert full.run.ledger.records[name].epochs == 0
    ledger.unlink()
    kept.rename(ledger)
    assert session.record(name).epochs == 0


def test_a_repeat_of_a_front_model_is_no_part_of_the_front(session):
    name = session.start(0.001)
    session.report(name, 2, last=True)
    repeat = session.start(0.002, stage=SEEDS, of=name)
    session.report(repeat, 4, last=True)
    write_exports(session.run.reread())
    assert [row["id"] for row in rows(session.run.path / "front.csv")] == [name]
    assert session.record(repeat).state is State.COMPLETED


def test_a_session_goes_on_with_the_front_of_the_last(session):
    name = session.start(0.001)
    session.report(name, 9, last=True)
    log = io.StringIO()
    again = Session(Run.open(session.run.path), STUDY, Console(width=200, file=log))
    other = again.start(0.002)
    again.report(other, 1, last=True)  # beaten by the first
    assert "front: 1 model(s)" in log.getvalue()
