"""The arms of benchmarks/evidential.py, and the evaluation of one model of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from comparing.models import BATCH, Unit, candidates, is_evaluated, save_evaluation, trained

from trustsweep.data_pipelines.schema import Split, TaskName
from trustsweep.distributed.workers.fidelity import CLEAN
from trustsweep.search_spaces.study import BASELINE, load
from trustsweep.trainables.registry import FULL
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

STUDY = "evidential-arms"
CLASSICAL, ACE, EVIDENTIAL = "classical", "ace", "evidential"
NONE, RANDOM, UNCERTAIN, CERTAIN = "none", "random", "uncertain", "certain"
_TASK = task_named(TaskName.SEGMENTATION)
#: What a configuration is chosen by, on validation: a proper score of attacked and of corrupted
#: images, as a model that is only accurate or only modest does not win it.
CHOSEN_BY = ("attacked.brier", "corrupted.brier")
#: Further evaluations of a model: with its scores divided by a temperature, by the
#: entropy of its probability instead of the method's own uncertainty, under the full ensemble.
COOLED, BY_ENTROPY, FULLY = "-cooled", "-entropy", "-full"
#: Weights of mL1-ACE to be tuned among; 1 as published.
_ACE_WEIGHT = "space.ace_weight={low: 0.1, high: 3.0, log: true, default: 1.0}"


def arm_of(form: str, regime: str) -> str:
    return f"{form}-{regime}"


def configs(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every arm at its defaults, by name."""
    references = dict(load(STUDY, overrides).references())
    return {arm_of(CLASSICAL, NONE): dict(references.pop(BASELINE)), **references}


def drawn(
    arms: dict[str, dict[str, Any]], overrides: Sequence[str], count: int, arm: str, fold: int
) -> list[dict[str, Any]]:
    """The candidates of an arm on a fold: its defaults, and draws of what its method brings."""
    form, _, regime = arm.partition("-")
    own = [f"space.regime={regime}", *([_ACE_WEIGHT] if form == ACE else [])]
    return candidates(STUDY, arms[arm], {}, [*overrides, *_alone(own)], count, fold)


def _alone(overrides: Sequence[str]) -> list[str]:
    """As overrides of the study without its references, which a space of one form does not have."""
    return [*overrides, "seeds=1", "baseline=null", "variants={}"]


def evaluate_unit(unit: Unit) -> None:
    """Train a model and run every test evaluation but the full ensemble, unless that was done."""
    torch.set_num_threads(1)
    if is_evaluated(unit):
        return
    training = trained(unit)
    test, validation = unit.samples(Split.TEST), unit.samples(Split.VAL)
    temperature = training.model.fit_temperature(validation, BATCH)
    on_test = partial(training.model.evaluate, test, batch_size=BATCH)
    own, cooled = (
        SampleScores(_TASK),
        SampleScores(_TASK),
    )
    entropy = SampleScores(_TASK, "entropy")
    evaluation = on_test(scores=own)
    card = {
        "fingerprint": training.manifest.fingerprint,
        "config": dict(unit.config),
        "metrics": evaluation.compute(),
        "trivial": evaluation.trivial(),
        "temperature": temperature,
    }
    metrics = on_test(scores=cooled, temperature=temperature).compute()
    save_evaluation(unit, {**card, "metrics": metrics}, cooled, COOLED)
    metrics = on_test(CLEAN, scores=entropy).compute()
    save_evaluation(unit, {**card, "metrics": metrics}, entropy, BY_ENTROPY)
    save_evaluation(unit, card, own)


def evaluate_fully(unit: Unit) -> None:
    """Train it again and evaluate it under the full ensemble, unless that was done."""
    torch.set_num_threads(1)
    if is_evaluated(unit, FULLY):
        return
    scores = SampleScores(_TASK)
    evaluation = trained(unit).model.evaluate(
        unit.samples(Split.TEST), batch_size=BATCH, scores=scores, attack=FULL, attacked_alone=True
    )
    save_evaluation(
        unit, {"config": dict(unit.config), "metrics": evaluation.compute()}, scores, FULLY
    )
