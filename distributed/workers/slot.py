"""A slot: a warm Ray Train worker group that trials flow through.

Starting a `TorchTrainer` inside each Tune trial, as Ray's guide shows, costs the start of several
processes per trial. A slot is a Tune trainable that Tune keeps (`reuse_actors`): it starts one
`TorchTrainer` and gives each trial to the waiting workers by way of its board.
`benchmarks/trial_overhead.py` measures the difference.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray import tune

from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.workers.board import (
    AssignedTrial,
    Begun,
    Board,
    Command,
    Epoch,
    Evaluate,
    Failure,
    Finish,
    Leave,
    Start,
    WorkerSettings,
)
from trustsweep.distributed.workers.fidelity import CLEAN, FULL, Level
from trustsweep.distributed.workers.outcome import (
    CONFIG,
    EXHAUSTED,
    FAILED,
    FINISHED,
    METRICS,
    OUTSIDE,
    RUNG,
    STOPPABLE,
    TRIAL,
)

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

#: What Tune reserves for a slot. Its workers hold the CPUs, itself it only waits. Tune refuses
#: a request of nothing; a share of a CPU would cost a whole slot on a small machine.
REQUEST = {"memory": 1024}
_POLL_SECONDS = 2.0
#: Seconds for which a trial is tried again where storage or network has failed; then the sweep has
#: to halt. The environment variable TRUSTSWEEP_PATIENCE sets other ones.
PATIENCE = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
#: Seconds after which a slot without a trial gives its workers' CPUs back: another slot, whose node
#: was lost, may wait for them.
_IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class SlotSettings:
    """Settings of a slot beside the data sets. `checkpoints` is seen by every node."""

    worker: WorkerSettings
    workers: int
    resources_per_worker: dict[str, float]
    checkpoints: Path
    storage: Path
    patience: float = PATIENCE


def _trainer_class(workers: int) -> type[DataParallelTrainer]:
    """The trainer that starts and watches a group of workers.

    One worker has nobody to talk to. Without `TorchTrainer`, which makes a process group, neither
    the slot nor Ray's controller loads torch: seconds of the CPU in each of these processes.
    """
    if workers > 1:
        from ray.train.torch import TorchTrainer

        return TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer


class GroupLost(RuntimeError):
    """The worker group cannot be used any more; Tune replaces the slot."""


class Slot(tune.Trainable):
    """One step is one epoch; the last one ends with the full evaluation.

    A trial with patience is evaluated clean after every epoch, the last included; where its
    patience ends, or with the last, the model of its best epoch is evaluated in full and kept.

    The keys of the Tune config are in `outcome`. A trial of which a state is kept goes on from
    there: its first step then evaluates the epoch that was reached, which may be reported again.
    """

    _begun: Begun | None

    def setup(self, config: dict[str, Any], settings: SlotSettings, datasets: Any) -> None:
        self._settings = settings
        self._datasets = datasets
        self._working = threading.Lock()
        self._take(config)
        self._start_group()
        self._idle = self._when_idle()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; returns its metrics, or why the trial failed."""
        self._idle.cancel()
        with self._working:
            if self._left:
                self._start_group()
            result = self._patiently()
            self._idle = self._when_idle()
        return result

    def _patiently(self) -> dict[str, Any]:
        """An epoch, retried while storage or network is away."""
        waited, wait = 0.0, _FIRST_WAIT
        while isinstance(done := self._advance(), Failure):
            if not (done.outside and done.group_usable):
                return self._failed(done)
            if waited >= self._settings.patience:
                return {OUTSIDE: done.reason, "done": True}
            time.sleep(wait)
            waited, wait = waited + wait, min(2 * wait, _LONGEST_WAIT)
            # What the workers hold may be half an epoch on; what was kept is whole.
            self._begun = None
        return done

    def _advance(self) -> dict[str, Any] | Failure:
        """The next epoch of the trial, after whatever is left of an interrupted one."""
        resuming = self._begun is None
        if resuming:
            begun = self._post(Start(self._trial))
            if isinstance(begun, Failure):
                return begun
            self._begun, self._epochs = begun, begun.epochs
            if begun.metrics is not None:
                return self._result(begun.metrics, last=True)
        metrics: dict[str, float] = {}
        if not (resuming and self._epochs):
            trained = self._post(Epoch())
            if isinstance(trained, Failure):
                return trained
            metrics |= trained
            self._epochs += 1
        last = self._epochs >= self._trial.config["epochs"]
        if self._trial.config["patience"]:
            # At rungs too: where a trial ends must not depend on whether it may be stopped.
            measured = self._post(Evaluate(CLEAN))
            if isinstance(measured, Failure):
                return measured
            last = bool(measured.pop(EXHAUSTED)) or last
            metrics |= measured
        if last or self._rung is not None or not self._trial.config["patience"]:
            measured = self._post(Evaluate(self._level(last), last))
            if isinstance(measured, Failure):
                return measured
            metrics |= measured
        if last and isinstance(lost := self._post(Finish(metrics)), Failure):
            return lost
        return self._result(metrics, last)

    def _level(self, last: bool) -> Level:
        if last:
            return FULL
        rung = self._rung
        return CLEAN if rung is None else self._levels.evaluation(rung)

    @property
    def _rung(self) -> int | None:
        """The rung at the end of the last epoch, if there is one."""
        return self._levels.rung(self._epochs) if self._stoppable else None

    def _result(self, metrics: dict[str, float], last: bool) -> dict[str, Any]:
        return {
            METRICS: metrics,
            FINISHED: last,
            RUNG: None if last else self._rung,
            "training_iteration": self._epochs,
            "done": last,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the workers persist every epoch themselves, where a restart looks for it."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Let the workers leave; Tune is about to end this actor."""
        self._idle.cancel()
        self._leave()

    def _leave(self) -> None:
        """Let the workers go once no step runs; the next one starts others."""
        with self._working:
            if self._thread.is_alive() and self._error is None:
                ray.wait([self._board.post.remote(Leave())], timeout=10)
                self._thread.join(timeout=20)
            self._left = True

    def _when_idle(self) -> threading.Timer:
        """Lets the workers go unless it is cancelled in time."""
        timer = threading.Timer(_IDLE_SECONDS, self._leave)
        timer.daemon = True
        timer.start()
        return timer

    def _start_group(self) -> None:
        """Start workers; the trial is taken up by them from what was kept of it."""
        self._error: BaseException | None = None
        self._board = ray.remote(Board).options(num_cpus=0).remote(self._settings.workers)
        self._thread = threading.Thread(target=self._run_group, daemon=True)
        self._thread.start()
        self._left = False
        self._begun = None

    def _take(self, config: dict[str, Any]) -> None:
        """Have a new trial; the first step begins it."""
        name = config[TRIAL]
        self._trial = AssignedTrial(name, config[CONFIG], self._settings.checkpoints / name)
        self._stoppable = config[STOPPABLE]
        self._levels = self._settings.worker.levels(config[CONFIG])
        self._begun = None
        self._epochs = 0

    def _post(self, command: Command) -> Any:
        """Have the group run `command`. Raises `GroupLost` if the group's run has ended."""
        answer = self._board.post.remote(command)
        while not ray.wait([answer], timeout=_POLL_SECONDS)[0]:
            if not self._thread.is_alive():
                raise GroupLost(f"the slot's workers are gone: {self._error}") from self._error
        return ray.get(answer)

    def _failed(self, failure: Failure) -> dict[str, Any]:
        """The result of a trial that failed. Raises `GroupLost` if the group cannot go on."""
        if not failure.group_usable:
            # Other ranks may wait in a collective for the one that failed: only a new group helps.
            raise GroupLost(failure.reason)
        return {FAILED: failure.reason, "done": True}

    def _run_group(self) -> None:
        try:
            self._trainer().fit()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error

    def _trainer(self) -> DataParallelTrainer:
        settings, datasets = self._settings, self._datasets

        def run_worker(config: dict[str, Any]) -> None:
            # Imported by the worker: the slot, which never trains, does without torch.
            from trustsweep.distributed.workers.worker import work

            work(config)

        return _trainer_class(settings.workers)(
            run_worker,
            train_loop_config={"board": self._board, "settings": settings.worker},
            scaling_config=ray.train.ScalingConfig(
                num_workers=settings.workers,
                use_gpu=settings.resources_per_worker.get("GPU", 0) > 0,
                resources_per_worker=settings.resources_per_worker,
            ),
            run_config=ray.train.RunConfig(
                name=f"slot-{uuid.uuid4().hex[:8]}",
                storage_path=str(settings.storage),
                # The board gives up on a trial whose workers keep dying; the group goes on.
                failure_config=ray.train.FailureConfig(max_failures=-1),
            ),
            # Without any, the workers stream from storage themselves.
            datasets={str(s): datasets[s] for s in (Split.TRAIN, Split.VAL) if s in datasets},
            # Every worker maps the whole materialised set and takes its own rows by seed, so that
            # what it sees does not depend on timing.
            dataset_config=ray.train.DataConfig(datasets_to_split=[]),
        )
