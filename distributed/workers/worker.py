"""The loop that each Ray Train worker of a slot runs: take a command, do it, acknowledge it."""

from __future__ import annotations

import time
import traceback
import uuid
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed

from trustsweep.data_pipelines.schema import Split
from trustsweep.data_pipelines.streams import Stream
from trustsweep.distributed.run.checkpoints import (
    Best,
    discard_states,
    find_best,
    finished_card,
    latest_epochs,
    load_best,
    load_state,
    save_best,
    save_model,
    save_state,
)
from trustsweep.distributed.run.halt import outside
from trustsweep.distributed.workers.board import (
    AssignedTrial,
    Begun,
    Command,
    Epoch,
    Evaluate,
    Finish,
    Leave,
    RankError,
    Standing,
    Start,
    WorkerSettings,
)
from trustsweep.distributed.workers.fidelity import Level
from trustsweep.distributed.workers.outcome import EXHAUSTED
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.training import Diverged, Training, merge_ranks


def work(config: dict[str, Any]) -> None:
    """Ray Train's loop per worker; ends when the slot posts `Leave`."""
    board, settings = config["board"], config["settings"]
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(settings.threads)
    # A fresh name for this generation of the worker group.
    token = _from_first_rank(uuid.uuid4().hex, rank)
    # Entering comes first: the board counts a group that dies while it gets ready as well.
    standing = ray.get(board.enter.remote(token))
    try:
        worker = Worker(settings, rank, ray.train.torch.get_device())
        if standing is not None:
            worker.resume(standing)
    except Exception as problem:
        # Ray Train starts the group again and says nothing of why.
        ray.get(board.leave.remote(_rank_error(problem).reason))
        raise
    done = 0
    while True:
        done, command = ray.get(board.next.remote(done))
        answer, error = None, None
        try:
            answer = worker.do(command)
        except Diverged as problem:
            error = RankError(str(problem))
        except Exception as problem:  # noqa: BLE001 - reported to the slot, which fails the trial
            traceback.print_exc()
            error = _rank_error(problem)
        ray.get(board.acknowledge.remote(token, rank.index, done, answer, error))
        if isinstance(command, Leave):
            return


class Worker:
    """The commands of the board, done on one rank."""

    def __init__(self, settings: WorkerSettings, rank: Rank, device: torch.device) -> None:
        self._settings = settings
        self._rank = rank
        self._device = device
        self._samples: dict[Split, Stream] = {}
        self._trial: AssignedTrial | None = None
        self._training: Training | None = None
        self._best: Best | None = None

    def resume(self, standing: Standing) -> None:
        """Take up a trial after a restart of the group, at its last acknowledged epoch.

        A trial whose model the last group had finished is left as it is: its training states are
        gone, and what may be missing is only the acknowledgement.
        """
        self._trial = standing.trial
        if self._kept(standing.trial).metrics is None:
            self._start(standing.trial)
            self._load(standing.epochs, standing.cost)

    def do(self, command: Command) -> dict[str, float] | Begun | None:
        """The command's answer; only rank 0's counts."""
        match command:
            case Start(trial=trial):
                return self._begin(trial)
            case Epoch():
                return self._epoch()
            case Evaluate(level=level, final=final):
                return self._evaluate(level, final)
            case Finish(metrics=metrics):
                self._finish(metrics)
            case Leave():
                self._end()
        return None

    def _begin(self, trial: AssignedTrial) -> Begun:
        """Take up a trial where an earlier session or slot has left it, or from the start."""
        begun = self._kept(trial)
        if begun.metrics is None:
            self._start(trial)
            self._load(begun.epochs)
        return begun

    def _kept(self, trial: AssignedTrial) -> Begun:
        """The saved progress of a trial: its newest state or its finished model."""
        # One rank looks: on shared storage the others may see a file a moment later.
        progress = Begun()
        if self._rank.index == 0:
            progress = Begun(latest_epochs(trial.folder))
            if (card := finished_card(trial.folder)) is not None:
                progress = Begun(card.get("epochs", trial.config["epochs"]), card["metrics"])
        begun: Begun = _from_first_rank(progress, self._rank)
        return begun

    def _load(self, epochs: int, cost: dict[str, float] | None = None) -> None:
        if epochs:
            assert self._trial is not None
            self._current().load(load_state(self._trial.folder, epochs), epochs, cost)
            if self._current().patience:
                best = find_best(self._trial.folder) if self._rank.index == 0 else None
                self._best = _from_first_rank(best, self._rank)

    def _start(self, trial: AssignedTrial) -> None:
        self._end()
        self._trial = trial
        self._best = None
        self._training = Training(
            trial.config,
            self._settings.manifest,
            self._settings.plan,
            device=self._device,
            rank=self._rank,
            levels=self._settings.levels(trial.config),
            prior=self._settings.prior,
        )

    def _epoch(self) -> dict[str, float]:
        training = self._current()
        metrics = training.epoch(self._stream(Split.TRAIN))
        if self._rank.index == 0:
            assert self._trial is not None
            save_state(self._trial.folder, training.tensors(), training.epochs_done)
        return metrics

    def _evaluate(self, level: Level, final: bool) -> dict[str, float]:
        started = time.perf_counter()
        training = self._current()
        if final:
            self._take_best()
        part = training.evaluate(
            self._stream(Split.VAL), level, batch_size=self._settings.evaluation_batch_size
        )
        metrics = merge_ranks(part, self._rank).compute()
        if training.patience and level.clean and not final:
            metrics[EXHAUSTED] = float(self._watch(metrics["clean.nll"]))
        seconds = time.perf_counter() - started
        return {**metrics, **training.cost_metrics(), "evaluate.seconds": seconds}

    def _watch(self, loss: float) -> bool:
        """Note the loss after the epoch that was reached; whether patience is at its end."""
        training, before = self._current(), self._best
        self._best = Best.of(before, training.epochs_done, loss)
        if self._best is not before and self._rank.index == 0:
            assert self._trial is not None
            save_best(self._trial.folder, training.model.network, self._best)
        return training.epochs_done - self._best.epoch >= training.patience

    def _take_best(self) -> None:
        """Have the model of the best epoch, which a new group of workers has not; no more is
        trained then."""
        if self._best is not None:
            assert self._trial is not None
            load_best(self._trial.folder, self._current().model.network)

    def _finish(self, metrics: dict[str, float]) -> None:
        assert self._trial is not None
        if self._kept(self._trial).metrics is None:
            self._save_model(metrics)
        elif self._rank.index == 0:
            # By a group that died before it had acknowledged that.
            discard_states(self._trial.folder)
        self._end()

    def _save_model(self, metrics: dict[str, float]) -> None:
        self._take_best()
        if self._rank.index == 0:
            assert self._trial is not None
            done = self._current().epochs_done
            card = {
                "id": self._trial.id, "config": self._trial.config, "metrics": metrics,
                "epochs": done, "epoch": done if self._best is None else self._best.epoch,
            }  # fmt: skip
            save_model(self._trial.folder, self._current().model.network, card)

    def _end(self) -> None:
        """Free what the last trial holds before the next is built, and the CPUs of its stream."""
        self._training = None
        for stream in self._samples.values():
            stream.close()

    def _stream(self, split: Split) -> Stream:
        """Opened where it is first read, so that the board hears of a storage that is away."""
        if split not in self._samples:
            self._samples[split] = self._settings.source.open(
                split, self._settings.manifest, self._device, ray.train.get_dataset_shard
            )
        return self._samples[split]

    def _current(self) -> Training:
        if self._training is None:
            raise RuntimeError("no trial was started on this worker")
        return self._training


def _rank_error(error: Exception) -> RankError:
    if (reason := outside(error)) is not None:
        return RankError(reason, outside=True)
    return RankError(f"{type(error).__name__}: {error}".splitlines()[0])


def _from_first_rank(value: Any, rank: Rank) -> Any:
    """The first rank's `value`, on every rank."""
    values = [value]
    if rank.world > 1:
        torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
