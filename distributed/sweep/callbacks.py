"""Callbacks of a sweep: the ledger, its exports, TensorBoard and the display."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from trustsweep.distributed.run.checkpoints import discard_states
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Front, Run, values_of
from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.search.journal import Journal
from trustsweep.distributed.search.stopping.policy import Verdict
from trustsweep.distributed.sweep.progress import SweepProgress
from trustsweep.distributed.workers.outcome import OUTSIDE, RUNG, TRIAL, metrics_of, outcome

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from trustsweep.distributed.sweep.plan import PreparedSweep

#: Exports are rewritten when a trial ends, but for at most this share of the time.
_EXPORTS_SHARE = 0.05
_SECONDS = "cost.seconds"
#: Figures that may wait for TensorBoard's thread before the driver waits for it.
_QUEUE = 1000


class RunCallback(tune.Callback):
    """Records what Tune reports as it arrives. Runs in the driver.

    Args:
        run: Its ledger is locked.
        prepared: The study, checked.
        journal: Optuna's view of the run.
        progress: The display.
        stopped: What the scheduler has stopped so far, by trial id.
        halt: Requested where the disk is full or storage is away.
        earlier: Seconds that the sweep took in earlier sessions.
    """

    def __init__(
        self,
        run: Run,
        prepared: PreparedSweep,
        journal: Journal,
        progress: SweepProgress,
        stopped: Mapping[str, Verdict],
        halt: Halt,
        earlier: float,
    ) -> None:
        self._run = run
        self._study = prepared.study
        self._objectives = prepared.objectives
        self._journal = journal
        self._progress = progress
        self._stopped = stopped
        self._halt = halt
        self._began = time.monotonic() - earlier
        self._writers: dict[str, SummaryWriter] = {}
        self._exports_due = 0.0
        self._front = Front(self._objectives, self._study.constraints, run.ledger.records.values())

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for `Tuner.restore`, which is never used here."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._progress.started(self._known(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        if reason := result.get(OUTSIDE):
            self._halt.request(reason)
            return
        with self._writing():
            self._take(self._known(trial), result)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        lines = str(trial.get_error() or "its slot died").strip().splitlines()
        if not self._halt:  # what dies while a sweep is torn down says nothing of the trial
            with self._writing():
                self._end(replace(self._known(trial), state=State.FAILED, reason=lines[-1]))

    def _known(self, trial: Trial) -> Record:
        return self._run.ledger.records[trial.config[TRIAL]]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Halt where the disk is full: the trials stay as the ledger has them."""
        try:
            yield
        except OSError as error:
            self._halt.request(str(error))

    def _take(self, known: Record, result: dict[str, Any]) -> None:
        """Note an epoch, and the trial's end where this was its last."""
        if known.state is not State.RUNNING:
            return
        verdict = outcome(result, [o.name for o in self._objectives])
        figures = metrics_of(result)
        epochs = int(result["training_iteration"]) if figures else known.epochs
        record = replace(
            known,
            state=verdict.state,
            reason=verdict.reason,
            epochs=epochs,
            seconds=figures.get(_SECONDS, known.seconds),
            metrics=figures or known.metrics,
        )
        self._write_scalars(record)
        if verdict.state is State.RUNNING:
            self._note_epoch(record, result.get(RUNG))
            if known.id in self._stopped:
                why = self._stopped[known.id]
                record = replace(
                    record, state=State.STOPPED, reason=why.reason, dominated_by=why.dominated_by
                )
        if record.state is not State.RUNNING:
            self._end(record)

    def _note_epoch(self, record: Record, rung: int | None) -> None:
        names = [o.name for o in self._objectives] + [c.metric for c in self._study.constraints]
        figures = {name: record.metrics.get(name, math.nan) for name in names}
        self._run.ledger.epoch(record.id, record.epochs, record.seconds, rung, figures)
        self._progress.epoch(record.id, record.epochs)

    def _end(self, record: Record) -> None:
        record = replace(record, ended=time.monotonic() - self._began)
        if not self._run.ledger.end(record):
            return
        if record.state is not State.COMPLETED:
            discard_states(self._run.checkpoints / record.id)
        self._front.add(record)
        self._progress.ended(record, self._front.records)
        self._close_writer(record)
        self._export()

    def _export(self) -> None:
        """At most `_EXPORTS_SHARE` of the time, as trials may end every second."""
        now = time.monotonic()
        if now >= self._exports_due:
            write_exports(self._run.reread())
            self._journal.write(self._run.ledger)
            took = time.monotonic() - now
            self._exports_due = now + took / _EXPORTS_SHARE

    def _write_scalars(self, record: Record) -> None:
        if record.id not in self._writers:
            folder = self._run.path / "tensorboard" / record.id
            self._writers[record.id] = SummaryWriter(str(folder), max_queue=_QUEUE)
        for name, value in record.metrics.items():
            self._writers[record.id].add_scalar(name, value, record.epochs)

    def _close_writer(self, record: Record) -> None:
        writer = self._writers.pop(record.id, None)
        if writer is None:
            return
        if record.state is State.COMPLETED:
            values = values_of(record, self._objectives)
            names = [f"objective/{o.name}" for o in self._objectives]
            metrics = dict(zip(names, values, strict=True))
            # `add_hparams` would open a second file for them, with a thread of its own.
            file: Any = writer.file_writer
            for summary in hparams(record.config, metrics):
                file.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)
        else:
            writer.add_text(record.state.value, record.reason)
        writer.close()
