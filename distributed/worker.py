"""The loop that each Ray Train worker of a slot runs: take a command, do it, acknowledge it."""

from __future__ import annotations

import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.train
import torch
import torch.distributed

from data_pipelines.schema import Manifest, Split
from data_pipelines.streams import Source, Stream
from distributed.board import Command, Epoch, Evaluate, Finish, Leave, Standing, Start, Trial
from distributed.checkpoints import load_state, save_model, save_state
from distributed.training import Diverged, Rank, TrialTraining, merge_ranks
from trainables.evaluation import EvaluationPlan


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a study is told once."""

    manifest: Manifest
    plan: EvaluationPlan
    evaluation_batch_size: int
    threads: int
    source: Source = field(default_factory=Source)


def work(config: dict[str, Any]) -> None:
    """Ray Train's loop per worker; ends when the slot posts `Leave`."""
    board, settings = config["board"], config["settings"]
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(settings.threads)
    token = _agree_on_token(rank)
    # Entering comes first: the board counts a group that dies while it gets ready as well.
    standing = ray.get(board.enter.remote(token))
    worker = _Worker(settings, rank)
    if standing is not None:
        worker.resume(standing)
    done = 0
    while True:
        done, command = ray.get(board.next.remote(done))
        answer, error = None, None
        try:
            answer = worker.do(command)
        except Diverged as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - told to the slot, which fails the trial
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}".splitlines()[0]
        ray.get(board.acknowledge.remote(token, rank.index, done, answer, error))
        if isinstance(command, Leave):
            return


class _Worker:
    """The commands of the board, done on one rank."""

    def __init__(self, settings: WorkerSettings, rank: Rank) -> None:
        self._settings = settings
        self._rank = rank
        self._device = ray.train.torch.get_device()
        self._samples: dict[Split, Stream] = {
            split: settings.source.open(
                split, settings.manifest, self._device, ray.train.get_dataset_shard
            )
            for split in (Split.TRAIN, Split.VAL)
        }
        self._trial: Trial | None = None
        self._training: TrialTraining | None = None

    def resume(self, standing: Standing) -> None:
        """Take up a trial after a restart of the group, at its last acknowledged epoch."""
        self._start(standing.trial)
        if standing.epochs:
            tensors = load_state(standing.trial.folder, standing.epochs)
            self._current().load(tensors, standing.epochs)

    def do(self, command: Command) -> dict[str, float] | None:
        """The command's answer; only rank 0's counts."""
        match command:
            case Start(trial=trial):
                self._start(trial)
            case Epoch():
                return self._epoch()
            case Evaluate(full=full):
                return self._evaluate(full)
            case Finish(metrics=metrics):
                self._finish(metrics)
            case Leave():
                self._end()
        return None

    def _start(self, trial: Trial) -> None:
        self._end()
        self._trial = trial
        self._training = TrialTraining(
            trial.config,
            self._settings.manifest,
            self._settings.plan,
            device=self._device,
            rank=self._rank,
        )

    def _epoch(self) -> dict[str, float]:
        training = self._current()
        metrics = training.epoch(self._samples[Split.TRAIN])
        if self._rank.index == 0:
            assert self._trial is not None
            save_state(self._trial.folder, training.tensors(), training.epochs_done)
        return metrics

    def _evaluate(self, full: bool) -> dict[str, float]:
        started = time.perf_counter()
        part = self._current().evaluate(
            self._samples[Split.VAL], full=full, batch_size=self._settings.evaluation_batch_size
        )
        metrics = merge_ranks(part, self._rank).compute()
        return {**metrics, "evaluate.seconds": time.perf_counter() - started}

    def _finish(self, metrics: dict[str, float]) -> None:
        if self._rank.index == 0:
            assert self._trial is not None
            card = {"id": self._trial.id, "config": self._trial.config, "metrics": metrics}
            save_model(self._trial.folder, self._current().network, card)
        self._end()

    def _end(self) -> None:
        """Free what the last trial holds before the next is built, and the CPUs of its stream."""
        self._training = None
        for stream in self._samples.values():
            stream.close()

    def _current(self) -> TrialTraining:
        if self._training is None:
            raise RuntimeError("no trial was started on this worker")
        return self._training


def _agree_on_token(rank: Rank) -> str:
    """One fresh name for this generation of the worker group, the same on every rank."""
    token = [uuid.uuid4().hex]
    if rank.world > 1:
        torch.distributed.broadcast_object_list(token, src=0)
    return token[0]
