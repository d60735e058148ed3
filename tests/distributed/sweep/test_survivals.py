"""A sweep of times to an event, from generated images to the report."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.distributed.sweep.test_sweep import trustsweep
from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import State
from trustsweep.trainables.metrics.catalog import all_names

STUDY: dict[str, Any] = {
    "name": "times",
    "methods": ["classifier", "healnet"],
    "objectives": ["c_index_area", "clean.integrated_brier"],
    "space": {"epochs": 2, "batch_size": 32, "selection_score": "mean", "regime": "random"},
    "search": {"trials": 2, "sampler": "random"},
    "evaluation": {
        "epsilons": [0, 0.02],
        "attack_steps": 2,
        "corruptions": ["gaussian-noise"],
        "severities": [3],
        "final": "fast",
    },
}


@pytest.mark.slow
def test_a_sweep_of_survival_is_judged_by_every_metric_of_the_task(tmp_path: Path) -> None:
    data, out, study = tmp_path / "data", tmp_path / "run", tmp_path / "study.yaml"
    prepare(None, "phantoms", data, size=16, count=300, survival=True)
    study.write_text(yaml.safe_dump(STUDY))
    done = trustsweep("sweep", study, "--data", data, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run.open(out)
    records = run.ledger.of(State.COMPLETED)
    assert len(records) == 2
    for record in records:
        assert set(all_names(run.plan, TaskName.SURVIVAL)) <= record.metrics.keys()
        assert 0 <= record.metrics["clean.c_index"] <= 1
    assert run.front_cards
    for card in run.front_cards:
        table = pq.read_table(out / "evaluation" / f"{card.id}.parquet").to_pydict()
        assert {"time", "event", "risk"} <= set(table)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ">Survival by predicted risk</h2>" in page
