"""Sweeps of several classes and of regions, from generated images to the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.distributed.sweep.test_sweep import trustsweep
from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.report.sections.images.panel import TINTS, panel
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import State
from trustsweep.trainables.metrics.catalog import all_names

pytestmark = pytest.mark.slow

#: Of the phantoms, by target: the task, and what is evaluated by itself.
PARTS = {
    "classes": (TaskName.MULTICLASS_SEGMENTATION, "class", ["lung", "infection"]),
    "regions": (TaskName.REGION_SEGMENTATION, "region", ["lung", "infection", "core"]),
}
STUDY: dict[str, Any] = {
    "name": "several",
    "methods": "fitting",
    "objectives": ["dice_lesion_area", "clean.ece_region"],
    "constraints": ["skill.clean.dice_lesion >= 0.01"],
    "space": {
        "epochs": 4,
        "batch_size": 16,
        "width": 8,
        "learning_rate": 0.01,
        "regime": "none",
        "dice_weight": 0.5,
        "class_balance": "sqrt-weights",
        "risk": "cross-entropy",
        "kl_weight": 0.01,
        "weight_decay": 0.0,
        "corruption_fraction": 0.0,
        "unet.ace_weight": 0.1,
    },
    "search": {"trials": 2, "sampler": "grid"},
    "evaluation": {
        "epsilons": [0, 0.02],
        "attack_steps": 3,
        "corruptions": ["gaussian-noise"],
        "severities": [3],
        "final": "fast",
    },
}


@pytest.fixture(scope="module", params=PARTS)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both U-Nets on 400 images of 32 pixels."""
    folder = tmp_path_factory.mktemp(request.param)
    prepare(None, "phantoms", folder / "data", size=32, count=400, target=request.param)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    data = folder / "data"
    done = trustsweep("sweep", folder / "study.yaml", "--data", data, "--out", folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def test_both_methods_learn_and_are_judged_by_every_metric_of_the_task(swept: Path) -> None:
    run = Run.open(swept)
    task, _, _ = PARTS[swept.parent.name.rstrip("0123456789")]
    records = run.ledger.of(State.COMPLETED)
    assert {record.config["method"] for record in records} == {"unet", "evidential-unet"}
    for record in records:
        assert set(all_names(run.plan, task)) <= record.metrics.keys()
        # Lungs are found within seconds, and no fixed mask is as good.
        assert record.metrics["skill.clean.dice_lesion"] > 0.1
        assert record.metrics["attacked@0.02.dice_lesion"] < record.metrics["clean.dice_lesion"]
    trivial = json.loads((swept / "trivial.json").read_text())
    assert 0 < trivial["val"]["fixed mask"]["dice_lesion"] < 1


def test_cards_tables_and_arrays_have_every_class_or_region(swept: Path) -> None:
    run = Run.open(swept)
    _, part, names = PARTS[swept.parent.name.rstrip("0123456789")]
    for card in run.front_cards:
        assert card.groups is not None
        rows = {row.value: row for row in card.groups.rows if row.group == part}
        assert list(rows) == names
        for row in rows.values():
            assert row.positive is not None
            assert 0 < row.positive <= row.images
            dice = row.figures["clean.dice_lesion"]
            assert dice.low <= dice.value <= dice.high
        mean = np.mean([row.figures["clean.dice_lesion"].value for row in rows.values()])
        assert card.metrics["clean.dice_lesion"] == pytest.approx(mean)
        table = pq.read_table(swept / "evaluation" / f"{card.id}.parquet").to_pydict()
        assert all(len(values) == len(names) for values in table["dice"])
        assert card.temperature is not None
        shown = panel(card)
        assert shown is not None
        assert shown.legend == list(zip(names, TINTS, strict=False))
        assert shown.outlined == (part == "region")
        tinted = {tuple(c) for row in shown.rows for c in row.truth.pixels.reshape(-1, 3).tolist()}
        if shown.outlined:
            assert set(TINTS[:2]) <= tinted


def test_the_report_shows_them(swept: Path) -> None:
    _, part, names = PARTS[swept.parent.name.rstrip("0123456789")]
    page = (swept / "report.html").read_text(encoding="utf-8")
    for name in names:
        assert f"{part} {name}" in page
        assert f"</span>{name}" in page
    assert "are outlined by region" in page or part == "class"


def test_a_model_is_trained_and_a_study_planned_for_them(swept: Path, tmp_path: Path) -> None:
    data = swept.parent / "data"
    out = tmp_path / "single"
    done = trustsweep("train", "evidential-unet", "--data", data, "--out", out, *_SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = Run.open(out).ledger.of(State.COMPLETED)
    assert record.config["method"] == "evidential-unet"
    # The default objectives are the task's.
    assert Run.open(out).objectives[0].name == "dice_lesion_area"
    planned = trustsweep("sweep", "all-segmentation", "--data", data, "--out", out, "--dry-run")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "evidential-unet" in planned.stdout


_SETTINGS = [
    item
    for setting in (
        "space.epochs=1",
        # Another network than the default, and images in patches.
        "space.network=deeplabv3",
        "space.width=4",
        "space.patch_size=20",
        "evaluation.epsilons=[0, 0.01]",
        "evaluation.attack_steps=1",
        "evaluation.severities=[3]",
        "evaluation.final=fast",
    )
    for item in ("--set", setting)
]
