"""MIMIC-CXR-JPG with MIMIC-IV, on a miniature: against loops over its tables, and its oddities."""

import csv
import gzip
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.mimic.items import CHANNELS, INDEX, LABS, VITALS
from trustsweep.data_pipelines.layouts.mimic.tables import CHEXPERT
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import opaque
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName

XRAY, VITAL, LAB, DEMOGRAPHIC = range(4)
CXR, IV = Path("mimic-cxr-jpg/2.1.0"), Path("mimiciv/3.1")
TIME = "%Y-%m-%d %H:%M:%S"


def _subject(index: int) -> int:
    return 10000032 + 97 * index


def _layout(folder: Path | None, **options):
    return LAYOUTS["mimic"].create(folder, size=16, seed=0, options=options)


def _samples(folder: Path, **options) -> list[Sample]:
    layout = _layout(folder, **options)
    return [sample for case in layout.cases() for sample in layout.load(case)]


def _of(samples: list[Sample], index: int) -> list[Sample]:
    patient = opaque("mimic", "patient", str(_subject(index)))
    return [s for s in samples if s.patient_id == patient]


@pytest.fixture(scope="module")
def deaths(miniature) -> list[Sample]:
    """One a stay, for mortality."""
    return _samples(miniature("mimic"), target="mortality")


@pytest.fixture(scope="module")
def findings(miniature) -> list[Sample]:
    """One a stay, for findings."""
    return _samples(miniature("mimic"))


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("mimic"), tmp_path / "copy"))


def _read(folder: Path, table: str) -> list[dict[str, str]]:
    path = next(folder.rglob(f"{table}.csv*"))
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def _rewrite(folder: Path, table: str, change: Callable[[dict[str, str]], None]) -> Path:
    """With every row changed, gzipped as before."""
    path = next(folder.rglob(f"{table}.csv*"))
    rows = _read(folder, table)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        for row in rows:
            change(row)
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _problems(folder: Path, **options) -> list[BadFile]:
    return [p for p in _layout(folder, **options).read() if isinstance(p, BadFile)]


def _events(folder: Path) -> Iterator[tuple[str, datetime, str, float]]:
    """(patient, time, channel, value in its unit) of every wanted row with a possible number."""
    for table, names in (("chartevents", VITALS), ("labevents", LABS)):
        for row in _read(folder, table):
            for name, channel in names.items():
                if int(row["itemid"]) in channel.items and row["valuenum"] and row["charttime"]:
                    value = float(row["valuenum"])
                    if int(row["itemid"]) == 223761:
                        value = (value - 32) * 5 / 9
                    if channel.least <= value <= channel.greatest:
                        time = datetime.strptime(row["charttime"], TIME)
                        yield row["subject_id"], time, name, value


def _grid(events: list, origin: datetime, since: datetime, until: datetime) -> np.ndarray:
    """(48, F) by loops: means over the hours from `origin`, of [since, until)."""
    cells: dict[tuple[int, int], list[float]] = {}
    for time, name, value in events:
        if since <= time < until:
            step = int((time - origin) / timedelta(hours=1))
            cells.setdefault((step, INDEX[name]), []).append(value)
    grid = np.full((48, len(CHANNELS)), np.nan)
    for (step, channel), values in cells.items():
        if 0 <= step < 48:
            grid[step, channel] = np.mean(values)
    return grid


def test_a_stays_series_are_its_tables(miniature, deaths):
    folder = miniature("mimic")
    events: dict[str, list] = {}
    for patient, time, name, value in _events(folder):
        events.setdefault(patient, []).append((time, name, value))
    by_name = {s.sample_id: s for s in deaths}
    compared = 0
    for row in _read(folder, "icustays"):
        sample = by_name.get(opaque("mimic", "stay", row["stay_id"]))
        if sample is not None:
            start, end = (datetime.strptime(row[c], TIME) for c in ("intime", "outtime"))
            expected = _grid(events[row["subject_id"]], start, start, end)
            np.testing.assert_allclose(sample.series.value, expected, rtol=1e-5)
            compared += 1
    assert compared == len(deaths) == 54


def test_an_images_series_are_the_hours_before_it(miniature):
    folder = miniature("mimic")
    events: dict[str, list] = {}
    for patient, time, name, value in _events(folder):
        events.setdefault(patient, []).append((time, name, value))
    stays: dict[str, list] = {}
    for row in _read(folder, "icustays"):
        times = [datetime.strptime(row[c], TIME) for c in ("intime", "outtime")]
        stays.setdefault(row["subject_id"], []).append(times)
    by_name = {s.sample_id: s for s in _samples(folder, samples="images")}
    covered = 0
    for row in _read(folder, "mimic-cxr-2.0.0-metadata"):
        sample = by_name.get(opaque("mimic", "image", row["dicom_id"]))
        if sample is None:
            assert row["ViewPosition"] not in ("AP", "PA") or row["subject_id"] == str(_subject(7))
            continue
        clock = f"{row['StudyDate']}{int(float(row['StudyTime'])):06d}"
        taken = datetime.strptime(clock, "%Y%m%d%H%M%S")
        origin = taken - timedelta(hours=48)
        expected = np.full((48, len(CHANNELS)), np.nan)
        for start, end in stays.get(row["subject_id"], []):
            if start <= taken <= end:
                expected = _grid(events[row["subject_id"]], origin, start, taken)
                covered += 1
        np.testing.assert_allclose(sample.series.value, expected, rtol=1e-5)
    assert covered == 51


def test_temperatures_of_both_units_meet_in_one_mean(deaths):
    (sample,) = _of(deaths, 4)
    # 104 °F is 40 °C.
    assert sample.series.value[41, INDEX["temperature"]] == pytest.approx(39.5, abs=0.01)


def test_what_cannot_be_or_is_blank_is_missing_and_noted(miniature, deaths):
    (sample,) = _of(deaths, 5)
    assert np.isnan(sample.series.value[[41, 42], INDEX["heart_rate"]]).all()
    assert sample.notes == (
        "samples have events without a number; those are left out",
        "samples have impossible values of heart_rate, which are read as missing",
    )
    layout = _layout(miniature("mimic"), target="mortality")
    for case in layout.cases():
        list(layout.load(case))
    assert "1 rows of events have no charttime; left out" in layout.remarks()


def test_laboratory_values_of_no_admission_find_their_stay(deaths):
    (sample,) = _of(deaths, 11)
    assert sample.present == (True, True, True, True)


def test_a_second_stay_has_its_own_events_and_image(deaths):
    first, second = _of(deaths, 10)
    assert first.sample_id != second.sample_id
    assert [s.present[XRAY] for s in (first, second)] == [False, True]
    assert first.present[VITAL]
    assert second.present[VITAL]
    assert not np.array_equal(first.series.value, second.series.value, equal_nan=True)


def test_the_last_frontal_image_in_time_is_taken(miniature, findings):
    folder = miniature("mimic")
    (sample,) = _of(findings, 3)
    rows = [
        row
        for row in _read(folder, "mimic-cxr-2.0.0-metadata")
        if row["subject_id"] == str(_subject(3))
    ]
    # Hours -20, 6.5, 30 and 49 of a window of 48.
    assert sample.source.stem == rows[2]["dicom_id"]
    assert "stays have several frontal images in time; the last is used" in sample.notes
    wider = _of(_samples(folder, window_hours=60), 3)[0]
    assert wider.source.stem == rows[3]["dicom_id"]
    narrow = _of(_samples(folder, window_hours=4), 3)[0]
    assert narrow.source.stem == rows[0]["dicom_id"]


@pytest.mark.parametrize("index", [1, 2, 7, 14, 15])
def test_a_stay_without_an_image_lacks_that_modality_alone(deaths, findings, index):
    (sample,) = _of(deaths, index)
    assert sample.present == (False, True, True, True)
    assert not sample.image.any()
    assert _of(findings, index) == []


def test_pixels_are_the_files(findings):
    sample = findings[0]
    with Picture.open(sample.source) as picture:
        small = picture.resize((16, 16), Picture.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample.image[0], np.array(small))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [np.nan, 1, 0, np.nan]),
        ({"uncertain": "positive"}, [np.nan, 1, 0, 1]),
        ({"uncertain": "negative"}, [np.nan, 1, 0, 0]),
        ({"unmentioned": "negative"}, [0, 1, 0, np.nan]),
    ],
)
def test_codes_of_findings(miniature, options, expected):
    (sample,) = _of(_samples(miniature("mimic"), **options), 13)
    np.testing.assert_array_equal(sample.label[:4], np.array(expected, np.float32))
    assert sample.label.shape == (len(CHEXPERT),)


def test_a_study_without_labels_is_kept_and_noted(findings):
    (sample,) = _of(findings, 6)
    assert np.isnan(sample.label).all()
    assert any("without a line of labels" in note for note in sample.notes)


def test_mortality_is_the_admissions(miniature, deaths):
    died = {
        opaque("mimic", "patient", row["subject_id"]): int(row["hospital_expire_flag"])
        for row in _read(miniature("mimic"), "admissions")
    }
    assert [s.label for s in deaths] == [died[s.patient_id] for s in deaths]
    assert set(died.values()) == {0, 1}


def test_a_stay_that_ends_within_the_window_tells_no_mortality(miniature, deaths, findings):
    assert _of(deaths, 8) == []
    assert len(_of(findings, 8)) == 1
    shorter = _layout(miniature("mimic"), target="mortality", window_hours=20)
    assert len(list(shorter.cases())) == len(deaths) + 1
    remarks = _layout(miniature("mimic"), target="mortality").remarks()
    assert sum(r.startswith("1 stays end within the window") for r in remarks) == 1


def test_the_official_split_is_by_patient_and_kept(miniature, findings):
    official = {
        opaque("mimic", "patient", row["subject_id"]): row["split"]
        for row in _read(miniature("mimic"), "mimic-cxr-2.0.0-split")
    }
    names = {"train": Split.TRAIN, "validate": Split.VAL, "test": Split.TEST}
    assert [s.split for s in findings] == [names[official[s.patient_id]] for s in findings]
    assert {s.split for s in findings} == set(names.values())
    assert {s.split for s in _samples(miniature("mimic"), split="own")} == {None}


def test_a_patient_without_x_rays_is_in_no_official_split(deaths):
    assert _of(deaths, 1)[0].split is None


def test_groups_and_table(deaths):
    (old,) = _of(deaths, 9)
    assert old.groups["age"] == old.tabular[0] == 91
    groups = [_of(deaths, index)[0].groups for index in (3, 4, 5)]
    assert [g["race"] for g in groups] == ["WHITE", "BLACK/AFRICAN AMERICAN", None]
    assert [g["insurance"] for g in groups] == ["Medicare", None, "Private"]
    assert [g["sex"] for g in groups] == ["female", "male", "female"]
    assert [_of(deaths, index)[0].tabular[1] for index in (3, 4)] == [0, 1]
    assert groups[0]["unit"] == "Medical Intensive Care Unit (MICU)"


def test_age_counts_the_years_since_the_anchor(miniature, deaths):
    rows = {row["subject_id"]: row for row in _read(miniature("mimic"), "patients")}
    anchored = int(rows[str(_subject(20))]["anchor_age"])
    assert _of(deaths, 20)[0].groups["age"] == anchored + 3


def test_images_outside_of_stays(miniature):
    samples = _samples(miniature("mimic"), samples="images")
    (no_stay,), (nobody,) = _of(samples, 0), _of(samples, 12)
    assert no_stay.present == (True, False, False, True)
    assert nobody.present == (True, False, False, False)
    assert nobody.groups == dict.fromkeys(("unit", "sex", "age", "race", "insurance"))
    assert any("MIMIC-IV lacks" in note for note in nobody.notes)
    assert len(_of(samples, 3)) == 4
    dying = _layout(miniature("mimic"), samples="images", target="mortality")
    assert len(list(dying.cases())) == len(samples) - 4
    assert "4 frontal images lie in no stay and so have no outcome; left out" in dying.remarks()


def test_what_is_left_out_is_counted(miniature):
    remarks = _layout(miniature("mimic")).remarks()
    assert remarks == [
        "2 of 108 listed images are not on disk (a part of the download); left out",
        "52 listed images state no view AP or PA; not read",
        "6 stays have no frontal image in time and so no labels; left out",
        "4 frontal images lie in no stay's time; left out",
    ]


def _as_dicom(path: Path, view: str) -> Path:
    """The image as a scanner's file of 12 bits, in its place."""
    pixels = np.asarray(Picture.open(path)).astype(np.uint16) * 16
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ViewPosition, dataset.PatientName = "DX", view, "Doe^Jane"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    scanned = path.with_suffix(".dcm")
    dataset.save_as(scanned, enforce_file_format=True)
    path.unlink()
    return scanned


def test_images_as_scanned_stand_for_those_of_the_jpg_edition(copy):
    before = {s.sample_id: s.image for s in _samples(copy, samples="images")}
    for path in (copy / CXR / "files").rglob("*.jpg"):
        _as_dicom(path, "PA")
    after = {s.sample_id: s.image for s in _samples(copy, samples="images")}
    assert before.keys() == after.keys()
    for name, image in after.items():
        assert image.dtype == np.float32
        # 16 times the 8-bit value of 4,095 at most; resizing in 8 bits rounds twice.
        np.testing.assert_allclose(image * 4095 / 16, before[name], atol=1)


def test_an_image_in_both_editions_is_refused(copy):
    path = sorted((copy / CXR / "files").rglob("*.jpg"))[0]
    content = path.read_bytes()
    scanned = _as_dicom(path, "AP")
    path.write_bytes(content)
    (problem,) = [p for p in _problems(copy) if p.path in (path, scanned)]
    assert f"the image also exists as {scanned.name}" in problem.reason


def test_an_image_in_no_line_or_in_another_place_is_refused(copy):
    paths = sorted((copy / CXR / "files").rglob("*.jpg"))
    shutil.copy(paths[0], paths[0].with_name("0-1-2-3-4.jpg"))
    elsewhere = paths[1].parent.parent / "s1" / paths[1].name
    elsewhere.parent.mkdir()
    paths[1].rename(elsewhere)
    problems = {p.path: p.reason for p in _problems(copy)}
    assert problems.keys() == {paths[0].with_name("0-1-2-3-4.jpg"), elsewhere}
    assert (
        "in no line of mimic-cxr-2.0.0-metadata.csv.gz"
        in problems[paths[0].with_name("0-1-2-3-4.jpg")]
    )
    assert "not where its line" in problems[elsewhere]


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("patients", "subject_id", "its subject_id is in no line of patients.csv.gz"),
        ("admissions", "hadm_id", "its hadm_id is in no line of admissions.csv"),
        ("admissions", "hospital_expire_flag", "its admission has no hospital_expire_flag"),
    ],
)
def test_an_identifier_in_no_table_names_the_line_alone(copy, table, column, words):
    wanted = str(_subject(20))

    def change(row: dict[str, str]) -> None:
        if row["subject_id"] == wanted:
            row[column] = "1" if column != "hospital_expire_flag" else ""

    _rewrite(copy, table, change)
    lines = [row["subject_id"] for row in _read(copy, "icustays")]
    (problem,) = _problems(copy, target="mortality")
    assert problem.path.name == "icustays.csv.gz"
    assert problem.reason.startswith(f"line {lines.index(wanted) + 2}: {words}")
    assert wanted not in problem.reason


def test_a_patient_in_no_official_split_is_refused(copy):
    def change(row: dict[str, str]) -> None:
        if row["subject_id"] == str(_subject(20)):
            row["subject_id"] = "1"

    _rewrite(copy, "mimic-cxr-2.0.0-split", change)
    (problem,) = _problems(copy)
    assert "in no line of mimic-cxr-2.0.0-split.csv" in problem.reason
    assert _problems(copy, split="own") == []


def test_a_code_that_is_none_is_refused_with_its_line(copy):
    study = _read(copy, "mimic-cxr-2.0.0-chexpert")[9]["study_id"]

    def change(row: dict[str, str]) -> None:
        if row["study_id"] == study:
            row["Edema"] = "2.0"

    _rewrite(copy, "mimic-cxr-2.0.0-chexpert", change)
    (problem,) = _problems(copy, samples="images")
    assert problem.reason == "line 11: Edema is 1, 0, -1 or empty, not 2."


def test_a_stay_of_which_nothing_is_known_is_refused_or_kept_with_a_note(copy):
    wanted = str(_subject(1))

    def silence(row: dict[str, str]) -> None:
        if row["subject_id"] == wanted:
            row["valuenum"] = ""

    def forget(row: dict[str, str]) -> None:
        if row["subject_id"] == wanted:
            row.update(gender="", anchor_age="")

    _rewrite(copy, "chartevents", silence)
    _rewrite(copy, "labevents", silence)
    (sample,) = _of(_samples(copy, target="mortality"), 1)
    assert sample.present == (False, False, False, True)
    assert "samples have neither image nor measurements; kept" in sample.notes
    _rewrite(copy, "patients", forget)
    (problem,) = _problems(copy, target="mortality")
    assert "nothing is known of the stay" in problem.reason


def _set(column: str, value: str) -> Callable[[dict[str, str]], None]:
    return lambda row: row.update({column: value})


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("icustays", _set("intime", "noon"), "line 2: column 'intime' is no time"),
        ("icustays", _set("intime", "2180-07-23"), "line 2: column 'intime' is no time"),
        ("icustays", _set("intime", "2180-07-23T14:00+01"), "line 2: column 'intime' is no time"),
        ("icustays", _set("outtime", "2001-01-01 00:00:00"), "line 2: column 'outtime' is before"),
        ("patients", _set("gender", "X"), "line 2: column 'gender' is one of M, F, not 'X'"),
        ("mimic-cxr-2.0.0-metadata", _set("StudyTime", "256060.0"), "line 2.*no time such as"),
        ("mimic-cxr-2.0.0-metadata", _set("StudyDate", "9" * 18), "line 2.*no time such as"),
        ("mimic-cxr-2.0.0-split", _set("split", "dev"), "line 2: column 'split' is one of train"),
        ("mimic-cxr-2.0.0-split", _set("dicom_id", "x"), "line 3, column 'dicom_id'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_once(copy, table, change, words):
    _rewrite(copy, table, change)
    with pytest.raises(BadFile, match=words):
        _layout(copy)


def test_a_patient_in_two_splits_is_refused(copy):
    last = _read(copy, "mimic-cxr-2.0.0-split")[-1]["dicom_id"]
    _rewrite(
        copy,
        "mimic-cxr-2.0.0-split",
        lambda row: row.update(split="test") if row["dicom_id"] == last else None,
    )
    rows = _read(copy, "mimic-cxr-2.0.0-split")
    assert rows[-1]["subject_id"] == rows[-2]["subject_id"]
    with pytest.raises(BadFile, match="differs from an earlier line of the same patient"):
        _layout(copy)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("charttime", "yesterday", "a charttime is no time"),
        ("valuenum", "high", "line 2, column 'valuenum': 'high' is no number"),
    ],
)
def test_events_that_cannot_be_read_are_refused(copy, column, value, words):
    _rewrite(copy, "chartevents", _set(column, value))
    layout = _layout(copy)
    with pytest.raises(BadFile, match=words):
        list(layout.load(next(layout.cases())))


def test_other_versions_item_numbers_are_told(copy):
    def change(row: dict[str, str]) -> None:
        if row["itemid"] == "220045":
            row["itemid"] = "211"

    _rewrite(copy, "d_items", change)
    (said,) = [remark for remark in _layout(copy).remarks() if "dictionaries" in remark]
    assert "lack 220045," in said


def test_both_data_sets_are_found_once(copy, tmp_path):
    with pytest.raises(UserError, match="no MIMIC-CXR-JPG below it"):
        _layout(copy / "mimiciv")
    with pytest.raises(UserError, match="no MIMIC-IV below it"):
        _layout(copy / "mimic-cxr-jpg")
    with pytest.raises(UserError, match="no such folder"):
        _layout(tmp_path / "nowhere")
    shutil.copytree(copy / IV, copy / "mimiciv" / "2.2")
    with pytest.raises(UserError, match="MIMIC-IV is here twice"):
        _layout(copy)
    shutil.rmtree(copy / "mimiciv" / "2.2")
    (copy / IV / "icu" / "chartevents.csv.gz").unlink()
    with pytest.raises(UserError, match=r"no icu/chartevents\.csv\.gz"):
        _layout(copy)


def test_labels_are_needed_for_findings_alone(copy):
    (copy / CXR / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    assert len(list(_layout(copy, target="mortality").cases())) == 54
    with pytest.raises(UserError, match=r"no mimic-cxr-2\.0\.0-chexpert\.csv\.gz"):
        _layout(copy)


def test_options_that_cannot_be(miniature):
    folder = miniature("mimic")
    for option in ("target", "samples", "uncertain", "unmentioned", "split"):
        with pytest.raises(UserError, match=f"no {option} 'x'"):
            _layout(folder, **{option: "x"})
    for hours, step in ((0, 1), (48, 5), (True, 1), (1.5, 1), (10_000, 1)):
        with pytest.raises(UserError, match="hours"):
            _layout(folder, window_hours=hours, step_hours=step)
    with pytest.raises(UserError, match="give the folder"):
        _layout(None)


def test_nothing_stored_names_a_patient(miniature, findings, deaths):
    numbers = {row[c] for row in _read(miniature("mimic"), "icustays") for c in row if "_id" in c}
    for sample in (*findings, *deaths):
        stored = {sample.sample_id, sample.patient_id, *map(str, sample.groups.values())}
        assert stored.isdisjoint(numbers)
        assert not any(number in note for note in sample.notes for number in numbers)


def test_prepared(miniature, tmp_path):
    report = prepare(miniature("mimic"), "mimic", tmp_path / "out", size=16)
    manifest = report.manifest
    assert manifest.tasks == (TaskName.MULTILABEL,)
    assert manifest.classes == CHEXPERT
    assert manifest.image_shape == (1, 16, 16)
    assert set(manifest.split_counts) == {"train", "val", "test"}
    assert 80 < manifest.series[INDEX["heart_rate"]].mean < 110
    assert 36 < manifest.series[INDEX["temperature"]].mean < 38.5
    again = prepare(miniature("mimic"), "mimic", tmp_path / "out", size=16)
    assert again.unchanged


def test_prepared_for_mortality(miniature, tmp_path):
    report = prepare(
        miniature("mimic"), "mimic", tmp_path / "out", size=16, target="mortality", split="own"
    )
    assert report.manifest.tasks == (TaskName.CLASSIFICATION,)
    assert sum(report.manifest.split_counts.values()) == 54
