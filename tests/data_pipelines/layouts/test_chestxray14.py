"""NIH ChestX-ray14: labels, boxes, groups and official lists, on real files and in small."""

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
from trustsweep.data_pipelines.readers.images import read_grey
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split

TABLE, BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"


def _layout(folder: Path | None, size: int = 16, **options):
    return LAYOUTS["chestxray14"].create(folder, size=size, seed=0, options=options)


def _samples(folder: Path, size: int = 16) -> dict[str, Sample]:
    """By the name of the image."""
    layout = _layout(folder, size)
    return {s.source.name: s for case in layout.cases() for s in layout.load(case)}


def _refusals(folder: Path) -> list[BadFile]:
    return [p for p in _layout(folder).read() if isinstance(p, BadFile)]


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("chestxray14"), tmp_path / "copy"))


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _set(path: Path, row: int, column: int, value: str) -> str:
    """Change a field; the row's first one, the image."""
    rows = _rows(path)
    rows[row][column] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return rows[row][0]


def test_real_labels_groups_and_splits_are_the_tables(real_data):
    folder = real_data / "nih_chestxray14"
    samples = _samples(folder)
    layout = _layout(folder)
    tested = set((folder / "test_list.txt").read_text().split())
    rows = _rows(folder / TABLE)[1:]
    assert len(rows) == len(samples) == 240
    for name, labels, _, _, age, sex, view, *_ in rows:
        sample = samples[name]
        positive = {layout.classes[i] for i in np.flatnonzero(sample.label)}
        assert positive == set(labels.split("|")) - {"No Finding"}
        assert sample.split == (Split.TEST if name in tested else None)
        assert sample.groups == {"sex": sex, "age": float(age), "view": view}
    assert layout.remarks() == []


def test_real_boxes_cover_what_the_publisher_drew_on_1024_pixels(real_data):
    """The files here have 256 pixels: coordinates of theirs would be four times too far out."""
    folder = real_data / "nih_chestxray14"
    samples = _samples(folder, size=256)
    boxes = {name: s.boxes for name, s in samples.items() if len(s.boxes.classes)}
    rows = _rows(folder / BOXES)[1:]
    assert len(boxes) == len(rows) == 12
    for name, finding, x, y, w, h in rows:
        wanted = np.array([float(x), float(y), float(x) + float(w), float(y) + float(h)]) / 4
        assert np.allclose(boxes[name].xyxy, wanted, atol=1e-3)
        expected = {"Infiltrate": "Infiltration"}.get(finding, finding)
        assert _layout(folder).box_classes[boxes[name].classes[0]] == expected
        assert samples[name].label[boxes[name].classes[0]] == 1


def test_real_images_are_kept_at_their_own_size(real_data):
    folder = real_data / "nih_chestxray14"
    layout = _layout(folder, size=256)
    sample = next(layout.load(next(layout.cases())))
    assert np.array_equal(sample.image[0], np.asarray(Image.open(sample.source)))


def test_prepares_with_the_official_test_set(real_data, tmp_path):
    report = prepare(real_data / "nih_chestxray14", "chestxray14", tmp_path / "out", size=16)
    counts = report.manifest.split_counts
    assert counts["test"] == 60
    assert counts["train"] + counts["val"] == 180
    assert report.manifest.columns["label"].endswith("[14]")


def test_images_of_one_patient_share_its_id_and_no_id_tells_the_number(miniature):
    samples = _samples(miniature("chestxray14"))
    patients: dict[str, set[str]] = {}
    for name, sample in samples.items():
        patients.setdefault(name[:8], set()).add(sample.patient_id)
        assert name[:8] not in sample.sample_id + sample.patient_id
    assert len(patients) == 59  # the sixtieth was not downloaded
    assert len(set.union(*patients.values())) == len(patients)
    assert {len(ids) for ids in patients.values()} == {1}


@pytest.mark.parametrize("spelling", ["{:>08}", " {}", "{}.0"])
def test_a_patient_is_one_however_the_number_is_written(copy, spelling):
    """A table put together from two may pad some of its numbers."""
    before = {name: sample.patient_id for name, sample in _samples(copy).items()}
    column = _rows(copy / TABLE)[0].index("Patient ID")
    for row, cells in enumerate(_rows(copy / TABLE)[1:], start=1):
        if row % 2:
            _set(copy / TABLE, row, column, spelling.format(cells[column]))
    assert {name: sample.patient_id for name, sample in _samples(copy).items()} == before


def test_grey_stored_as_rgba_is_read_as_grey(miniature):
    name = "00000003_000.png"
    sample = _samples(miniature("chestxray14"), size=32)[name]
    with Image.open(sample.source) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(sample.image[0], np.asarray(image)[..., 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_constant_transparency_is_passed_over_only_where_asked_for(tmp_path, mode):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = tmp_path / "a.png"
    Image.fromarray(grey).convert(mode).save(path)
    assert np.array_equal(read_grey(path, constant_alpha=True), grey)
    assert np.array_equal(read_grey(path, deep=True, constant_alpha=True), grey)
    with pytest.raises(BadFile, match=f"mode {mode}"):
        read_grey(path)
    image = Image.fromarray(grey).convert(mode)
    image.putalpha(Image.fromarray(grey))
    image.save(path)
    with pytest.raises(BadFile, match="transparency that varies"):
        read_grey(path, constant_alpha=True)


def test_colour_behind_a_constant_transparency_is_refused(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(BadFile, match="8-bit grey"):
        read_grey(tmp_path / "a.png", constant_alpha=True)


@pytest.mark.parametrize(
    ("written", "years"),
    [("058Y", 58), ("011M", 11 / 12), ("001D", 1 / 365.25), ("61", 61), ("", None), ("412", None)],
)
def test_ages_as_older_tables_write_them(copy, written, years):
    name = _set(copy / TABLE, 1, 4, written)
    sample = _samples(copy)[name]
    assert sample.groups["age"] == (None if years is None else pytest.approx(years))
    assert any("above 120 years" in note for note in sample.notes) == (written == "412")


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        (1, "Atelectasis|Fracture", "is 'No Finding', or some of"),
        (1, "No Finding|Mass", "is 'No Finding', or some of"),
        (1, "", "is 'No Finding', or some of"),
        (3, "", "is empty"),
        (4, "fifty", "is a number, or one with Y, M or D"),
        (5, "X", "is M or F, or empty"),
        (6, "LL", "is PA or AP, or empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_line_and_column(copy, column, value, rule):
    _set(copy / TABLE, 4, column, value)
    (problem,) = _refusals(copy)
    assert problem.path == copy / TABLE
    assert problem.reason.startswith(f"line 5: column {_rows(copy / TABLE)[0][column]!r} {rule}")


def test_an_image_in_no_row_or_no_list_is_refused(copy):
    images = copy / "images_001" / "images"
    shutil.copy(images / "00000001_000.png", images / "00099999_000.png")
    lines = (copy / "train_val_list.txt").read_text().splitlines()
    (copy / "train_val_list.txt").write_text("\n".join(lines[1:]) + "\n")
    with (copy / "test_list.txt").open("a") as file:
        file.write(lines[1] + "\n")
    found = {problem.path.name: problem.reason for problem in _refusals(copy)}
    assert found.keys() == {"00099999_000.png", lines[0], lines[1]}
    assert found["00099999_000.png"].startswith(f"in no row of {TABLE}")
    assert found[lines[0]].startswith("in neither train_val_list.txt nor test_list.txt")
    assert found[lines[1]].startswith("in both")


def test_one_name_in_two_folders_is_refused(copy):
    name = "00000001_000.png"
    shutil.copy(copy / "images_001/images" / name, copy / "images_002/images" / name)
    (problem,) = _refusals(copy)
    assert problem.path == copy / "images_002/images" / name


def test_what_was_not_downloaded_is_a_remark(copy):
    before = len(_samples(copy))
    assert "1 of " in _layout(copy).remarks()[0]
    shutil.rmtree(copy / "images_002")
    (copy / BOXES).unlink()
    layout, after = _layout(copy), _samples(copy)
    assert 0 < len(after) < before
    rows, boxes = layout.remarks()
    assert rows.startswith(f"{before + 1 - len(after)} of {before + 1} rows")
    assert boxes == f"no {BOXES} here: the data set has no boxes"
    assert layout.box_classes == ()
    assert {sample.boxes for sample in after.values()} == {None}


def test_all_archives_unpacked_in_one_place_give_the_same_samples(copy):
    before = _samples(copy)
    (copy / "images").mkdir()
    for part in ("images_001", "images_002"):
        for path in (copy / part / "images").iterdir():
            path.rename(copy / "images" / path.name)
        shutil.rmtree(copy / part)
    after = _samples(copy)
    assert before.keys() == after.keys()
    assert all(before[name].sample_id == after[name].sample_id for name in before)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, "00099999_000.png", "names an image that"),
        (1, "Fracture", "is not one of"),
        (4, "-3", "the box has no area"),
        (2, "2000", "the box is off the image"),
    ],
)
def test_a_box_that_cannot_be_is_refused_by_its_line(copy, column, value, reason):
    _set(copy / BOXES, 1, column, value)
    (problem,) = _refusals(copy)
    assert problem.path == copy / BOXES
    assert problem.reason.startswith("line 2")
    assert reason in problem.reason


def test_a_box_beyond_the_image_is_cut_and_noted(copy):
    name = _set(copy / BOXES, 1, 4, "5000")
    sample = _samples(copy, size=24)[name]
    assert sample.boxes.xyxy[0, 2] == 24
    assert sample.notes == ("images have boxes that reach beyond them; cut at the edge",)


def test_a_table_without_a_column_names_the_nearest(copy):
    _set(copy / TABLE, 0, 3, "PatientID")
    with pytest.raises(UserError, match="no column 'Patient ID', did you mean 'PatientID'"):
        _layout(copy)


def test_the_older_table_is_read_where_the_newer_is_not_there(copy):
    before = _samples(copy)
    (copy / TABLE).rename(copy / "Data_Entry_2017.csv")
    after = _samples(copy)
    assert all(np.array_equal(before[name].label, after[name].label) for name in before)
    shutil.copy(copy / "Data_Entry_2017.csv", copy / TABLE)
    name = _set(copy / TABLE, 1, 4, "77")
    assert _samples(copy)[name].groups["age"] == 77


@pytest.mark.parametrize("absent", [TABLE, "test_list.txt"])
def test_a_folder_without_a_table_or_list_is_refused(copy, absent):
    (copy / absent).unlink()
    with pytest.raises(UserError, match=absent):
        _layout(copy)


def test_the_digest_follows_content_alone(copy):
    before = _layout(copy).source_digest()
    (copy / "LOG_CHESTXRAY.pdf").write_bytes(b"a log")
    assert _layout(copy).source_digest() == before
    _set(copy / TABLE, 1, 4, "33")
    assert _layout(copy).source_digest() != before


def test_a_row_that_repeats_another_is_said_and_counted_once(copy):
    before = _samples(copy)
    lines = (copy / TABLE).read_text().splitlines()
    (copy / TABLE).write_text("\n".join([*lines, lines[1], lines[5]]) + "\n")
    assert _samples(copy).keys() == before.keys()
    assert f"{TABLE}: 2 rows repeat an earlier one in every field; left out" in (
        _layout(copy).remarks()
    )
    other = lines[1].split(",")
    other[1] = "Hernia" if other[1] != "Hernia" else "Nodule"
    (copy / TABLE).write_text("\n".join([*lines, ",".join(other)]) + "\n")
    with pytest.raises(BadFile, match="the same value as in line 2"):
        _layout(copy)


def test_without_either_list_the_split_is_ours(copy, tmp_path):
    (copy / "test_list.txt").unlink()
    with pytest.raises(BadFile, match=r"test_list\.txt"):
        _layout(copy)
    (copy / "train_val_list.txt").unlink()
    assert {sample.split for sample in _samples(copy).values()} == {None}
    report = prepare(copy, "chestxray14", tmp_path / "out", size=16)
    assert set(report.manifest.split_counts) == {"train", "val", "test"}
    assert any("the split is ours" in warning for warning in report.warnings)


def test_the_real_copy_of_64_pixels_prepares(real_data, tmp_path):
    folder = real_data / "nih_chestxray14_64px"
    report = prepare(folder, "chestxray14", tmp_path / "out", size=16)
    assert sum(report.manifest.split_counts.values()) == 1000
    assert any("4 rows repeat an earlier one" in warning for warning in report.warnings)
