"""One model of a comparison: tuned, trained and evaluated without Ray; everything is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.samplers import RandomSampler

from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.run.folder import evaluation_plan
from trustsweep.distributed.run.sample_table import origins
from trustsweep.distributed.workers.training import Training
from trustsweep.search_spaces.study import load
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.sample_scores import SampleScores

#: Samples evaluated at once.
BATCH = 64
#: Key of the patients' hashes.
_KEY = b"comparison"


@dataclass(frozen=True)
class Unit:
    """One model to train.

    Attributes:
        data: The fold's folder.
        kept: Where the model's figures are kept, without an ending.
        study: Its space and evaluation, with `overrides`.
        chosen_by: Configurations are chosen by the mean of these figures of validation, the least
            the best.
    """

    data: Path
    kept: Path
    config: Mapping[str, Any]
    study: str
    overrides: tuple[str, ...]
    chosen_by: tuple[str, ...]

    def samples(self, split: Split) -> Samples:
        return Samples.read(self.data, split)

    def file(self, ending: str, kind: str = "") -> Path:
        """A file of the unit; `kind` distinguishes several evaluations of the same model."""
        return self.kept.with_name(f"{self.kept.name}{kind}{ending}")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model on the test samples of its fold.

    Attributes:
        card: `fingerprint`, `config`, `metrics` and what the comparison adds.
        scores: By condition the columns of `SampleScores`.
        patients: Of each sample.
    """

    card: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, NDArray[Any]]]
    patients: Sequence[str]


def candidates(
    study: str,
    defaults: Mapping[str, Any],
    named: Mapping[str, Any],
    overrides: Sequence[str],
    count: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The defaults, and draws from the method's space in a study, `count` in all.

    `named` is what makes the arm (the rule of late fusion) and stays. All methods draw from the
    same stream.
    """
    method = defaults["method"]
    space = load(study, [f"methods=[{method}]", *overrides]).search_space()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = optuna.create_study(sampler=RandomSampler(seed=seed))
    drawn = [space.suggest(draws.ask()) for _ in range(count - 1)]
    return [dict(defaults), *({**config, **named} for config in drawn)]


def validated(unit: Unit) -> float:
    """The score that a candidate is chosen by; infinite where its training diverges."""
    torch.set_num_threads(1)
    kept = unit.file(".json")
    if not kept.is_file():
        training = trained(unit)
        figures = training.evaluate(unit.samples(Split.VAL), batch_size=BATCH).compute()
        _keep(kept, {"config": dict(unit.config), **{k: figures[k] for k in unit.chosen_by}})
    metrics = json.loads(kept.read_text(encoding="utf-8"))
    value = math.fsum(metrics[name] for name in unit.chosen_by) / len(unit.chosen_by)
    return math.inf if math.isnan(value) else value


def trained(unit: Unit) -> Training:
    """The unit's model after its epochs, on the CPU."""
    manifest = Manifest.load(unit.data)
    study = load(unit.study, [f"data={unit.data}", *unit.overrides])
    samples = unit.samples(Split.TRAIN)
    task = METHODS[unit.config["method"]](unit.config, manifest).task
    prior = task.read_prior(samples.sweep(BATCH))
    training = Training(unit.config, manifest, evaluation_plan(study), prior=prior)
    for _ in range(unit.config["epochs"]):
        training.epoch(samples)
    return training


def save_evaluation(
    unit: Unit, card: Mapping[str, Any], scores: SampleScores, kind: str = ""
) -> None:
    """Write what `load_evaluation` reads, of the test samples."""
    patients = origins(Folder(unit.data), Split.TEST, scores.sample_ids, _KEY).patients
    columns = {
        f"{condition}|{name}": values
        for condition in scores.conditions
        for name, values in scores.columns(condition).items()
    }
    unit.kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        unit.file(".npz", kind), allow_pickle=False, patients=np.array(patients), **columns
    )
    _keep(unit.file(".json", kind), card)  # last: what has a card is done


def is_evaluated(unit: Unit, kind: str = "") -> bool:
    return unit.file(".json", kind).is_file()


def load_evaluation(unit: Unit, kind: str = "") -> EvaluatedModel:
    """What `save_evaluation` has written."""
    card = json.loads(unit.file(".json", kind).read_text(encoding="utf-8"))
    scores: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(unit.file(".npz", kind), allow_pickle=False) as arrays:
        patients = arrays["patients"].tolist()
        for key in (key for key in arrays.files if key != "patients"):
            condition, _, name = key.partition("|")
            scores.setdefault(condition, {})[name] = arrays[key]
    return EvaluatedModel(card, scores, patients)


def _keep(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1))
