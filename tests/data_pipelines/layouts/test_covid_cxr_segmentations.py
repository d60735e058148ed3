"""COVID-19 CXR segmentations: masks, boxes, patients and sites, on the real files and in small."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split

NAME = "covid-cxr-segmentations"


def _layout(folder: Path | None, size: int = 32, **options):
    return LAYOUTS[NAME].create(folder, size=size, seed=0, options=options)


def _samples(folder: Path, size: int = 32, **options) -> dict[str, Sample]:
    """By the name of the image."""
    layout = _layout(folder, size, **options)
    return {s.source.name: s for case in layout.cases() for s in layout.load(case)}


def _refusals(folder: Path, **options) -> list[BadFile]:
    return [p for p in _layout(folder, **options).read() if isinstance(p, BadFile)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _set(path: Path, row: int, column: str, value: str) -> None:
    rows = _rows(path)
    rows[row][column] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature(NAME), tmp_path / "copy"))


@pytest.fixture
def real(real_data) -> Path:
    return real_data / "covid19_cxr_segmentations"


@pytest.mark.parametrize("target", ["infection", "lung"])
def test_real_masks_are_the_files(real, target):
    samples = _samples(real, size=256, target=target)
    assert len(samples) == 100
    assert _layout(real, target=target).classes == ("background", target)
    for name, sample in samples.items():
        mask = np.asarray(Image.open(real / "masks" / target / name))
        assert np.array_equal(sample.mask[0] * 255, mask)
        assert np.array_equal(sample.image[0], np.asarray(Image.open(real / "images" / name)))


def test_real_boxes_are_the_tables(real):
    layout, samples = _layout(real), _samples(real, size=128)
    rows = _rows(real / "boxes_256.csv")
    assert len(rows) == sum(len(s.boxes.classes) for s in samples.values()) == 602
    assert set(layout.box_classes) == {row["cls"] for row in rows}
    for name, sample in samples.items():
        mine = [row for row in rows if row["filename"] == name]
        kinds = [layout.box_classes[c] for c in sample.boxes.classes]
        assert kinds == [row["cls"] for row in mine]
        x, y, w, h = np.array([[float(row[k]) for k in "xywh"] for row in mine]).T
        wanted = np.stack([x, y, x + w, y + h], axis=1) / 2
        assert np.allclose(sample.boxes.xyxy, wanted, atol=1e-3)


def test_real_lung_boxes_lie_on_the_lung_masks(real):
    """Boxes and masks were drawn on their own, and agree only in the right coordinates."""
    layout, samples = _layout(real), _samples(real, size=256, target="lung")
    covered = []
    for sample in samples.values():
        inside = np.zeros((256, 256), bool)
        for kind, box in zip(sample.boxes.classes, sample.boxes.xyxy.astype(int), strict=True):
            if layout.box_classes[kind] in ("Left Lung", "Right Lung"):
                inside[box[1] : box[3], box[0] : box[2]] = True
        covered.append(sample.mask[0][inside].sum() / sample.mask.sum())
    assert np.median(covered) > 0.98


def test_real_patients_and_gaps(real):
    samples = _samples(real)
    people = {row["filename"]: row for row in _rows(real / "metadata.csv")}
    files = {row["image"]: row["orig"] for row in _rows(real / "index.csv")}
    pairs = {(people[files[name]]["patientid"], s.patient_id) for name, s in samples.items()}
    assert len(pairs) == 73 == len({mine for _, mine in pairs})
    assert sum(s.groups["age"] is None for s in samples.values()) == 17
    assert sum(s.groups["sex"] is None for s in samples.values()) == 9
    assert sum(s.site == "unstated" for s in samples.values()) == 4
    assert {"Italy", "Taiwan", "Vietnam", "Hong Kong"} <= {s.site for s in samples.values()}


def test_real_set_is_prepared_by_patient(real, tmp_path):
    report = prepare(real, NAME, tmp_path / "out", size=32)
    assert sum(report.manifest.split_counts.values()) == 100
    assert any("not the publisher's and not used" in warning for warning in report.warnings)


def test_the_index_split_is_kept_where_asked_for(real, tmp_path):
    report = prepare(real, NAME, tmp_path / "out", size=32, split="index")
    assert report.manifest.split_counts["test"] == 20


def test_the_index_split_is_checked_only_where_asked_for(copy):
    _set(copy / "index.csv", 2, "split", "tset")
    assert _refusals(copy) == []
    (problem,) = _refusals(copy, split="index")
    assert problem.reason == "line 4: column 'split' is one of train, test."
    tested = {s.split for s in _samples(copy).values()}
    assert tested == {None}


def test_the_index_needs_no_split_column_that_is_not_used(copy):
    text = (copy / "index.csv").read_text().replace("split", "fold", 1)
    (copy / "index.csv").write_text(text)
    assert len(_samples(copy)) == 67
    with pytest.raises(UserError, match="no column 'split'"):
        _layout(copy, split="index")


def test_the_index_split_gives_the_test_set(miniature):
    samples = _samples(miniature(NAME), split="index")
    assert {s.split for s in samples.values()} == {Split.TEST, None}


@pytest.mark.parametrize(
    ("location", "site"),
    [
        ("Cho Ray Hospital, Ho Chi Minh City, Vietnam", "Vietnam"),
        ("Changhua City, Taiwan ", "Taiwan"),
        ("Italy", "Italy"),
        ("", "unstated"),
        ("somewhere,", "unstated"),
    ],
)
def test_the_site_is_the_country(copy, location, site):
    _set(copy / "metadata.csv", 0, "location", location)
    assert _samples(copy)["case0-day0.png"].site == site


def test_an_image_without_a_patient_counts_as_one(copy):
    for row in (1, 2):
        _set(copy / "metadata.csv", row, "patientid", "")
    samples = _samples(copy)
    first, second = samples["case1-day0.png"], samples["case1-day1.png"]
    assert first.patient_id != second.patient_id
    assert first.notes == ("images do not name their patient; each counts as one",)


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("metadata.csv", "sex", "female", "line 2: column 'sex' is M or F, or empty"),
        ("metadata.csv", "age", "412", "line 2: column 'age' is 0 to 120 years"),
        ("metadata.csv", "filename", "other.jpeg", "line 2: column 'orig' names a file"),
        ("boxes_256.csv", "cls", "Heart", "line 2: column 'cls' is not one of"),
        ("boxes_256.csv", "filename", "no.png", "line 2: column 'filename' names an image"),
        ("boxes_256.csv", "w", "0", "line 2: the box has no area"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_line(copy, table, column, value, reason):
    _set(copy / table, 0, column, value)
    (problem,) = _refusals(copy)
    assert problem.path.name == (
        "index.csv" if column == "filename" and "orig" in reason else table
    )
    assert problem.reason.startswith(reason)


def test_files_in_no_row_and_rows_without_files_are_refused(copy):
    shutil.copy(copy / "images/case0-day0.png", copy / "images/extra.png")
    shutil.copy(copy / "masks/infection/case0-day0.png", copy / "masks/infection/more.png")
    (copy / "images/case1-day0.png").unlink()
    (copy / "masks/infection/case2-day0.png").unlink()
    found = sorted(problem.path.relative_to(copy).as_posix() for problem in _refusals(copy))
    assert found == [
        "images/case1-day0.png",
        "images/extra.png",
        "masks/infection/case2-day0.png",
        "masks/infection/more.png",
    ]
    assert len(_refusals(copy, target="lung")) == 2


def test_a_mask_that_vanishes_is_noted(copy):
    mask = np.zeros((256, 256), np.uint8)
    mask[3, 3] = 255
    Image.fromarray(mask).save(copy / "masks/infection/case3-day0.png")
    assert "lose their mask at 32 pixels" in _samples(copy)["case3-day0.png"].notes[0]


@pytest.mark.parametrize("options", [{"target": "heart"}, {"split": "random"}, {"target": 1}])
def test_an_option_that_cannot_be_is_refused(copy, options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: one of"):
        _layout(copy, **options)


def test_a_folder_without_masks_is_refused(copy):
    shutil.rmtree(copy / "masks" / "lung")
    with pytest.raises(UserError, match="masks/lung"):
        _layout(copy, target="lung")


def test_no_message_or_id_holds_a_patients_number(copy):
    _set(copy / "metadata.csv", 0, "patientid", "S-4711")
    _set(copy / "metadata.csv", 0, "age", "412")
    (problem,) = _refusals(copy)
    assert "4711" not in str(problem)
    _set(copy / "metadata.csv", 0, "age", "41")
    sample = _samples(copy)["case0-day0.png"]
    assert "4711" not in sample.sample_id + sample.patient_id


def test_real_classes_and_regions_are_the_two_masks(real):
    lung, infection = (_samples(real, 64, target=target) for target in ("lung", "infection"))
    classes, regions = (_samples(real, 64, target=target) for target in ("classes", "regions"))
    assert _layout(real, target="classes").classes == ("background", "lung", "infection")
    assert _layout(real, target="regions").regions == ("lung", "infection")
    for name, sample in regions.items():
        assert np.array_equal(sample.mask[:1], lung[name].mask)
        assert np.array_equal(sample.mask[1:], infection[name].mask)
        expected = np.where(infection[name].mask > 0, 2, lung[name].mask)
        assert np.array_equal(classes[name].mask, expected)


def test_classes_need_both_masks(copy):
    name = sorted((copy / "masks" / "lung").iterdir())[0]
    name.unlink()
    assert any(str(name) in str(problem) for problem in _refusals(copy, target="classes"))
