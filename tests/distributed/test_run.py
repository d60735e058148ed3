import csv
import json
from dataclasses import replace

import pytest

from data_pipelines.errors import UserError
from data_pipelines.schema import Manifest
from distributed.checks import objectives_of
from distributed.ledger import Record, State
from distributed.report import render_page, write_report
from distributed.run import Run, identifier
from search_spaces.study import Study
from trainables.metrics.catalog import COSTS

STUDY = Study.model_validate(
    {
        "name": "s",
        "trainables": ["unet"],
        "objectives": ["dice_area", "clean.ece"],
        "constraints": ["clean.dice >= 0.5"],
    }
)
OBJECTIVES = objectives_of(STUDY)


def record(name, area, ece, dice=0.9, state=State.COMPLETED) -> Record:
    metrics = {"dice_area": area, "clean.ece": ece, "clean.dice": dice}
    return Record(id=name, config={"trainable": "unet"}, state=state, metrics=metrics)


@pytest.fixture
def run(tmp_path, phantoms) -> Run:
    run = Run.create(tmp_path / "run")
    for entry in (
        record("robust", 0.8, 0.2),
        record("calibrated", 0.5, 0.05),
        record("beaten", 0.5, 0.2),
        record("infeasible", 0.99, 0.01, dice=0.1),
        record("failed", 1.0, 0.0, state=State.FAILED),
        record("stopped", 1.0, 0.0, state=State.STOPPED),
        record("running", 1.0, 0.0, state=State.RUNNING),
    ):
        run.ledger.end(entry)
    run.write_study(STUDY, Manifest.load(phantoms))
    return run


def test_only_feasible_finished_models_reach_the_front(run):
    front = run.front(OBJECTIVES, STUDY.constraints)
    assert [r.id for r in front] == ["robust", "calibrated"]
    everything = run.front(OBJECTIVES, [])
    assert [r.id for r in everything] == ["infeasible"]


def test_the_views_come_back_from_ledger_and_study_alone(run):
    opened = Run.open(run.path)
    opened.write_views(opened.study)
    with (run.path / "front.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["robust", "calibrated"]
    with (run.path / "hypervolume.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["robust", "calibrated", "beaten"]
    volumes = [float(row["hypervolume"]) for row in rows]
    # from the worst corner (0, 1): 0.8 x 0.8, then 0.5 x 0.15 more, then nothing more
    assert volumes == pytest.approx([0.64, 0.715, 0.715])


def test_the_summary_says_what_became_of_the_trials_and_what_they_took(run):
    run.ledger.session(version="1")
    costs = dict.fromkeys(COSTS, 2.0)
    for name, peak in (("a", 5.0), ("b", 7.0)):
        entry = record(name, 0.1, 0.5)
        metrics = {**entry.metrics, **costs, "cost.peak_memory": peak}
        run.ledger.end(replace(entry, metrics=metrics, ended=10.0 * peak))
    run.write_views(STUDY, interrupted="the disk is full")
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["counts"] == {"completed": 6, "failed": 1, "stopped": 1, "running": 1}
    assert (summary["sessions"], summary["interrupted"]) == (1, "the disk is full")
    assert summary["seconds"] == 70.0
    assert summary["cost"] == {**dict.fromkeys(COSTS, 4.0), "cost.peak_memory": 7.0}
    run.write_views(STUDY, seconds=81.5)
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["seconds"], summary["interrupted"]) == (81.5, None)


def test_a_run_that_was_killed_has_a_report(run):
    opened = Run.open(run.path)
    opened.write_views(opened.study)
    page = render_page(run.path)
    assert "calibrated" in page
    assert "running" in page


def test_a_run_without_a_finished_trial_has_a_report(tmp_path, phantoms):
    run = Run.create(tmp_path / "none")
    run.write_study(STUDY, Manifest.load(phantoms))
    run.ledger.end(record("failed", 1.0, 0.0, state=State.FAILED))
    run.write_views(run.study)
    assert write_report(run.path).is_file()


def test_a_run_is_never_written_over(run, tmp_path):
    with pytest.raises(UserError, match="not empty"):
        Run.create(run.path)
    with pytest.raises(UserError, match="no run here"):
        Run.open(tmp_path)


def test_an_encoder_counts_by_its_content_in_the_name_of_a_trial(phantoms, tmp_path):
    identify = identifier(STUDY, Manifest.load(phantoms))
    for name, content in {"a": b"1", "b": b"1", "c": b"2"}.items():
        (tmp_path / name).write_bytes(content)
    names = [identify({"encoder": str(tmp_path / name)}) for name in ("a", "b", "c")]
    assert names[0] == names[1] != names[2]
    assert identify({"encoder": ""}) not in names
