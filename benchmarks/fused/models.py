"""Tuning, training and judging one model of benchmarks/fusion.py, without Ray; all is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.samplers import RandomSampler

from data_pipelines.corruptions.suite import corrupt
from data_pipelines.machine import write_atomically
from data_pipelines.schema import Manifest, Split, Task
from data_pipelines.storage import Folder
from data_pipelines.streams import Samples
from distributed.run.sample_table import origins
from distributed.sweep.checks import evaluation_plan
from distributed.sweep.selective import selective
from distributed.sweep.test_evaluation import MIXED, MIXED_SEVERITY
from distributed.workers.fidelity import CLEAN, FULL, Level
from distributed.workers.training import TrialTraining
from search_spaces.study import Study, load
from trainables.attacks.engine import frozen
from trainables.registry import TRAINABLES
from trainables.reliance import reliance
from trainables.sample_scores import SampleScores

#: What a configuration is chosen by, on validation: a proper score where modalities are worse or
#: missing, as a model that is only accurate or only modest does not win it.
CHOSEN_BY = "corrupted.nll"
#: Of the shares to answer (`distributed.sweep.selective`), the one that abstention is tested at.
COVERAGE = 0.8
#: Patients are told apart by it, within what is kept here.
_KEY = b"fusion"


@dataclass(frozen=True)
class Unit:
    """One model to train.

    Attributes:
        data: The fold's folder.
        kept: Where the model's figures are kept, without an ending.
        overrides: Of the study `fusion`: epochs and corruptions.
    """

    data: Path
    kept: Path
    config: Mapping[str, Any]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A model on the test samples of its fold.

    Attributes:
        card: `fingerprint`, `config`, `metrics`, `ood`, `selective` and `reliance`.
        scores: By condition the columns of `SampleScores`.
        patients: Of each sample.
    """

    card: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, NDArray[Any]]]
    patients: Sequence[str]

    @property
    def corrupted(self) -> list[str]:
        """The conditions but for the clean one."""
        return [name for name in self.scores if name != "clean"]

    @cached_property
    def threshold(self) -> float:
        """The uncertainty that validation chose for `COVERAGE`."""
        entries = self.card["selective"]["thresholds"]
        return float(next(e["threshold"] for e in entries if e["target"] == COVERAGE))


def candidates(
    defaults: Mapping[str, Any],
    named: Mapping[str, Any],
    overrides: Sequence[str],
    count: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The defaults, and draws from the method's space in the study `fusion`, `count` in all.

    `named` is what makes the arm (the rule of late fusion) and stays. All methods draw from the
    same stream.
    """
    trainable = defaults["trainable"]
    space = load("fusion", [f"trainables=[{trainable}]", *overrides]).search_space()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = optuna.create_study(sampler=RandomSampler(seed=seed))
    drawn = [space.suggest(draws.ask()) for _ in range(count - 1)]
    return [dict(defaults), *({**config, **named} for config in drawn)]


def validated(unit: Unit) -> float:
    """`CHOSEN_BY` of a candidate; infinite where its training diverges."""
    torch.set_num_threads(1)
    kept = unit.kept.with_suffix(".json")
    if not kept.is_file():
        training = _trained(unit)
        figures = training.evaluate(_samples(unit, Split.VAL), batch_size=64).compute()
        _keep(kept, {"config": dict(unit.config), CHOSEN_BY: figures[CHOSEN_BY]})
    value = float(json.loads(kept.read_text(encoding="utf-8"))[CHOSEN_BY])
    return math.inf if math.isnan(value) else value


def judged(unit: Unit) -> None:
    """Train a model and judge it on test, unless that was done."""
    torch.set_num_threads(1)
    if unit.kept.with_suffix(".json").is_file():
        return
    training = _trained(unit)
    manifest = training.manifest

    def on(split: Split, level: Level = FULL, scores: SampleScores | None = None) -> Any:
        return training.evaluate(_samples(unit, split), level, batch_size=64, scores=scores)

    scores = SampleScores(Task.CLASSIFICATION)
    test, validation = on(Split.TEST, scores=scores), on(Split.VAL, CLEAN)
    outside = on(Split.OOD, CLEAN) if manifest.split_counts.get(Split.OOD) else None
    card = {
        "fingerprint": manifest.fingerprint,
        "config": dict(unit.config),
        "metrics": test.compute(),
        "ood": outside.compute() if outside else {},
        "selective": selective(validation, test, outside),
        "reliance": _reliance(training, _samples(unit, Split.TEST)),
    }
    patients = origins(Folder(unit.data), Split.TEST, scores.sample_ids, _KEY).patients
    columns = {
        f"{condition}|{name}": values
        for condition in scores.conditions
        for name, values in scores.columns(condition).items()
    }
    unit.kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        unit.kept.with_suffix(".npz"), allow_pickle=False, patients=np.array(patients), **columns
    )
    _keep(unit.kept.with_suffix(".json"), card)  # last: what has a card is done


def read_judged(kept: Path) -> Judged:
    """What `judged` has kept."""
    card = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    scores: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(kept.with_suffix(".npz"), allow_pickle=False) as arrays:
        patients = arrays["patients"].tolist()
        for key in (key for key in arrays.files if key != "patients"):
            condition, _, name = key.partition("|")
            scores.setdefault(condition, {})[name] = arrays[key]
    return Judged(card, scores, patients)


def _study(unit: Unit) -> Study:
    return load("fusion", [f"data={unit.data}", *unit.overrides])


def _trained(unit: Unit) -> TrialTraining:
    manifest = Manifest.load(unit.data)
    training = TrialTraining(unit.config, manifest, evaluation_plan(_study(unit)))
    samples = _samples(unit, Split.TRAIN)
    for _ in range(unit.config["epochs"]):
        training.epoch(samples)
    return training


def _samples(unit: Unit, split: Split) -> Samples:
    return Samples.read(unit.data, split)


def _reliance(training: TrialTraining, samples: Samples) -> dict[str, Any]:
    """How the weights follow quality; empty for a method without weights."""
    worse = partial(
        corrupt,
        name=MIXED,
        severity=MIXED_SEVERITY,
        manifest=training.manifest,
        suite=training.plan.suite,
    )
    trainable = TRAINABLES[training.config["trainable"]](training.config, training.manifest)
    with frozen(training.network), torch.inference_mode():
        if trainable.predict(training.network, samples.batch([0])).reliability is None:
            return {}
    batches = (worse(batch) for batch in samples.sweep(64))
    return dict(reliance(trainable, training.network, batches).compute())


def _keep(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1))
