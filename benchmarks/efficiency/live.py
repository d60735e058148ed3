"""Real data, trained as a sweep trains it: the same code for every way of searching.

Every measured point is appended to a file, so that a training that two ways ask for happens once
and an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow.compute as pc
import torch

from data_pipelines.prepare import prepare
from data_pipelines.schema import Manifest, Split
from data_pipelines.shards import read_table
from data_pipelines.streams import Resident, Samples, Stream
from distributed.front import Objective
from distributed.training import Diverged, TrialTraining
from efficiency.problem import Config, Point, Problem
from search_spaces.space import Space, Suggester
from trainables.evaluation import EvaluationPlan
from trainables.metrics.catalog import metric_info

EPOCHS = 16
EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """A live problem.

    Attributes:
        folder: Of the published data, below the folder of all data.
        layout, size, options: For `prepare`.
        per_class: Samples of each class that are used of each split; None for all.
        trainables, space: As in a study.
        objectives: Names of metrics.
        plan: How trials are judged, at every one of `epochs`.
    """

    folder: str
    layout: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)
    per_class: dict[Split, int] | None = None
    trainables: tuple[str, ...]
    space: dict[str, Any]
    objectives: tuple[str, ...]
    plan: EvaluationPlan
    epochs: tuple[int, ...] = (1, 2, 4, 6, 8, 12, EPOCHS)


LIVE = {
    "pneumonia": LiveSettings(
        folder="medmnist",
        layout="medmnist",
        size=28,
        options={"flag": "pneumoniamnist"},
        # The train split holds ten times as many sick as healthy, the validation split three times.
        per_class={Split.TRAIN: 192, Split.VAL: 96},
        trainables=("classifier",),
        space={
            "epochs": EPOCHS,
            "batch_size": 48,
            "width": 4,
            "depth": 2,
            "corruption_share": 0.0,
            "learning_rate": {"low": 2e-3, "high": 3e-2, "log": True},
            "epsilon": {"low": 0.002, "high": 0.02},
            "attack_steps": {"low": 1, "high": 2},
        },
        objectives=("auroc_area", "clean.ece"),
        plan=EvaluationPlan(epsilons=(0.0, 0.005, 0.01), attack_steps=2),
    ),
    "xray": LiveSettings(
        folder="covid19_cxr_qata_layout/QaTa-COV19-v2",
        layout="qata-cov19",
        size=32,
        trainables=("unet", "evidential-unet"),
        space={
            "epochs": EPOCHS,
            "batch_size": 16,
            "width": 8,
            "corruption_share": 0.0,
            "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
        },
        objectives=("dice_area", "clean.ece_region"),
        plan=EvaluationPlan(epsilons=(0.0, 0.01, 0.02), attack_steps=3),
    ),
}


class Live(Problem):
    """Trials that are trained in this process; costs are CPU seconds of training."""

    unit = "CPU seconds"

    def __init__(self, name: str, data: Path, cache: Path) -> None:
        """`data` holds the published folders; shards and points are kept under `cache`."""
        torch.set_num_threads(1)
        self.settings = settings = LIVE[name]
        self.name = name
        self.objectives = tuple(
            Objective(metric, metric_info(metric).direction) for metric in settings.objectives
        )
        self.steps = settings.epochs
        self.space = Space(settings.trainables, settings.space)
        shards = cache / f"{name}-{settings.size}"
        prepare(
            data / settings.folder, settings.layout, shards, size=settings.size, **settings.options
        )
        self.manifest = Manifest.load(shards)
        self.train, self.val = (self._split(shards, s) for s in (Split.TRAIN, Split.VAL))
        self.points = Points(cache / f"{name}.jsonl", self._fingerprint())

    def suggest(self, trial: Suggester) -> Config:
        return dict(self.space.suggest(trial))

    def curve(self, config: Config, seed: int) -> Sequence[Point]:
        return _Trained(self, {**config, "seed": seed})

    def _split(self, shards: Path, split: Split) -> Stream:
        table = read_table(shards, split)
        tables = [table]
        if self.settings.per_class is not None:
            # The rows of a shard lie in random order, so the first are a random part.
            count = self.settings.per_class[split]
            labels = range(len(self.manifest.classes))
            tables = [table.filter(pc.field("label") == c).slice(0, count) for c in labels]
        return Resident(Samples(tables, self.manifest), "cpu")

    def _fingerprint(self) -> str:
        parts = [self.manifest.fingerprint, asdict(self.settings.plan), self.settings.per_class]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Points:
    """What was measured, one line of JSON a point; several processes may append."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Points of another `fingerprint` (data and plan) in the file are left alone."""
        self._path = path
        self._fingerprint = fingerprint
        self._known: dict[str, dict[int, dict[str, Any]]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                point = json.loads(line)
                if point["fingerprint"] == fingerprint:
                    self._of(point["config"])[point["epoch"]] = point

    def get(self, config: Config, epoch: int) -> dict[str, Any] | None:
        """The point of a config after an epoch, or None."""
        return self._of(config).get(epoch)

    def add(self, config: Config, epoch: int, **figures: Any) -> None:
        """Keep a point; the first of the same config and epoch stays."""
        if epoch in self._of(config):
            return
        point = {"fingerprint": self._fingerprint, "config": config, "epoch": epoch, **figures}
        self._of(config)[epoch] = point
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")

    def _of(self, config: Config) -> dict[int, dict[str, Any]]:
        return self._known.setdefault(json.dumps(config, sort_keys=True), {})


class _Trained(Sequence[Point]):
    """A curve that is read from the file as far as it goes, and trained from there on demand."""

    def __init__(self, problem: Live, config: Config) -> None:
        self._problem = problem
        self._config = config
        self._training: TrialTraining | None = None
        self._seconds = 0.0
        self._diverged = False

    def __len__(self) -> int:
        return len(self._problem.steps)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | Sequence[Point]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        problem, epoch = self._problem, self._problem.steps[index]
        if problem.points.get(self._config, epoch) is None:
            self._train(epoch)
        point = problem.points.get(self._config, epoch)
        assert point is not None
        values = [point["metrics"][o.name] for o in problem.objectives]
        return Point(point["train_s"], np.array(values, dtype=np.float64))

    def _train(self, epoch: int) -> None:
        """Train on to `epoch`; from the start, where only the file knows the beginning."""
        problem = self._problem
        if self._training is None:
            self._training = TrialTraining(self._config, problem.manifest, problem.settings.plan)
        training = self._training
        for now in (e for e in problem.steps if training.epochs_done < e <= epoch):
            metrics, seconds = dict.fromkeys((o.name for o in problem.objectives), math.nan), 0.0
            if not self._diverged:
                self._advance(training, now)
            if not self._diverged:
                metrics, seconds = self._judge(training)
            training.epochs_done = now
            problem.points.add(
                self._config, now, metrics=metrics, train_s=self._seconds, evaluate_s=seconds
            )

    def _advance(self, training: TrialTraining, epoch: int) -> None:
        started = time.process_time()
        try:
            while training.epochs_done < epoch:
                training.epoch(self._problem.train)
        except Diverged:
            self._diverged = True
        self._seconds += time.process_time() - started

    def _judge(self, training: TrialTraining) -> tuple[dict[str, float], float]:
        """Every metric on the validation split, and the CPU seconds that it took."""
        started = time.process_time()
        found = training.evaluate(self._problem.val, batch_size=EVALUATION_BATCH)
        return found.compute(), time.process_time() - started
