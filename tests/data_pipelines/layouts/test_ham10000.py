"""HAM10000: diagnoses, masks, lesions as patients, on the real files and in small."""

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
from trustsweep.data_pipelines.schema import TaskName

TABLE, MASKS = "HAM10000_metadata.csv", "HAM10000_segmentations_lesion_tschandl"


def _layout(folder: Path | None, size: int = 16):
    return LAYOUTS["ham10000"].create(folder, size=size, seed=0, options={})


def _samples(folder: Path, size: int = 16) -> dict[str, Sample]:
    """By the name of the image."""
    layout = _layout(folder, size)
    return {s.source.stem: s for case in layout.cases() for s in layout.load(case)}


def _refusals(folder: Path) -> dict[str, str]:
    problems = [p for p in _layout(folder).read() if isinstance(p, BadFile)]
    return {problem.path.name: problem.reason for problem in problems}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(folder: Path, rows: list[dict[str, str]], name: str = TABLE, delimiter: str = ","):
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("ham10000"), tmp_path / "copy"))


def test_real_rows_and_masks_are_the_files(real_data):
    folder = real_data / "ham10000"
    layout, rows = _layout(folder, 200), {row["image_id"]: row for row in _rows(folder)}
    cases = list(layout.cases())
    assert len(cases) == len(rows) == 5012
    lesions: dict[str, set[str]] = {}
    for case in cases[::250]:
        (sample,) = layout.load(case)
        row = rows[sample.source.stem]
        assert list(layout.classes)[sample.label] == {
            "nv": "melanocytic nevus", "mel": "melanoma", "bkl": "benign keratosis",
            "bcc": "basal cell carcinoma", "akiec": "actinic keratosis", "df": "dermatofibroma",
            "vasc": "vascular lesion",
        }[row["dx"]]  # fmt: skip
        assert sample.groups["age"] == (float(row["age"]) if row["age"] else None)
        assert sample.groups["sex"] == (None if row["sex"] == "unknown" else row["sex"])
        stored = Image.open(folder / MASKS / f"{sample.source.stem}_segmentation.png")
        expected = stored.resize((200, 200), Image.Resampling.NEAREST)
        assert np.array_equal(sample.mask[0], np.asarray(expected))
        lesions.setdefault(row["lesion_id"], set()).add(sample.patient_id)
    assert all(len(ids) == 1 for ids in lesions.values())


def test_images_of_one_lesion_are_one_patient(miniature):
    folder = miniature("ham10000")
    samples = _samples(folder)
    patients: dict[str, set[str]] = {}
    for row in _rows(folder):
        if row["image_id"] in samples:
            patients.setdefault(row["lesion_id"], set()).add(samples[row["image_id"]].patient_id)
    assert {len(ids) for ids in patients.values()} == {1}
    assert len(set.union(*patients.values())) == len(patients) == 70
    remarks = _layout(folder).remarks()
    assert any("patients are lesions" in remark for remark in remarks)
    assert any(remark.startswith("1 of 105 rows") for remark in remarks)


def test_unknown_is_none(miniature):
    folder = miniature("ham10000")
    samples = _samples(folder)
    for row in _rows(folder):
        if (sample := samples.get(row["image_id"])) is not None:
            known = {k: None if row[k] == "unknown" else row[k] for k in ("sex", "localization")}
            age = float(row["age"]) if row["age"] else None
            assert sample.groups == {**known, "age": age}
            assert sample.site == "unstated"


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("dx", "nevus", "'dx' is one of akiec"),
        ("dx", "", "'dx' is one of akiec"),
        ("sex", "m", "'sex' is male or female"),
        ("age", "850", "'age' is 0 to 120 years"),
        ("lesion_id", "", "'lesion_id' is empty"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_line(copy, column, value, reason):
    rows = _rows(copy)
    rows[0][column] = value
    _write(copy, rows)
    (refused,) = _refusals(copy).items()
    assert refused[0] == TABLE
    assert f"line 2: column {reason}" in refused[1]


@pytest.mark.parametrize(("column", "value"), [("dx", "nv"), ("sex", "female")])
def test_a_lesion_of_two_diagnoses_or_sexes_is_refused(copy, column, value):
    rows = _rows(copy)
    first, second = (row for row in rows if row["lesion_id"] == "HAM_0000001")
    first.update(dx="mel", sex="male")
    second.update({"dx": "mel", "sex": "male", column: value})
    _write(copy, rows)
    assert f"column '{column}' is another one than in line" in _refusals(copy)[TABLE]


def test_what_has_no_partner_is_refused(copy):
    rows = _rows(copy)
    _write(copy, rows[1:])
    (copy / MASKS / f"{rows[1]['image_id']}_segmentation.png").unlink()
    refusals = _refusals(copy)
    assert "in no row" in refusals[f"{rows[0]['image_id']}.jpg"]
    assert "a mask of no image" in refusals[f"{rows[0]['image_id']}_segmentation.png"]
    assert f"no {rows[1]['image_id']}_segmentation.png" in refusals[f"{rows[1]['image_id']}.jpg"]
    assert len(refusals) == 3


def test_one_image_in_both_parts_is_refused(copy):
    image = next((copy / "HAM10000_images_part_1").iterdir())
    shutil.copy(image, copy / "HAM10000_images_part_2")
    assert "also at" in _refusals(copy)[image.name]


def test_the_dataverses_table_and_its_sources(copy):
    rows = [{**row, "dataset": f"vidir_{n % 2}"} for n, row in enumerate(_rows(copy))]
    (copy / TABLE).unlink()
    _write(copy, rows, "HAM10000_metadata.tab", "\t")
    assert {sample.site for sample in _samples(copy).values()} == {"vidir_0", "vidir_1"}
    _write(copy, rows, "HAM10000_metadata")
    with pytest.raises(UserError, match="also here as"):
        _layout(copy)


def test_without_masks_there_are_diagnoses_alone(copy, tmp_path):
    shutil.rmtree(copy / MASKS)
    report = prepare(copy, "ham10000", tmp_path / "out", size=16)
    assert report.manifest.tasks == (TaskName.CLASSIFICATION,)
    assert report.manifest.mask_names == ()
    assert any("no masks" in warning for warning in report.warnings)
