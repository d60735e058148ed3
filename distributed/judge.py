"""The last word on the front: its models on the test split, once each, in parallel.

So are the models that repeat those of the front under other seeds, and the baseline's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from data_pipelines.corruptions.seeds import draw_seeds
from data_pipelines.corruptions.suite import corrupt
from data_pipelines.machine import write_atomically
from data_pipelines.schema import Batch, Manifest, Split, Task
from data_pipelines.storage import Folder
from data_pipelines.streams import Streamed
from distributed.checkpoints import load_model
from distributed.checks import evaluation_plan
from distributed.fidelity import CLEAN
from distributed.ledger import SEARCH, Record
from distributed.run import Run
from distributed.selective import selective
from distributed.training import TrialTraining
from search_spaces.study import Study
from trainables.evaluation import Evaluation
from trainables.metrics.catalog import attacked_name
from trainables.metrics.skill import triviality
from trainables.metrics.trivial import Prior
from trainables.registry import TRAINABLES
from trainables.reliance import reliance, weighed_samples

if TYPE_CHECKING:
    from distributed.sweep import Prepared

#: Test images that the report shows, and samples with the weights of their modalities.
PANEL_IMAGES, WEIGHED_SAMPLES = 6, 24
#: What weights of modalities are compared with: every modality worse on its own.
MIXED, MIXED_SEVERITY = "mixed-quality", 5

Arrays = dict[str, np.ndarray]


def judge(prepared: Prepared, run: Run, records: list[Record]) -> None:
    """Write `evaluation/<id>.json` for each of the models, where it is not there already.

    A model of the search gets `evaluation/<id>.npz` as well, for the samples that the report shows.
    """
    run.evaluation.mkdir(exist_ok=True)
    needs = prepared.resources.per_worker
    task = ray.remote(judge_model).options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0))
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
            if not _card(run.path, record).is_file()
        ]
    )


def judge_model(
    study: Study,
    data: Folder,
    manifest: Manifest,
    record: Record,
    run: Path,
    checkpoints: Path,
    prior: Prior | None = None,
) -> None:
    """Write one model's card, and its arrays where it has any.

    The card holds the model's `id` and `config`, the test split's `metrics`, `curves` against ε
    and `reliability` diagrams; `trivial`, the figures of the predictors that ignore the image, and
    `triviality`, a phrase where the model is no better; `selective` (see
    `distributed.selective`), `ood` (its samples and their clean metrics) where the data have that
    split, and `weights` (see `Reliance`, with the modalities' names) where the method weighs
    modalities. `prior` is what the trivial predictors know of the train split.
    """
    import torch

    plan = evaluation_plan(study)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = TrialTraining(record.config, manifest, plan, device=device, prior=prior)
    load_model(checkpoints / record.id, training.network)
    size = study.evaluation.batch_size
    samples = Streamed(data, Split.TEST, manifest)
    evaluation = training.evaluate(samples, batch_size=size)
    strongest = max(plan.epsilons)
    metrics, trivial = evaluation.compute(), evaluation.trivial()
    card: dict[str, Any] = {
        "id": record.id,
        "split": str(Split.TEST),
        "classes": list(manifest.classes),
        "config": record.config,
        "metrics": metrics,
        "trivial": trivial,
        "triviality": triviality(metrics, trivial),
        "curves": evaluation.curves() if plan.budgets else {},
        "reliability": {
            condition: evaluation.reliability(condition)
            for condition in dict.fromkeys(("clean", attacked_name(strongest)))
        },
    }
    arrays: Arrays = {}
    if record.stage == SEARCH and manifest.image_shape:
        arrays = training.panel(_panel_batch(samples), strongest)
        arrays["epsilon"] = np.array(strongest, dtype=np.float32)
    card |= _elsewhere(training, data, evaluation, size)
    if evaluation.task is Task.CLASSIFICATION:
        weights, shown = _weights(training, samples, size)
        card |= weights
        arrays |= shown if record.stage == SEARCH else {}
    path = _card(run, record)
    if arrays:
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    # Last: a model with a card is judged, and is not judged again.
    write_atomically(path, json.dumps(card, indent=2))


def _elsewhere(
    training: TrialTraining, data: Folder, test: Evaluation, size: int
) -> dict[str, Any]:
    """The card's `selective` and `ood`: what other splits of clean samples are needed for."""
    manifest = training.manifest

    def clean(split: Split) -> Evaluation:
        return training.evaluate(Streamed(data, split, manifest), CLEAN, batch_size=size)

    count = manifest.split_counts.get(Split.OOD, 0)
    ood = clean(Split.OOD) if count else None
    part: dict[str, Any] = {"selective": selective(clean(Split.VAL), test, ood)}
    if ood is not None:
        part["ood"] = {"samples": count, "metrics": ood.compute()}
    return part


def _weights(
    training: TrialTraining, samples: Streamed, size: int
) -> tuple[dict[str, Any], Arrays]:
    """The card's `weights` and the samples beside it; nothing for a method that weighs nothing."""
    import torch

    manifest = training.manifest
    if len(manifest.sources) < 2:
        return {}, {}
    trainable = TRAINABLES[training.config["trainable"]](training.config, manifest)

    def mixed(batch: Batch) -> Batch:
        suite = training.plan.suite
        return corrupt(batch, MIXED, MIXED_SEVERITY, manifest=manifest, suite=suite)

    device = training.device
    few = _drawn(samples, WEIGHED_SAMPLES).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        arrays = weighed_samples(trainable, training.network, few, mixed(few))
        if not arrays:
            return {}, {}
        batches = (mixed(batch.to(device)) for batch in samples.sweep(size))
        found = reliance(trainable, training.network, batches).compute()
    names = [modality.name for modality in manifest.sources]
    return {"weights": {"modalities": names, "corruption": MIXED, **found}}, arrays


def _card(run: Path, record: Record) -> Path:
    return run / "evaluation" / f"{record.id}.json"


def _drawn(samples: Streamed, count: int) -> Batch:
    """The same samples for every model, drawn by a fixed hash."""
    order = np.argsort(draw_seeds(samples.sample_ids, "panel").numpy())
    return samples.batch(order[:count].tolist())


def _panel_batch(samples: Streamed) -> Batch:
    """The images of the panel; those with a lesion come first."""
    batch = _drawn(samples, PANEL_IMAGES * 8)
    rows = list(range(len(batch)))
    if batch.mask is not None:
        lesion = batch.mask.flatten(1).any(dim=1).tolist()
        rows = sorted(rows, key=lambda row: not lesion[row])
    return batch.select(rows[:PANEL_IMAGES])
