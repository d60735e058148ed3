"""Times to an event on their way from a folder to a batch."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import load_manifest, read_column, read_table
from trustsweep.data_pipelines.building.validation import Validator
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.examples import choose
from trustsweep.data_pipelines.inspection.findings import Inspection
from trustsweep.data_pipelines.inspection.numbers import inspect
from trustsweep.data_pipelines.layouts.phantoms import Phantoms, hazard
from trustsweep.data_pipelines.layouts.tcga import Tcga
from trustsweep.data_pipelines.problems import BadFile, BadFiles
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import FollowUp, Manifest, Split, TaskName
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Resident, Samples, Streamed
from trustsweep.data_pipelines.streams.columns import interval_of
from trustsweep.trainables.metrics.trivial import TrivialSurvival


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("survival") / "data"
    prepare(None, "phantoms", out, size=16, count=150, survival=True)
    return out


def test_edges_are_quartiles_of_the_train_patients_with_the_event(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    assert manifest.tasks == (TaskName.SEGMENTATION, TaskName.SURVIVAL)
    assert "label" not in manifest.columns
    rows = read_table(prepared, Split.TRAIN).to_pylist()
    longest: dict[str, tuple[float, float]] = {}
    for row in rows:
        own = (row["time"], row["event"])
        longest[row["patient_id"]] = max(longest.get(row["patient_id"], own), own)
    died = [time for time, event in longest.values() if event]
    assert manifest.follow_up is not None
    assert manifest.follow_up.unit == "days"
    assert manifest.follow_up.intervals == 4
    assert manifest.follow_up.edges[1:-1] == pytest.approx(np.quantile(died, [0.25, 0.5, 0.75]))
    assert manifest.follow_up.edges[0] == 0
    assert manifest.follow_up.edges[-1] == max(row["time"] for row in rows)


def test_a_manifest_survives_json(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_batch_holds_times_events_and_intervals(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    assert manifest.follow_up is not None
    batch = next(iter(Streamed(prepared, Split.TEST, manifest).sweep(16)))
    rows = {row["sample_id"]: row for row in read_table(prepared, Split.TEST).to_pylist()}
    assert batch.time is not None
    assert batch.event is not None
    assert batch.interval is not None
    for i, name in enumerate(batch.sample_id):
        assert float(batch.time[i]) == rows[name]["time"]
        assert float(batch.event[i]) == rows[name]["event"]
        here, edges = int(batch.interval[i]), manifest.follow_up.edges
        assert edges[here] <= rows[name]["time"]
        assert here == 3 or rows[name]["time"] < edges[here + 1]
    # Read without torch, they are the same.
    columns = [
        np.concatenate([*read_column(prepared, Split.TEST, name)]) for name in ("time", "event")
    ]
    truth = TrivialSurvival.stored_truth(columns, manifest)
    order = [
        read_table(prepared, Split.TEST)["sample_id"].to_pylist().index(n) for n in batch.sample_id
    ]
    assert truth[order, 2].tolist() == batch.interval.tolist()
    assert batch.select([1, 0]).time.tolist() == [float(batch.time[1]), float(batch.time[0])]


def test_times_are_the_same_whatever_way_the_rows_came(prepared: Path) -> None:
    samples = Samples.read(prepared, Split.VAL)
    rows = range(5)
    (shared, resident) = samples.batch(rows), Resident(samples, "cpu").batch(rows)
    stream = Streamed(prepared, Split.VAL, samples.manifest)
    order = [stream.sample_ids.index(name) for name in shared.sample_id]
    streamed = stream.batch(order)
    for other in (resident, streamed):
        for name in ("time", "event", "interval"):
            assert torch.equal(getattr(shared, name), getattr(other, name))


def test_intervals_begin_with_their_edge_and_the_last_has_no_end() -> None:
    times = torch.tensor([0.0, 1.0, 1.9999, 2.0, 99.0, math.nan])
    found = interval_of(times, FollowUp(unit="days", edges=(0.0, 1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(found.numpy(), [0, 1, 1, 2, 2, math.nan])


def test_splits_keep_events_in_proportion(prepared: Path) -> None:
    shares = [
        np.mean(read_table(prepared, split)["event"].to_pylist())
        for split in (Split.TRAIN, Split.VAL, Split.TEST)
    ]
    assert max(shares) - min(shares) < 0.1


def test_inspection_counts_who_is_censored(prepared: Path) -> None:
    found: Inspection = inspect(Folder(prepared))
    assert found.classes == ("censored", "event")
    rows = read_table(prepared, Split.TRAIN)["event"].to_pylist()
    train = [stratum for stratum in found.strata if stratum.split == "train"]
    assert sum(s.positive[1] for s in train) == sum(rows)
    assert sum(s.positive[0] for s in train) == len(rows) - sum(rows)


def test_examples_say_when_the_event_was(prepared: Path) -> None:
    shown = choose(Folder(prepared), load_manifest(prepared), 6)
    assert {example.label.split()[0] for example in shown} == {"event", "censored"}
    assert all(example.label.endswith("days") for example in shown)


def test_too_few_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train patients with a known time have the event"):
        prepare(None, "phantoms", tmp_path / "out", size=16, count=6, survival=True)


def test_phantoms_die_by_their_hazard() -> None:
    """−∫ hazard over the follow-up sums to the deaths, whatever the censoring (martingale)."""
    layout = Phantoms(None, size=16, seed=3, count=600, survival=True)
    expected = died = 0.0
    rates, times = [], []
    for case in layout.cases():
        (sample,) = layout.load(case)
        assert sample.mask is not None
        assert sample.time is not None
        assert sample.event is not None
        assert sample.label is None
        rate = hazard(float(sample.mask.mean()), case.patient.age)
        expected += rate * sample.time
        died += sample.event
        rates.append(rate)
        times.append(sample.time)
    assert 0.5 < died / 600 < 0.85
    assert abs(died - expected) < 3 * math.sqrt(died)
    assert np.corrcoef(np.log(rates), np.log(times))[0, 1] < -0.4


def test_phantoms_without_survival_are_as_before() -> None:
    one = Phantoms(None, size=16, seed=0, count=3)
    other = Phantoms(None, size=16, seed=0, count=3, survival=True)
    for a, b in zip(one.cases(), other.cases(), strict=True):
        (plain,), (followed,) = one.load(a), other.load(b)
        assert np.array_equal(plain.image, followed.image)
        assert plain.time is None
    with pytest.raises(UserError, match="survival is true or false"):
        Phantoms(None, size=16, seed=0, count=3, survival="yes")  # type: ignore[arg-type]


SAMPLE = Sample(
    sample_id="a", patient_id="p", site="s", image=np.zeros((1, 4, 4), np.uint8), time=1.0,
    event=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"time": -1.0}, "finite and not below 0"),
        ({"time": math.inf}, "finite and not below 0"),
        ({"event": 0.5}, "censored"),
        ({"event": math.nan}, "both known or both unknown"),
        ({"event": None}, "event is absent"),
    ],
)
def test_impossible_times_are_named(changes: dict[str, float], match: str) -> None:
    layout = Phantoms(None, size=4, seed=0, count=1, survival=True)
    layout.groups = ("site",)
    validator = Validator(layout, SAMPLE)
    validator.notes(SAMPLE)
    validator.notes(replace(SAMPLE, time=math.nan, event=math.nan))
    with pytest.raises(BadFile, match=match):
        validator.notes(replace(SAMPLE, **changes))


# TCGA


def cohort(folder: Path, rows: list[list[object]], prefix: str = "") -> Path:
    head = ["case_submitter_id", "vital_status", "days_to_death", "days_to_last_follow_up"]
    table = [[head[0], *(prefix + name for name in head[1:])], *rows]
    with (folder / "clinical.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    genes = [["case_submitter_id", "A"], *([f"{row[0]}-01A", 1.5] for row in rows)]
    with (folder / "genomics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(genes)
    return folder


@pytest.mark.parametrize("prefix", ["", "demographic."])
def test_tcga_gives_days_to_death_or_to_the_last_contact(tmp_path: Path, prefix: str) -> None:
    rows: list[list[object]] = [
        ["TCGA-AA-0000", "Dead", 310, "'--"],
        ["TCGA-AA-0001", "Alive", "'--", 900],
        ["TCGA-AA-0002", "Dead", "'--", 400],  # when is not known
        ["TCGA-AA-0003", "Not Reported", "'--", 400],
        ["TCGA-AA-0004", "DEAD", 0, 0],
    ]
    layout = Tcga(cohort(tmp_path, rows, prefix), size=8, seed=0, label="survival")
    assert layout.tasks == (TaskName.SURVIVAL,)
    assert layout.time_unit == "days"
    samples = [s for case in layout.cases() for s in layout.load(case)]
    assert [(s.time, s.event, s.label) for s in samples] == [
        (310, 1, None), (900, 0, None), (0, 1, None),
    ]  # fmt: skip
    assert "2 patients with data have no label and are left out" in layout.remarks()


def test_tcga_without_times_names_the_columns(tmp_path: Path) -> None:
    folder = cohort(tmp_path, [["TCGA-AA-0000", "Dead", 310, 5]])
    text = (folder / "clinical.csv").read_text().replace("days_to_death", "other")
    (folder / "clinical.csv").write_text(text)
    with pytest.raises(UserError, match="no column days_to_death, which survival needs"):
        Tcga(folder, size=8, seed=0, label="survival")


def test_a_time_below_zero_is_named(tmp_path: Path) -> None:
    folder = cohort(tmp_path, [["TCGA-AA-0000", "Dead", -3, 5]])
    with pytest.raises((BadFile, BadFiles), match="from 0 up"):
        Tcga(folder, size=8, seed=0, label="survival")


def test_a_tcga_cohort_is_prepared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[list[object]] = [
        [
            f"TCGA-{'ABCD'[i % 4]}A-{1000 + i}",
            *(("Dead", day, "'--") if i % 3 else ("Alive", "'--", day)),
        ]
        for i, day in enumerate(rng.integers(1, 3000, 60).tolist())
    ]
    source = tmp_path / "cohort"
    source.mkdir()
    report = prepare(cohort(source, rows), "tcga", tmp_path / "out", size=8, label="survival")
    assert report.manifest.follow_up is not None
    assert report.manifest.follow_up.intervals == 4
    assert report.manifest.classes == ()
