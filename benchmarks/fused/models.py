"""Judging one model of benchmarks/fusion.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comparing.models import BATCH, EvaluatedModel, Unit, is_evaluated, save_evaluation, trained

from trustsweep.data_pipelines.corruptions.suite import corrupt
from trustsweep.data_pipelines.schema import Split, TaskName
from trustsweep.data_pipelines.streams import Samples
from trustsweep.distributed.sweep.selective import selective
from trustsweep.distributed.sweep.test_evaluation import MIXED, MIXED_SEVERITY
from trustsweep.distributed.workers.fidelity import CLEAN, FULL, Level
from trustsweep.distributed.workers.model import Model
from trustsweep.trainables.reliance import reliance
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

#: What a configuration is chosen by, on validation: a proper score where modalities are worse or
#: missing, as a model that is only accurate or only modest does not win it.
CHOSEN_BY = "corrupted.nll"
#: Of the shares to answer (`trustsweep.distributed.sweep.selective`), the one that abstention is
#: tested at.
COVERAGE = 0.8


def threshold(model: EvaluatedModel) -> float:
    """The uncertainty that validation chose for `COVERAGE`."""
    entries = model.card["selective"]["thresholds"]
    return float(next(e["threshold"] for e in entries if e["target"] == COVERAGE))


def evaluate_unit(unit: Unit) -> None:
    """Train a model and evaluate it on test, unless that was done."""
    torch.set_num_threads(1)
    if is_evaluated(unit):
        return
    training = trained(unit)
    manifest = training.manifest

    def on(split: Split, level: Level = FULL, scores: SampleScores | None = None) -> Any:
        return training.model.evaluate(unit.samples(split), level, batch_size=BATCH, scores=scores)

    scores = SampleScores(task_named(TaskName.CLASSIFICATION))
    test, validation = on(Split.TEST, scores=scores), on(Split.VAL, CLEAN)
    outside = on(Split.OOD, CLEAN) if manifest.split_counts.get(Split.OOD) else None
    card = {
        "fingerprint": manifest.fingerprint,
        "config": dict(unit.config),
        "metrics": test.compute(),
        "ood": outside.compute() if outside else {},
        "selective": selective(validation, test),
        "reliance": _reliance(training.model, unit.samples(Split.TEST)),
    }
    save_evaluation(unit, card, scores)


def _reliance(model: Model, samples: Samples) -> dict[str, Any]:
    """How the weights follow quality; empty for a method without weights."""
    degraded = partial(
        corrupt,
        name=MIXED,
        severity=MIXED_SEVERITY,
        manifest=model.manifest,
        suite=model.plan.suite,
    )
    if model.predict(samples.batch([0])).modality_weights is None:
        return {}
    batches = (degraded(batch) for batch in samples.sweep(BATCH))
    return dict(reliance(model.method, model.network, batches).compute())
