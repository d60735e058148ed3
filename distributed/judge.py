"""The last word on the front: its models on the test split, once each, in parallel.

So are the models that repeat those of the front under other seeds, and the baseline's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ray

from data_pipelines.corruptions.seeds import draw_seeds
from data_pipelines.machine import write_atomically
from data_pipelines.schema import Batch, Manifest, Split
from data_pipelines.storage import Folder
from data_pipelines.streams import Streamed
from distributed.checkpoints import load_model
from distributed.checks import evaluation_plan
from distributed.ledger import SEARCH, Record
from distributed.run import Run
from distributed.training import TrialTraining
from search_spaces.study import Study

if TYPE_CHECKING:
    from distributed.sweep import Prepared

#: Test images that the report shows.
PANEL_IMAGES = 6


def judge(prepared: Prepared, run: Run, records: list[Record]) -> None:
    """Write `evaluation/<id>.json` for each of the models, where it is not there already.

    A model of the search gets `evaluation/<id>.npz` as well, for the report's panel.
    """
    run.evaluation.mkdir(exist_ok=True)
    needs = prepared.resources.per_worker
    task = ray.remote(_judge).options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0))
    assert prepared.study.data is not None
    data = Folder(prepared.study.data).resolved()
    ray.get(
        [
            task.remote(prepared.study, data, prepared.manifest, record, run.path, run.checkpoints)
            for record in records
            if not _card(run.path, record).is_file()
        ]
    )


def _judge(
    study: Study, data: Folder, manifest: Manifest, record: Record, run: Path, checkpoints: Path
) -> None:
    import torch

    plan = evaluation_plan(study)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = TrialTraining(record.config, manifest, plan, device=device)
    load_model(checkpoints / record.id, training.network)
    samples = Streamed(data, Split.TEST, manifest)
    evaluation = training.evaluate(samples, batch_size=study.evaluation.batch_size)
    strongest = max(plan.epsilons)
    card = {
        "id": record.id,
        "split": str(Split.TEST),
        "classes": list(manifest.classes),
        "config": record.config,
        "metrics": evaluation.compute(),
        "curves": evaluation.curves(),
        "reliability": {
            condition: evaluation.reliability(condition)
            for condition in ("clean", f"attacked@{strongest:g}")
        },
    }
    path = _card(run, record)
    if record.stage == SEARCH:
        arrays = training.panel(_panel_batch(samples), strongest)
        arrays["epsilon"] = np.array(strongest, dtype=np.float32)
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    # Last: a model with a card is judged, and is not judged again.
    write_atomically(path, json.dumps(card, indent=2))


def _card(run: Path, record: Record) -> Path:
    return run / "evaluation" / f"{record.id}.json"


def _panel_batch(samples: Streamed) -> Batch:
    """The same images for every model, drawn by a fixed hash; those with a lesion come first."""
    order = np.argsort(draw_seeds(samples.sample_ids, "panel").numpy())
    batch = samples.batch(order[: PANEL_IMAGES * 8].tolist())
    rows = list(range(len(batch)))
    if batch.mask is not None:
        lesion = batch.mask.flatten(1).any(dim=1).tolist()
        rows = sorted(rows, key=lambda row: not lesion[row])
    return batch.select(rows[:PANEL_IMAGES])
