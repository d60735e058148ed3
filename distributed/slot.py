"""A slot: a warm Ray Train worker group that trials flow through.

Starting a `TorchTrainer` inside each Tune trial, as Ray's guide shows, costs the start of several
processes per trial. A slot is a Tune trainable that Tune keeps (`reuse_actors`): it starts one
`TorchTrainer` and gives each trial to the waiting workers by way of its board.
`benchmarks/trial_overhead.py` measures the difference.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray import tune

from data_pipelines.schema import Split
from distributed.board import Board, Command, Epoch, Evaluate, Failure, Finish, Leave, Start, Trial
from distributed.worker import WorkerSettings, work

#: Keys of a result: the figures so far, whether they are final, and why there will be none.
METRICS, FINISHED, FAILED = "metrics", "finished", "failed"
#: What Tune reserves for a slot. Its workers hold the CPUs, itself it only waits. Tune refuses
#: a request of nothing; a share of a CPU would cost a whole slot on a small machine.
REQUEST = {"memory": 1024}
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class SlotSettings:
    """What a slot needs beside the data sets. `checkpoints` is seen by every node."""

    worker: WorkerSettings
    workers: int
    resources_per_worker: dict[str, float]
    checkpoints: Path
    storage: Path


class GroupLost(RuntimeError):
    """The worker group cannot be used any more; Tune replaces the slot."""


class Slot(tune.Trainable):
    """One step is one epoch; the last one ends with the full evaluation.

    The Tune config is ``{"trial": id, "config": {flat parameters}}``.
    """

    def setup(self, config: dict[str, Any], settings: SlotSettings, datasets: Any) -> None:
        self._settings = settings
        self._error: BaseException | None = None
        self._board = ray.remote(Board).options(num_cpus=0).remote(settings.workers)
        self._thread = threading.Thread(target=self._run_group, args=(datasets,), daemon=True)
        self._thread.start()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; the metrics so far, or why the trial failed."""
        if isinstance(self._started, Failure):
            return self._failed(self._started)
        metrics: dict[str, float] = {}
        last = self.iteration + 1 >= self._trial.config["epochs"]
        commands: list[Command] = [Epoch(), Evaluate(full=last)]
        for command in commands:
            answer = self._post(command)
            if isinstance(answer, Failure):
                return self._failed(answer)
            metrics.update(answer)
        if last and isinstance(lost := self._post(Finish(metrics)), Failure):
            return self._failed(lost)
        return {METRICS: metrics, FINISHED: last, "done": last}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the workers persist every epoch themselves, where a restart looks for it."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Let the workers leave; Tune is about to end this actor."""
        if self._thread.is_alive() and self._error is None:
            ray.wait([self._board.post.remote(Leave())], timeout=10)
            self._thread.join(timeout=20)

    def _begin(self, config: dict[str, Any]) -> None:
        trial_id = config["trial"]
        self._trial = Trial(trial_id, config["config"], self._settings.checkpoints / trial_id)
        self._started = self._post(Start(self._trial))

    def _post(self, command: Command) -> Any:
        """Have the group do `command`. Raises `GroupLost` if the group's run has ended."""
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
        return {METRICS: {}, FINISHED: False, FAILED: failure.reason, "done": True}

    def _run_group(self, datasets: Any) -> None:
        try:
            self._trainer(datasets).fit()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error

    def _trainer(self, datasets: Any) -> ray.train.torch.TorchTrainer:
        settings = self._settings
        return ray.train.torch.TorchTrainer(
            work,
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
