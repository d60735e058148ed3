"""What happens beside the trials: the ledger, the views, TensorBoard and the display."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ray import tune
from torch.utils.tensorboard import SummaryWriter

from distributed.ledger import Record, State
from distributed.outcome import metrics_of, outcome
from distributed.progress import Progress
from distributed.run import Run

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from distributed.sweep import Prepared


class RunCallback(tune.Callback):
    """Writes down what Tune reports, as soon as it is known. Runs in the driver."""

    def __init__(self, run: Run, prepared: Prepared, progress: Progress) -> None:
        self._run = run
        self._prepared = prepared
        self._progress = progress
        self._began = time.monotonic()
        self._writers: dict[str, SummaryWriter] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for `Tuner.restore`, which is never used here."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        record = _record(trial)
        self._run.ledger.start(record)
        self._progress.started(record)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        record = _record(trial, result)
        self._progress.epoch(record.id, record.epochs)
        writer = self._writer(record.id)
        for name, value in record.metrics.items():
            writer.add_scalar(name, value, record.epochs)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._end(trial, error="")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        lines = str(trial.get_error() or "its slot died").strip().splitlines()
        self._end(trial, error=lines[-1])

    def _end(self, trial: Trial, error: str) -> None:
        names = [o.name for o in self._prepared.objectives]
        verdict = outcome(trial.last_result, names, error)
        base = _record(trial, trial.last_result)
        ended = time.monotonic() - self._began
        record = Record(
            **{**base.__dict__, "state": verdict.state, "reason": verdict.reason, "ended": ended}
        )
        if not self._run.ledger.end(record):
            return
        self._progress.ended(record, self._run.write_views(self._prepared.study))
        self._close_writer(record, names)

    def _writer(self, trial: str) -> SummaryWriter:
        if trial not in self._writers:
            folder = self._run.path / "tensorboard" / trial
            self._writers[trial] = SummaryWriter(str(folder))
        return self._writers[trial]

    def _close_writer(self, record: Record, objectives: list[str]) -> None:
        writer = self._writer(record.id)
        metrics = {f"objective/{n}": record.metrics.get(n, math.nan) for n in objectives}
        if record.state is State.COMPLETED:
            writer.add_hparams(record.config, metrics, run_name=".")
        else:
            writer.add_text(record.state.value, record.reason)
        writer.close()
        del self._writers[record.id]


def _record(trial: Trial, result: dict[str, Any] | None = None) -> Record:
    """What is known of a trial after `result`, still running."""
    result = result or {}
    metrics = metrics_of(result)
    return Record(
        id=trial.config["trial"],
        config=dict(trial.config["config"]),
        epochs=int(result.get("training_iteration", 0)) if metrics else 0,
        seconds=float(result.get("time_total_s", 0.0)),
        metrics=metrics,
    )
