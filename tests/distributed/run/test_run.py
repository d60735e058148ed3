import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.distributed.report.test_trivial import payload
from tests.distributed.run_folders import write_run
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.report.page import render_page, write_report
from trustsweep.distributed.report.sections.importances import importances
from trustsweep.distributed.report.sections.parallel import parallel
from trustsweep.distributed.report.wording import parameter
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Front, Run, identifier, objectives_of
from trustsweep.distributed.run.ledger import LEDGER, RUN_FORMAT, Record, State
from trustsweep.search_spaces.study import Study
from trustsweep.trainables.metrics.catalog import COSTS

STUDY = Study.model_validate(
    {
        "name": "s",
        "methods": ["unet"],
        "objectives": ["dice_area", "clean.ece"],
        "constraints": ["clean.dice >= 0.5"],
    }
)
OBJECTIVES = objectives_of(STUDY)


def record(name, area, ece, dice=0.9, state=State.COMPLETED) -> Record:
    metrics = {"dice_area": area, "clean.ece": ece, "clean.dice": dice}
    return Record(id=name, config={"method": "unet"}, state=state, metrics=metrics)


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
    assert [r.id for r in run.front] == [
        "calibrated",
        "robust",
    ]  # worst first by the first objective
    unbound = Front(OBJECTIVES, [], run.ledger.records.values())
    assert [r.id for r in unbound.records] == ["infeasible"]


def test_the_exports_come_back_from_ledger_and_study_alone(run):
    opened = Run.open(run.path)
    write_exports(opened)
    with (run.path / "front.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["calibrated", "robust"]
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
    write_exports(run)
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["counts"] == {"completed": 6, "failed": 1, "stopped": 1, "running": 1}
    assert (summary["sessions"], summary["interrupted"]) == (1, None)
    assert summary["seconds"] == 70.0
    assert summary["cost"] == {**dict.fromkeys(COSTS, 4.0), "cost.peak_memory": 7.0}
    run.ledger.close(81.5, "the disk is full")
    write_exports(run.reread())
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["seconds"], summary["interrupted"]) == (81.5, "the disk is full")


def test_a_run_that_was_killed_has_a_report(run):
    page = render_page(Run.open(run.path))
    assert "calibrated" in page
    assert "running" in page


def test_a_run_without_a_finished_trial_has_a_report(tmp_path, phantoms):
    run = Run.create(tmp_path / "none")
    run.write_study(STUDY, Manifest.load(phantoms))
    run.ledger.end(record("failed", 1.0, 0.0, state=State.FAILED))
    write_exports(run)
    assert write_report(run).is_file()


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


VALUES = st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.sampled_from(["", "3", "no"])


@given(configs=st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES), min_size=1, max_size=6))
def test_parameters_keep_their_types_from_trial_to_page(tmp_path_factory, configs):
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"id": f"t{i}", "metric.dice_area": i / 9, "metric.clean.ece": i / 9}
        | {f"config.{key}": value for key, value in config.items()}
        for i, config in enumerate(configs)
    ]
    run = Run.open(write_run(folder, rows, STUDY.model_copy(update={"constraints": []})))
    typed = [{key: (type(v), v) for key, v in trial.config.items()} for trial in run.trials]
    assert typed == [{key: (type(v), v) for key, v in config.items()} for config in configs]
    axes, lines = parallel(run)
    for place, axis in enumerate(axes[:-2]):
        values = [trial.config.get(axis.name) for trial in run.trials]
        assert [line.positions[place] is None for line in lines] == [v is None for v in values]
        present = [value for value in values if value is not None]
        if any(isinstance(value, bool | str) for value in present):
            assert [label for _, label in axis.ticks] == sorted({parameter(v) for v in present})
        else:
            assert len(axis.ticks) == 3


def test_the_page_shows_parameters_as_a_study_writes_them(tmp_path):
    rows = [
        {
            "id": f"t{i}", "metric.dice_area": 0.1 * i, "metric.clean.ece": 0.1 * i,
            "config.method": "unet", "config.width": 16, "config.flips": i % 2 == 0,
            "config.encoder": "",
        }
        for i in range(5)
    ]  # fmt: skip
    run = Run.open(write_run(tmp_path, rows, STUDY.model_copy(update={"constraints": []})))
    page = render_page(run)
    config = payload(page)["trials"]["config"]
    assert config["flips"] == [True, False, True, False, True]
    assert {type(width) for width in config["width"]} == {int}
    assert config["encoder"] == [""] * 5
    assert '<td data-value="true">true</td>' in page
    assert '<td class="num" data-value="16">16</td>' in page
    assert '<td data-value="&#34;&#34;">&#34;&#34;</td>' in page
    shares = importances(run)
    assert shares is not None
    assert shares.parameters == ["flips"]


def first_line(folder, **changes) -> None:
    """Another first line of the ledger; None takes it away."""
    head, *rest = (folder / LEDGER).read_text().splitlines(keepends=True)
    head = "" if "format" in changes else json.dumps(json.loads(head) | changes) + "\n"
    (folder / LEDGER).write_text(head + "".join(rest))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": None}, "format: none stated, begun by trustsweep 0.1.0"),
        ({"version": 7, "trustsweep": "3.1"}, "format: 7, written by trustsweep 3.1"),
        ({"version": None}, "format: None, written by"),
    ],
)
def test_a_run_folder_of_another_version_is_refused_in_a_line(tmp_path, changes, words):
    write_run(tmp_path, [{"id": "a", "config.method": "unet"}], STUDY)
    first_line(tmp_path, **changes)
    with pytest.raises(UserError) as refused:
        Run.open(tmp_path)
    line = str(refused.value)
    assert line.startswith(f"{tmp_path}: a run folder of another version ({words}")
    assert f"reads format {RUN_FORMAT}" in line
    assert "run its study again in a new folder" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "event",
    [
        {"event": "end", "id": "a", "state": "completed", "merit": 3},
        {"event": "end", "id": "a", "state": "withdrawn"},
        {"event": "merge", "id": "a"},
        {"event": "start", "id": "b"},
    ],
)
def test_unknown_keys_of_a_ledger_are_those_of_another_version(tmp_path, event):
    write_run(tmp_path, [{"id": "a", "config.method": "unet"}], STUDY)
    with (tmp_path / LEDGER).open("a") as file:
        file.write(json.dumps(event) + "\n")
    with pytest.raises(UserError, match=r"a run folder of another version \(format: unreadable"):
        Run.open(tmp_path)


def test_a_run_is_over_once_its_last_session_closed(tmp_path):
    run = Run.open(write_run(tmp_path, [{"id": "a", "ended": 5.0}], STUDY, closed=False))
    assert (run.finished, run.interrupted, run.seconds) == (False, None, 5.0)
    run.ledger.close(9.0, "the disk is full")
    run = Run.open(tmp_path)
    assert (run.finished, run.interrupted, run.seconds) == (False, "the disk is full", 9.0)
    run.ledger.session(version="0.2")
    run = Run.open(tmp_path)
    assert (run.finished, run.interrupted, run.version) == (False, None, "0.2")
    run.ledger.close(12.0, None)
    run = Run.open(tmp_path)
    assert (run.finished, run.interrupted, run.seconds) == (True, None, 12.0)


def test_what_a_session_writes_is_seen_once_it_is_read_again(run):
    assert [r.id for r in run.front] == ["calibrated", "robust"]
    run.ledger.end(record("best", 0.9, 0.01))
    assert [r.id for r in run.front] == ["calibrated", "robust"]
    assert [r.id for r in run.reread().front] == ["best"]


def test_the_study_of_a_run_names_its_data_from_everywhere(tmp_path, phantoms, monkeypatch):
    monkeypatch.chdir(phantoms.parent)
    run = Run.create(tmp_path / "run")
    study = STUDY.model_copy(update={"data": phantoms.name})
    run.write_study(study, Manifest.load(phantoms))
    assert Run.open(run.path).study.data == str(phantoms.resolve())


def test_a_metric_that_is_no_number_is_absent_and_breaks_every_bound(tmp_path):
    nan = float("nan")
    figures = {"metric.dice_area": 0.5, "metric.clean.ece": 0.1}
    rows = [{"id": "a", **figures, "metric.clean.dice": nan}, {"id": "b", **figures}]
    run = Run.open(write_run(tmp_path, rows, STUDY))
    assert ["clean.dice" in trial.metrics for trial in run.trials] == [False, False]
    assert run.front == []


def test_reading_a_run_needs_no_ray_torch_or_optuna(tmp_path):
    rows = [{"id": "a", "metric.dice_area": 0.5, "metric.clean.ece": 0.1, "metric.clean.dice": 1.0}]
    folder = write_run(tmp_path, rows, STUDY)
    code = (
        "import sys; from pathlib import Path; from trustsweep.distributed.run.folder import Run; "
        "run = Run.open(Path(sys.argv[1])); "
        "print(len(run.front), run.manifest.name, run.metrics.keys() and run.cards, "
        "{'ray', 'torch', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1 discs {} set()"
