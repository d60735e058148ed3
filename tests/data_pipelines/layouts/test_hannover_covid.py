"""COVID-19 Image Repository of Hannover: no value of the future, limits of detection, stays."""

import csv
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.hannover_covid import _LABS
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split

NAME = "hannover-covid"
LABS = ("pco2", "po2", "crp", "d-dimer", "factor_xii", "ldh", "lymphocytes", "neutrophils")
LATER = "images have laboratory values of later days; read as missing"
OLDER = "images have laboratory values more than 3 days old; read as missing"
LIMIT = "images have a value beyond a limit of detection, read as the nearest that is published"

Change = Callable[[dict[str, str]], None]


def _layout(folder: Path | None, size: int = 16, **options):
    return LAYOUTS[NAME].create(folder, size=size, seed=0, options=options)


def _samples(folder: Path, size: int = 16, **options) -> dict[str, Sample]:
    """By image id."""
    layout = _layout(folder, size, **options)
    return {s.source.stem: s for case in layout.cases() for s in layout.load(case)}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "data.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _rewrite(folder: Path, change: Change) -> None:
    rows = _rows(folder)
    for row in rows:
        change(row)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _set(folder: Path, row: int, **values: str) -> None:
    target = _rows(folder)[row]["image_id"]
    _rewrite(folder, lambda one: one.update(values) if one["image_id"] == target else None)


def _offset(row: dict[str, str], name: str) -> int | None:
    text = row[f"{name}_offset"]
    return int(float(text)) if text else None


def _entry(row: dict[str, str], name: str, oldest: int) -> float:
    offset = _offset(row, name)
    known = offset is not None and -oldest <= offset <= 0
    return float(row[f"{name}_val"]) if known else math.nan


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature(NAME), tmp_path / "copy"))


@pytest.fixture
def real(real_data) -> Path:
    return real_data / "hannover_covid"


def test_real_counts(real):
    rows, samples = _rows(real), _samples(real)
    assert len(rows) == len(samples) == 243
    pairs = {(row["patient_id"], samples[row["image_id"]].patient_id) for row in rows}
    assert len(pairs) == len({theirs for theirs, _ in pairs}) == len({o for _, o in pairs}) == 71
    inside = {
        row["image_id"]
        for row in rows
        if row["icu_admission_offset"]
        and float(row["icu_admission_offset"]) <= 0 <= float(row["icu_release_offset"])
    }
    assert inside == {image for image, sample in samples.items() if sample.label == 1}
    assert len(inside) == 150
    assert len({samples[image].patient_id for image in inside}) == 29
    assert {s.site for s in samples.values()} == {"hannover"}
    assert Counter(s.groups["sex"] for s in samples.values()) == {"m": 180, "f": 63}


def test_real_deaths_are_on_the_images_day_or_later(real):
    rows, samples = _rows(real), _samples(real, target="death")
    for row in rows:
        assert samples[row["image_id"]].label == (row["death_offset"] != "")
    died = {row["patient_id"] for row in rows if row["death_offset"]}
    assert (sum(s.label for s in samples.values()), len(died)) == (48, 5)
    # Every image of theirs is labelled, and none is of a day after the death.
    assert all(row["death_offset"] for row in rows if row["patient_id"] in died)
    assert min(float(row["death_offset"]) for row in rows if row["death_offset"]) == 0


def test_real_offsets_are_relative_to_the_image_and_negative_before_it(real):
    """As a patient has one stay, its length and place agree in all images on that clock alone."""
    stays, drawn = defaultdict(set), defaultdict(set)
    for row in _rows(real):
        admission = int(float(row["admission_offset"]))
        if row["icu_admission_offset"]:
            days = [float(row[f"icu_{part}_offset"]) for part in ("admission", "release")]
            assert days[0] <= days[1]
            stays[row["patient_id"]].add(tuple(day - admission for day in days))
        if row["crp_val"]:
            drawn[row["patient_id"], _offset(row, "crp") - admission].add(row["crp_val"])
    assert {len(places) for places in stays.values()} == {1}
    # A CRP that two images share by day is one number.
    assert {len(values) for values in drawn.values()} == {1}
    assert len(drawn) < sum(bool(row["crp_val"]) for row in _rows(real))


@pytest.mark.parametrize(("oldest", "gas_below", "dimer_above"), [(0, 1, 5), (3, 2, 6), (14, 2, 6)])
def test_real_values_are_the_tables(real, oldest, gas_below, dimer_above):
    samples = _samples(real, max_age_days=oldest)
    assert tuple(f.name for f in _layout(real).tabular) == LABS
    beyond = Counter()
    for row in _rows(real):
        sample = samples[row["image_id"]]
        published = np.array([_entry(row, name, oldest) for name in LABS])
        finite = ~np.isinf(published)
        assert np.allclose(sample.tabular[finite], published[finite], equal_nan=True)
        for place in np.flatnonzero(~finite):
            beyond[LABS[place], published[place]] += 1
            assert np.isfinite(sample.tabular[place])
        assert (LIMIT in sample.notes) == (not finite.all())
    assert beyond == {
        ("crp", -math.inf): 2,
        ("po2", -math.inf): gas_below,
        ("d-dimer", -math.inf): 1,
        ("d-dimer", math.inf): dimer_above,
    }


def test_real_values_beyond_a_limit_are_the_extremes_that_are_published(real):
    assert tuple(_LABS) == LABS
    for name, lab in _LABS.items():
        numbers = [float(row[f"{name}_val"]) for row in _rows(real) if row[f"{name}_val"]]
        finite = [number for number in numbers if math.isfinite(number)]
        assert (lab.least, lab.greatest) == (min(finite), max(finite))
        assert lab.number(-math.inf) == lab.least
        assert lab.number(math.inf) == lab.greatest
        assert all(lab.number(number) == number for number in finite)


def test_real_images_are_the_files(real):
    sample = next(iter(_samples(real, size=32).values()))
    wanted = Image.open(sample.source).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(sample.image[0], np.asarray(wanted))


def test_real_projection_tells_of_intensive_care_and_is_no_input(real):
    layout, samples = _layout(real), _samples(real)
    inside = {s.groups["projection"] for s in samples.values() if s.label}
    outside = Counter(s.groups["projection"] for s in samples.values() if not s.label)
    assert inside == {"ap"}
    assert outside == {"ap": 44, "pa": 49}
    assert not {"projection", "modality"} & {f.name for f in layout.tabular}
    assert "150 of 194 ap, 0 of 49 pa" in layout.remarks()[0]


def test_real_set_is_prepared_by_patient_and_what_is_not_read_is_counted(real, tmp_path):
    report = prepare(real, NAME, tmp_path / "out", size=16)
    assert sum(report.manifest.split_counts.values()) == 243
    later = older = 0
    for row in _rows(real):
        offsets = [o for name in LABS if (o := _offset(row, name)) is not None]
        later += any(offset > 0 for offset in offsets)
        older += any(offset < -3 for offset in offsets)
    assert f"{later} of 243 {LATER}" in report.warnings
    assert f"{older} of 243 {OLDER}" in report.warnings
    assert f"11 of 243 {LIMIT}" in report.warnings
    assert "29 of 71 patients have images 'in intensive care'" in report.warnings
    for split in report.manifest.splits:
        assert set(read_table(tmp_path / "out", Split(split))["label"].to_pylist()) == {0, 1}


@given(st.data())
@settings(max_examples=25)
def test_nothing_after_the_image_changes_a_sample(miniature, tmp_path_factory, data):
    """Whatever is drawn later, or not drawn at all, the inputs are the same."""
    folder = Path(shutil.copytree(miniature(NAME), tmp_path_factory.mktemp("future") / "copy"))
    before = _samples(folder)
    seed = data.draw(st.integers(0, 2**32 - 1))
    draw = np.random.default_rng(seed)
    changed = Counter()

    def change(row: dict[str, str]) -> None:
        for name in LABS:
            offset = _offset(row, name)
            if offset is not None and offset <= 0:
                continue
            later, value = f"{draw.integers(1, 15)}.0", f"{draw.uniform(0, 500):.1f}"
            value = str(draw.choice([value, "inf", "-inf"]))
            gone = draw.random() < 0.3
            row[f"{name}_offset"], row[f"{name}_val"] = ("", "") if gone else (later, value)
            changed[gone] += 1

    _rewrite(folder, change)
    after = _samples(folder)
    assert min(changed.values()) > 10
    assert before.keys() == after.keys()
    for image, sample in before.items():
        np.testing.assert_array_equal(sample.tabular, after[image].tabular)
        assert sample.present == after[image].present
        assert sample.label == after[image].label


@given(offsets=st.lists(st.integers(-20, 20), min_size=8, max_size=8), oldest=st.integers(0, 20))
@settings(max_examples=40)
def test_a_value_is_read_in_its_window_alone(miniature, tmp_path_factory, offsets, oldest):
    folder = Path(shutil.copytree(miniature(NAME), tmp_path_factory.mktemp("window") / "copy"))
    values = {f"{name}_val": "50" for name in LABS}
    days = {f"{name}_offset": str(day) for name, day in zip(LABS, offsets, strict=True)}
    _set(folder, 0, **values, **days)
    layout = _layout(folder, max_age_days=oldest)
    (sample,) = layout.load(next(layout.cases()))
    wanted = [-oldest <= day <= 0 for day in offsets]
    assert np.isfinite(sample.tabular).tolist() == wanted
    assert (LATER in sample.notes) == any(day > 0 for day in offsets)
    assert any("days old" in note for note in sample.notes) == any(d < -oldest for d in offsets)
    assert sample.present == (True, any(wanted[:2]), any(wanted[2:]))


def test_a_modality_is_present_where_an_entry_is_known(miniature):
    layout, samples = _layout(miniature(NAME)), _samples(miniature(NAME))
    xray, gas, labs = layout.modalities
    assert [m.name for m in layout.modalities] == ["xray", "blood-gas", "labs"]
    assert xray.column == "image"
    assert sorted((*gas.indices, *labs.indices)) == list(range(len(LABS)))
    assert [LABS[place] for place in gas.indices] == ["pco2", "po2"]
    for sample in samples.values():
        known = [np.isfinite(sample.tabular[list(m.indices)]).any() for m in (gas, labs)]
        assert sample.present == (True, *known)
    assert {s.present[1:] for s in samples.values()} >= {(True, True), (False, False)}


@pytest.mark.parametrize(
    ("admission", "release", "label"),
    [("0", "0", 1), ("-3", "0", 1), ("0", "5", 1), ("-3.0", "-1.0", 0), ("1", "9", 0), ("", "", 0)],
)
def test_days_of_admission_and_release_are_in_intensive_care(copy, admission, release, label):
    _set(copy, 0, icu_admission_offset=admission, icu_release_offset=release)
    layout = _layout(copy)
    (sample,) = layout.load(next(layout.cases()))
    assert sample.label == label


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crp_val": "50", "crp_offset": ""}, "column 'crp_offset' is empty where crp_val is not"),
        ({"crp_val": "", "crp_offset": "0"}, "column 'crp_val' is empty where crp_offset is not"),
        ({"ldh_val": "-5", "ldh_offset": "0"}, "column 'ldh_val' is below 0"),
        ({"icu_release_offset": ""}, "column 'icu_release_offset' is empty where icu_admission"),
        (
            {"icu_admission_offset": "4", "icu_release_offset": "2"},
            "column 'icu_release_offset' is earlier than icu_admission_offset (2 and 4 days)",
        ),
        ({"death_offset": "-2"}, "column 'death_offset' is 2 days before the image"),
        ({"sex": "x"}, "column 'sex' is f or m, or empty"),
    ],
)
def test_a_row_that_cannot_be_is_refused_alone(copy, values, words):
    _set(copy, 4, **values)
    patients = {row["patient_id"] for row in _rows(copy)}
    found = list(_layout(copy).read())
    (problem,) = (entry for entry in found if isinstance(entry, BadFile))
    assert f"data.csv: line 6: {words}" in str(problem)
    assert len(found) == len(_rows(copy))
    assert not any(patient in str(problem) for patient in patients)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ldh_val": "much"}, r"line 2, column 'ldh_val': 'much' is no number"),
        ({"ldh_val": "nan"}, r"line 2, column 'ldh_val': 'nan' is no number"),
        ({"ldh_offset": "0.5"}, r"line 2, column 'ldh_offset': '0.5' is no whole number"),
        ({"ldh_offset": "inf"}, r"line 2, column 'ldh_offset': 'inf' is no whole number"),
        ({"patient_id": ""}, r"line 2, column 'patient_id': empty"),
        ({"image_id": ""}, r"line 2, column 'image_id': empty"),
    ],
)
def test_a_table_of_other_kinds_is_refused_at_once(copy, values, words):
    _set(copy, 0, **values)
    with pytest.raises(BadFile, match=words):
        _layout(copy)


def test_an_image_or_a_row_without_the_other_is_refused(copy):
    first, second = sorted((copy / "png").iterdir())[:2]
    first.rename(copy / "png" / "stray.png")
    second.write_bytes(b"no image")
    problems = {p.path.name: p.reason for p in _layout(copy).read() if isinstance(p, BadFile)}
    assert problems.keys() == {first.name, second.name, "stray.png"}
    assert "no such file" in problems[first.name]
    assert "in no row of data.csv" in problems["stray.png"]


def test_folders_and_options_that_cannot_be_are_refused(miniature, copy):
    with pytest.raises(UserError, match="no target 'icus', did you mean 'icu'"):
        _layout(miniature(NAME), target="icus")
    for days in (-1, 1.5, True, "3"):
        with pytest.raises(UserError, match="max_age_days: a whole number of days from 0"):
            _layout(miniature(NAME), max_age_days=days)
    shutil.rmtree(copy / "png")
    with pytest.raises(UserError, match="png: not here"):
        _layout(copy)
    (copy / "data.csv").unlink()
    with pytest.raises(UserError, match=r"data\.csv: not here"):
        _layout(copy)


def test_what_is_not_read_is_said(copy):
    (copy / "notes.txt").touch()
    (copy / "LICENSE").touch()
    assert _layout(copy).remarks()[0] == "not read, not part of the layout: notes.txt"


def test_no_id_reaches_the_prepared_folder_or_a_message(miniature, tmp_path):
    report = prepare(miniature(NAME), NAME, tmp_path / "out", size=16)
    ids = {row[key] for row in _rows(miniature(NAME)) for key in ("patient_id", "image_id")}
    said = " ".join(report.warnings)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert not any(one in said or one.encode() in stored for one in ids)
    for split in report.manifest.splits:
        table = read_table(tmp_path / "out", Split(split))
        names = {*table["sample_id"].to_pylist(), *table["patient_id"].to_pylist()}
        assert not names & ids


def test_the_table_and_the_images_are_part_of_the_digest(copy):
    before = _layout(copy).source_digest()
    _set(copy, 0, sex="")
    after = _layout(copy).source_digest()
    assert before != after
    (copy / "readme.md").write_text("other")
    assert _layout(copy).source_digest() == after
    next((copy / "png").iterdir()).unlink()
    assert _layout(copy).source_digest() != after
