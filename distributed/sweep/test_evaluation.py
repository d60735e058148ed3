"""Evaluation on the test split, once per model, in parallel.

Covers the models of the front, their repeats under other seeds, and the baseline.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import corrupt
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Streamed
from trustsweep.distributed.run.checkpoints import load_model
from trustsweep.distributed.run.evaluation_card import CARD_VERSION, EvaluationCard
from trustsweep.distributed.run.folder import Run, evaluation_plan
from trustsweep.distributed.run.ledger import SEARCH, Record
from trustsweep.distributed.run.sample_table import origins, salt, write_table
from trustsweep.distributed.statistics.estimates import estimates, group_estimates, headline_names
from trustsweep.distributed.statistics.inference import Estimate
from trustsweep.distributed.sweep.robustness import SAMPLES, attack_card, attacked_again
from trustsweep.distributed.sweep.selective import selective
from trustsweep.distributed.workers.fidelity import CLEAN, FULL, Level
from trustsweep.distributed.workers.model import Model
from trustsweep.search_spaces.study import Study
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.evaluation import CLEAN as CLEAN_NAME
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.skill import TrivialMetrics, triviality
from trustsweep.trainables.registry import FULL as FULL_ATTACK
from trustsweep.trainables.reliance import reliance, weighed_samples
from trustsweep.trainables.sample_scores import SampleScores

if TYPE_CHECKING:
    from trustsweep.distributed.sweep.plan import PreparedSweep

#: Test images that the report shows, and samples with the weights of their modalities.
PANEL_IMAGES, WEIGHED_SAMPLES = 6, 24
#: The corruption for modality weights: each modality degrades on its own.
MIXED, MIXED_SEVERITY = "mixed-quality", 5

#: Metrics reported before and after temperature scaling.
TEMPERED = ("ece", "mce", "ece_region", "nll", "brier")

Arrays = dict[str, np.ndarray]


def evaluate_on_test(prepared: PreparedSweep, run: Run, records: list[Record]) -> None:
    """Write `evaluation/<id>.json` for each model that has no current card.

    A model is evaluated again if the study now names a stronger final attack or other objectives.
    Models of the search also get `evaluation/<id>.npz`, the samples that the report shows, and
    `evaluation/<id>.parquet`, the scores of each sample.
    """
    run.evaluation.mkdir(exist_ok=True)
    salt(run.path)  # before several tasks need it at once
    needs = prepared.resources.per_worker
    task = ray.remote(evaluate_model).options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0))
    assert prepared.study.data is not None
    data = Folder(prepared.study.data).resolved()
    ray.get(
        [
            task.remote(
                prepared.study,
                data,
                prepared.manifest,
                record,
                run.path,
                run.checkpoints,
                prepared.trivial.prior,
            )
            for record in records
            if not has_card(run.path, record, prepared.study)
        ]
    )


def has_card(run: Path, record: Record, study: Study) -> bool:
    """Whether a model has a card in the run folder that covers what the study requests."""
    path = _card(run, record)
    if not path.is_file():
        return False
    card = json.loads(path.read_text(encoding="utf-8"))
    # A card of another version is written again.
    current = card.get("asked") == _requested(study, record)
    return card.get("version") == CARD_VERSION and bool(current)


def evaluate_model(
    study: Study,
    data: Folder,
    manifest: Manifest,
    record: Record,
    run: Path,
    checkpoints: Path,
    prior: Prior | None = None,
) -> None:
    """Write one model's card, and its arrays and table where it has any.

    The card is an `EvaluationCard`; of its parts, see `robustness.attack_card`, `selective`,
    `_cooled`, `Task.described` and, for a method that weighs modalities, `Reliance`. Metrics and
    curves of the test split are under the attack that the study's `evaluation.final` names.
    Models of the search have `estimates` (headline figures of each split with their 95 %
    intervals, under the attack of the search; of the test split those under the full one beside
    them, as `final`) and `groups` (see `estimates.group_estimates`), and beside the card every
    sample's scores (see `sample_table`). `prior` is what the trivial predictors know of the train
    split.
    """
    import torch

    held_out = manifest.split_counts.get(Split.OOD, 0)
    plan = dataclasses.replace(evaluation_plan(study), sites=held_out > 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(record.config, manifest, plan, device=device, prior=prior)
    load_model(checkpoints / record.id, model.network)
    size = study.evaluation.batch_size
    samples = Streamed(data, Split.TEST, manifest)
    evaluator = _SplitEvaluator(model, data, size, gather=record.stage == SEARCH)
    evaluation = evaluator.split(Split.TEST)
    if plan.sites:
        evaluation.merge(evaluator.split(Split.OOD))
    metrics, trivial = evaluation.compute(), evaluation.trivial()
    hardest, again = evaluation, None
    if plan.budgets and study.evaluation.final == FULL_ATTACK != plan.attack:
        if evaluator.gathered is not None:
            again = SampleScores(evaluation.task, plan.uncertainty)
        hardest = attacked_again(model, samples, size, again)
    final = None if hardest is evaluation else hardest.compute()
    strongest = max(plan.epsilons)
    card: dict[str, Any] = {
        "id": record.id,
        "split": str(Split.TEST),
        "classes": list(manifest.regions or manifest.classes),
        "config": record.config,
        "code": record.code,
        "asked": _requested(study, record),
        "metrics": metrics | (final or {}),
        "trivial": trivial,
        "triviality": triviality(metrics, trivial),
        "curves": hardest.curves() if plan.budgets else {},
        "reliability": {
            condition: hardest.reliability(condition)
            for condition in dict.fromkeys(("clean", attacked_name(strongest)))
        },
    }
    arrays: Arrays = {}
    if record.stage == SEARCH and manifest.image_shape:
        arrays = model.panel(panel_batch(samples), strongest)
        arrays["epsilon"] = np.array(strongest, dtype=np.float32)
    if plan.sites:
        card["ood"] = {"samples": held_out}
    # Intervals need every condition of the search; thresholds only the clean images.
    validation = evaluator.split(Split.VAL, CLEAN if evaluator.gathered is None else FULL)
    card["selective"] = selective(validation, evaluation)
    ends = {CLEAN_NAME: evaluation, attacked_name(strongest): hardest}
    answers = {condition: source.answers(condition) for condition, source in ends.items()}
    card |= evaluation.task.described(answers, manifest)
    card["temperature"] = _cooled(model, data, size, validation, metrics)
    weights, shown = _weights(model, samples, size)
    card |= weights
    arrays |= shown if record.stage == SEARCH else {}
    if plan.budgets:
        few = panel_batch(samples, SAMPLES[study.evaluation.final])
        card["attack"] = attack_card(model, study.evaluation, few, metrics, final)
    path = _card(run, record)
    if evaluator.gathered is not None:
        known = {Split.TEST: trivial, Split.VAL: validation.trivial()}
        if plan.sites:
            known[Split.OOD] = evaluation.trivial(Split.OOD)
        names = evaluation.task.trivial.names(manifest)
        card |= _estimated(evaluator.gathered, again, known, study, plan, data, run, path, names)
    if arrays:
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    # Last: the card marks the model as evaluated.
    EvaluationCard.write(path, card)


class _SplitEvaluator:
    """Evaluates a model on whole splits; with `gather`, keeps the scores of each sample."""

    def __init__(self, model: Model, data: Folder, size: int, *, gather: bool) -> None:
        self._model, self._data, self._size = model, data, size
        self.gathered: dict[Split, SampleScores] | None = {} if gather else None

    def split(self, split: Split, level: Level = FULL) -> Evaluation:
        model = self._model
        scores = None
        if self.gathered is not None:
            scores = SampleScores(model.method.task, model.plan.uncertainty)
            self.gathered[split] = scores
        samples = Streamed(self._data, split, model.manifest)
        own = split if model.plan.of_split(split) else None
        return model.evaluate(samples, level, batch_size=self._size, scores=scores, split=own)


def _cooled(
    model: Model,
    data: Folder,
    size: int,
    validation: Evaluation,
    metrics: TrivialMetrics | Mapping[str, float],
) -> dict[str, Any]:
    """Clean calibration metrics before and after temperature scaling.

    Returns:
        "value", T as fitted on the validation split, and by split the clean metrics of
        `TEMPERED` that the task has, "before" and "after" their scores were divided by it.
    """
    val, test = (Streamed(data, split, model.manifest) for split in (Split.VAL, Split.TEST))
    value = model.fit_temperature(val, size)
    before = {Split.VAL: validation.compute(), Split.TEST: metrics}
    scaling: dict[str, Any] = {"value": value}
    for split, samples in ((Split.VAL, val), (Split.TEST, test)):
        after = model.evaluate(samples, CLEAN, batch_size=size, temperature=value).compute()
        names = [name for name in TEMPERED if f"clean.{name}" in after]
        scaling[str(split)] = {
            when: {name: values[f"clean.{name}"] for name in names}
            for when, values in (("before", before[split]), ("after", after))
        }
    return scaling


def _estimated(
    gathered: Mapping[Split, SampleScores],
    again: SampleScores | None,
    trivial: Mapping[Split, TrivialMetrics],
    study: Study,
    plan: EvaluationPlan,
    data: Folder,
    run: Path,
    card: Path,
    parts: Sequence[str],
) -> dict[str, Any]:
    """The card's `estimates` and `groups`; the samples' scores are written beside it."""
    key = salt(run)
    where = {s: origins(data, s, scores.sample_ids, key) for s, scores in gathered.items()}
    write_table(
        card.with_suffix(".parquet"), [(s, gathered[s], where[s]) for s in Split if s in gathered]
    )
    requested = [*study.objectives, *(constraint.metric for constraint in study.constraints)]
    part: dict[str, Any] = {"estimates": {}}
    for split in (s for s in Split if s in gathered):
        scores, patients = gathered[split], where[split].patients
        names = headline_names(scores.task, plan, requested, split)
        part["estimates"][str(split)] = {
            **where[split].counts,
            "figures": _plain(estimates(scores, plan, names, patients, trivial=trivial[split])),
        }  # fmt: skip
        if split is Split.TEST and again is not None:
            final = _plain(estimates(again, plan, names, patients, trivial=trivial[split]))
            part["estimates"][str(split)]["final"] = final
    tested = gathered[Split.TEST], plan, where[Split.TEST].patients
    groups = group_estimates(*tested, parts=parts)
    for row in groups.get("rows", ()):
        row["figures"] = _plain(row["figures"])
    return part | ({"groups": {"split": str(Split.TEST), **groups}} if groups else {})


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: dataclasses.asdict(estimate) for name, estimate in estimates.items()}


def _weights(model: Model, samples: Streamed, size: int) -> tuple[dict[str, Any], Arrays]:
    """The card's `weights` and the samples beside it; nothing for a method that weighs nothing."""
    manifest = model.manifest
    if len(manifest.sources) < 2:
        return {}, {}

    def mixed(batch: Batch) -> Batch:
        suite = model.plan.suite
        return corrupt(batch, MIXED, MIXED_SEVERITY, manifest=manifest, suite=suite)

    device = model.device
    few = samples.batch(_drawn(samples, WEIGHED_SAMPLES)).to(device)
    with model.autocast():
        arrays = weighed_samples(model.method, model.network, few, mixed(few))
        if not arrays:
            return {}, {}
        batches = (mixed(batch.to(device)) for batch in samples.sweep(size))
        correlations = reliance(model.method, model.network, batches).compute()
    names = [modality.name for modality in manifest.sources]
    return {"weights": {"modalities": names, "corruption": MIXED, **correlations}}, arrays


def _card(run: Path, record: Record) -> Path:
    return run / "evaluation" / f"{record.id}.json"


def _requested(study: Study, record: Record) -> dict[str, Any]:
    """The part of a study whose change calls for a new evaluation of the model."""
    metrics = {*study.objectives, *(constraint.metric for constraint in study.constraints)}
    # Only estimates depend on the metrics, and repeats have none.
    named = sorted(metrics) if record.stage == SEARCH else []
    return {"final": study.evaluation.final, "metrics": named}


def _drawn(samples: Streamed, count: int) -> list[int]:
    """The same samples for every model, drawn by a fixed hash."""
    order = np.argsort(draw_seeds(samples.sample_ids, "panel").numpy())
    return [int(row) for row in order[:count]]


def panel_batch(samples: Streamed, count: int = PANEL_IMAGES) -> Batch:
    """So many images, the same for every model; those with a lesion, or the most classes or
    regions, come first."""
    rows = _drawn(samples, count * 8)
    shown: list[int] = []
    # A few at a time, as so many volumes would fill a machine.
    for few in (rows[i : i + PANEL_IMAGES] for i in range(0, len(rows), PANEL_IMAGES)):
        mask = samples.batch(few).mask
        if mask is None:
            return samples.batch(rows[:count])
        shown += [sum(len(one.unique()) for one in sample) for sample in mask]
    # Stable: else in the order that they were drawn in.
    order = sorted(range(len(rows)), key=lambda place: -shown[place])
    return samples.batch([rows[place] for place in order[:count]])
