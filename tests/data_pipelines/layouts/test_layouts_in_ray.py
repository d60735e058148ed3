"""Every layout as far as a training step: through Ray Data to a worker of Ray Train."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.torch

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.schema import Batch, Manifest, Split, TaskName
from trustsweep.data_pipelines.streams import Mode, SampleSource, materialise
from trustsweep.distributed.sweep.job import sweep
from trustsweep.search_spaces.study import load

pytestmark = pytest.mark.slow

SIZE = 16
#: Layouts that can give volumes, and the option that asks for them.
VOLUMES = {"brats": {"dims": 3}, "lgg": {"dims": 3}, "nnunet": {"dims": 3}}
#: And options that give another kind of mask.
MASKS = {"brats": {"target": "regions", "slices": 4}, "phantoms": {"target": "regions"}}
#: And options that give times to an event.
TIMES = {"phantoms": {"survival": True}}


def _shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    fields = (
        *("image", "mask", "label", "tabular", "series", "series_mask", "series_delta"),
        *("present", "time", "event", "interval"),
    )
    values = {name: getattr(batch, name) for name in fields} | batch.more_images
    return {name: tuple(value.shape) for name, value in values.items() if value is not None}


def _expected(manifest: Manifest, rows: int) -> dict[str, tuple[int, ...]]:
    """What the manifest promises of a batch, but for the length of series."""
    shapes: dict[str, tuple[int, ...]] = {"image": (rows, *(manifest.image_shape or (0,)))}
    shapes |= {name: (rows, *spec.shape) for name, spec in manifest.more_images.items()}
    if manifest.mask_names:
        shapes["mask"] = (rows, len(manifest.regions) or 1, *manifest.image_shape[1:])
    if TaskName.MULTILABEL in manifest.tasks:
        shapes["label"] = (rows, len(manifest.classes))
    elif TaskName.CLASSIFICATION in manifest.tasks:
        shapes["label"] = (rows,)
    if TaskName.SURVIVAL in manifest.tasks:
        shapes |= dict.fromkeys(("time", "event", "interval"), (rows,))
    if manifest.tabular:
        shapes["tabular"] = (rows, len(manifest.tabular))
    if len(manifest.modalities) > 1:
        shapes["present"] = (rows, len(manifest.modalities))
    return shapes


def _work(config: dict[str, Any]) -> None:
    """Take one step's batch of every data set, shared and streamed, and compare its shapes."""
    manifests: dict[str, Manifest] = config["manifests"]
    wrong = []
    for name, manifest in manifests.items():
        for mode in (Mode.MATERIALISED, Mode.STREAMED):
            stream = SampleSource(mode, config["folders"][name], tasks=1).open(
                Split.TRAIN, manifest, "cpu", lambda _, name=name: ray.train.get_dataset_shard(name)
            )
            batch, _ = next(iter(stream.epoch(4, seed=0, epoch=0, epochs=1)))
            stream.close()
            shapes, expected = _shapes(batch), _expected(manifest, len(batch))
            if {k: shapes.get(k) for k in expected} != expected:
                wrong.append(f"{name} {mode}: {shapes}, not {expected}")
            if bool(manifest.series) != ("series" in shapes):
                wrong.append(f"{name} {mode}: series")
    answer = {"wrong": wrong, "seen": sorted(manifests)}
    Path(config["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def test_every_layout_gives_a_worker_batches_of_the_shapes_it_promises(
    local_ray, miniature, tmp_path
):
    wanted: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in LAYOUTS]
    wanted += [*VOLUMES.items(), *MASKS.items(), *TIMES.items()]
    folders, manifests, datasets = {}, {}, {}
    for name, options in wanted:
        key = "-".join([name, *map(str, options.values())])
        folder = None if name == "phantoms" else miniature(name)
        report = prepare(folder, name, tmp_path / key, size=SIZE, **options)
        folders[key], manifests[key] = str(tmp_path / key), report.manifest
        datasets[key] = materialise(tmp_path / key, [Split.TRAIN])["train"]
    tasks = {task for manifest in manifests.values() for task in manifest.tasks}
    assert tasks == set(TaskName)
    assert {manifest.spatial_dims for manifest in manifests.values()} == {0, 2, 3}
    answer = tmp_path / "answer.json"
    ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"manifests": manifests, "folders": folders, "answer": str(answer)},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path / "ray")),
        datasets=datasets,
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    ).fit()
    found = json.loads(answer.read_text(encoding="utf-8"))
    assert found == {"wrong": [], "seen": sorted(manifests)}


@pytest.mark.parametrize("name", ["brats", "covid-cxr-segmentations"])
def test_the_main_job_runs_on_volumes_and_images(local_ray, miniature, tmp_path, name):
    data = tmp_path / "data"
    prepare(miniature(name), name, data, size=SIZE, **VOLUMES.get(name, {}))
    small = ["space.epochs=1", "space.width=4", "evaluation.attack_steps=1", "search.trials=2"]
    # After one epoch a model may have no skill yet.
    unbound = ["constraints=[]", "objectives=[dice_lesion_area, clean.brier]"]
    study = load("quick", [f"data={data}", *small, *unbound])
    run = sweep(study, tmp_path / "run")
    with (run.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["completed"] * 2
    assert (run.path / "report.html").stat().st_size > 10_000
    assert Path(run.path / "front.csv").read_text().count("\n") >= 2
