"""TCGA cohorts: who has what, GDC's marks for nothing, tissue types, labels from a column."""

import csv
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.tcga import Tcga
from trustsweep.data_pipelines.problems import BadFile


def _samples(layout):
    return [s for case in layout.cases() for s in layout.load(case)]


def _problems(layout):
    return [p for p in layout.read() if isinstance(p, BadFile)]


@pytest.fixture
def cohort(tmp_path):
    """Eight patients by hand, who each lack something else; returns the folder."""
    rows = [["case_submitter_id", "gender", "race", "age_at_diagnosis", "vital_status"]]
    genes = [["bcr_patient_barcode", "A", "B"]]
    for number in range(8):
        barcode = f"TCGA-AA-000{number}"
        rows.append(
            [barcode, "FEMALE", "'--", 3652.5 * (number + 1), ("Alive", "Dead")[number % 2]]
        )
        genes.append([f"{barcode}-01", number, 0.5])
        (tmp_path / "tiles" / barcode).mkdir(parents=True)
        pixels = np.full((8, 8, 3), 10 * number, np.uint8)
        pixels[:4] = 255
        for index in range(4):
            pixels[0, 0] = index
            Image.fromarray(pixels).save(tmp_path / "tiles" / barcode / f"{index}.png")
    _write(tmp_path / "clinical.csv", rows)
    _write(tmp_path / "genomics.csv", genes)
    return tmp_path


def _write(path, rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_presence_follows_the_files(miniature):
    layout = Tcga(miniature("tcga"), size=8, seed=0)
    names = [m.name for m in layout.modalities]
    assert names == ["tiles", "genomics", "mri-flair", "mri-t1"]
    samples = _samples(layout)
    assert len(samples) == 45  # three have no label
    for sample in samples:
        tiles, genes, flair, t1 = sample.present
        assert sample.image.any() == tiles
        assert (not np.isnan(sample.tabular).all()) == genes
        assert sample.more_images["mri"].shape == (2, 8, 8, 8)
        assert sample.more_images["mri"][0].any() == flair
        assert sample.more_images["mri"][1].any() == t1
    counts = np.sum([s.present for s in samples], axis=0)
    numbers = [n for n in range(48) if n % 16]
    assert counts.tolist() == [
        sum(n % 5 > 0 for n in numbers),
        sum(n % 7 > 0 for n in numbers),
        sum(n % 2 for n in numbers),
        sum(n % 2 and n % 3 > 0 for n in numbers),
    ]


def test_gdcs_marks_are_gaps_and_its_double_rows_one_patient(miniature):
    layout = Tcga(miniature("tcga"), size=8, seed=0)
    samples = _samples(layout)
    assert layout.classes == ("Alive", "Dead")
    assert len({s.patient_id for s in samples}) == 45
    assert {s.groups["sex"] for s in samples} == {"female", "male"}
    assert {s.groups["race"] for s in samples} == {"white", "asian", None}
    by_id = {c.barcode: next(layout.load(c)).groups["age"] for c in layout.cases()}
    for number in (n for n in range(48) if n % 16):
        barcode = f"TCGA-{('02', '06', 'CS', 'DU')[number % 4]}-{1000 + number}"
        if number % 4:
            assert by_id[barcode] == 30 + number
        elif number % 6:
            assert by_id[barcode] == pytest.approx(30 + number, abs=0.1)
        else:
            assert by_id[barcode] is None
    assert layout.remarks() == [
        "2 of 49 patients have no tile, gene values or MRI",
        "2 patients with data have no label and are left out",
        "4 rows of gene values are of normal tissue and left out",
    ]


def test_a_sample_is_a_tile_with_its_patients_rest(miniature):
    one = _samples(Tcga(miniature("tcga"), size=20, seed=0))
    two = _samples(Tcga(miniature("tcga"), size=20, seed=0, tiles_per_patient=2))
    every = _samples(Tcga(miniature("tcga"), size=20, seed=0, tiles_per_patient=9))
    tiles = sum(s.present[0] for s in one)
    assert len(two) == len(one) + tiles
    assert len(every) == len(one) + 2 * tiles
    assert len({s.sample_id for s in every}) == len(every)
    patients = {s.patient_id: s for s in one}
    for sample in every:
        mine = patients[sample.patient_id]
        np.testing.assert_array_equal(sample.tabular, mine.tabular)
        np.testing.assert_array_equal(sample.more_images["mri"], mine.more_images["mri"])
        assert (sample.label, sample.site) == (mine.label, mine.site)
        if sample.present[0]:
            with Image.open(sample.source) as tile:
                np.testing.assert_array_equal(sample.image, np.moveaxis(np.array(tile), -1, 0))


def test_the_draw_of_tiles_follows_the_seed(cohort):
    sources = [
        [s.source.name for s in _samples(Tcga(cohort, size=8, seed=seed))] for seed in (0, 0, 1)
    ]
    assert sources[0] == sources[1] != sources[2]


def test_any_one_modality_is_enough(cohort, tmp_path):
    shutil.rmtree(cohort / "tiles")
    layout = Tcga(cohort, size=8, seed=0)
    samples = _samples(layout)
    assert len(samples) == 8
    assert all(s.image is None and not s.more_images for s in samples)
    assert [s.tabular.tolist() for s in samples] == [[n, 0.5] for n in range(8)]
    assert [round(s.groups["age"]) for s in samples] == [10 * (n + 1) for n in range(8)]
    assert samples[0].groups["sex"] == "female"
    (cohort / "genomics.csv").unlink()
    with pytest.raises(UserError, match=r"neither tiles, genomics\.csv nor mri"):
        Tcga(cohort, size=8, seed=0)


def test_the_primary_tumour_counts_first(cohort):
    rows = _table(cohort / "genomics.csv")
    rows += [["TCGA-AA-0000-06A", 90, 90], ["TCGA-AA-0001-11A", 91, 91]]
    _write(cohort / "genomics.csv", rows)
    samples = _samples(Tcga(cohort, size=8, seed=0))
    assert [s.tabular[0] for s in samples] == list(range(8))
    _write(cohort / "genomics.csv", [*rows, ["TCGA-AA-0003-01B", 92, 92]])
    (problem,) = _problems(Tcga(cohort, size=8, seed=0))
    assert "line 12" in str(problem)
    assert "same patient and tissue as line 5" in str(problem)
    assert "TCGA-AA" not in str(problem)


def test_newer_exports_with_prefixes_are_read(cohort):
    rows = _table(cohort / "clinical.csv")
    rows[0] = [
        "cases.submitter_id",
        "demographic.gender",
        "demographic.race",
        "diagnoses.age_at_diagnosis",
        "demographic.vital_status",
    ]
    before = _samples(Tcga(cohort, size=8, seed=0))
    _write(cohort / "clinical.csv", rows)
    after = _samples(Tcga(cohort, size=8, seed=0))
    assert [(s.label, s.groups) for s in after] == [(s.label, s.groups) for s in before]


def test_another_column_can_be_the_label(cohort):
    rows = _table(cohort / "clinical.csv")
    for number, row in enumerate(rows):
        row.append("stage" if number == 0 else ("I", "II", "III")[number % 3])
    _write(cohort / "clinical.csv", rows)
    layout = Tcga(cohort, size=8, seed=0, label="stage")
    assert layout.classes == ("I", "II", "III")
    assert [s.label for s in _samples(layout)] == [n % 3 for n in range(1, 9)]
    for label, message in {
        "vital_statu": "did you mean 'vital_status'",
        "gender": "1 different values",
        "age_at_diagnosis": "is a measurement",
    }.items():
        with pytest.raises(UserError, match=message):
            Tcga(cohort, size=8, seed=0, label=label)


def test_more_genes_than_allowed_are_refused_not_chosen(cohort):
    with pytest.raises(UserError, match=r"2 columns, more than genes=1.*test patients"):
        Tcga(cohort, size=8, seed=0, genes=1)
    assert len(Tcga(cohort, size=8, seed=0, genes=2).tabular) == 2


def test_what_belongs_to_nobody_is_named(cohort):
    (cohort / "tiles" / "misc").mkdir()
    for where in ("misc/a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(cohort / "tiles" / where)
    (cohort / "tiles" / "TCGA-ZZ-0001").mkdir()
    shutil.copy(cohort / "tiles" / "b.png", cohort / "tiles" / "TCGA-ZZ-0001" / "c.png")
    rows = _table(cohort / "clinical.csv")
    contradiction = [*rows[1][:4], "Dead"]
    _write(cohort / "clinical.csv", [*rows, contradiction, ["someone", "", "", "", "Dead"]])
    (cohort / "slides.zip").touch()
    layout = Tcga(cohort, size=8, seed=0)
    problems = {
        (p.path.relative_to(cohort).as_posix(), i): p.reason
        for i, p in enumerate(_problems(layout))
    }
    reasons = {name: reason for (name, _), reason in problems.items()}
    assert "not below a folder" in reasons["tiles/misc/a.png"]
    assert "not below a folder" in reasons["tiles/b.png"]
    assert "without a clinical row" in reasons["tiles/TCGA-ZZ-0001"]
    tables = [reason for (name, _), reason in problems.items() if name == "clinical.csv"]
    assert len(tables) == 2
    assert "line 10" in tables[0]
    assert "contradicts" in tables[0]
    assert "holds no barcode" in tables[1]
    assert "someone" not in tables[1]
    assert "not read, not part of the layout: slides.zip" in layout.remarks()


def test_sequences_must_be_named_alike(cohort):
    volume = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    for number in range(3):
        folder = cohort / "mri" / f"TCGA-AA-000{number}"
        folder.mkdir(parents=True)
        nibabel.save(volume, folder / "t1.nii.gz")
    nibabel.save(volume, folder / "TCGA-AA-0002_T1.nii")
    (problem,) = _problems(Tcga(cohort, size=8, seed=0))
    assert "a second t1 of one patient" in problem.reason
    for number in range(9):
        nibabel.save(volume, folder / f"series{number}.nii.gz")
    with pytest.raises(UserError, match="10 different sequences"):
        Tcga(cohort, size=8, seed=0)


def test_a_template_is_used(cohort):
    pytest.importorskip("SimpleITK")
    x, y, z = np.indices((20, 24, 22))
    head = ((x - 10) / 8) ** 2 + ((y - 12) / 9) ** 2 + ((z - 11) / 7) ** 2 < 1
    values = head * (200.0 + 20 * x + 10 * y)
    values += 400.0 * (((x - 7) / 3) ** 2 + ((y - 9) / 3) ** 2 + ((z - 12) / 3) ** 2 < 1)
    folder = cohort / "mri" / "TCGA-AA-0000"
    folder.mkdir(parents=True)
    template = nibabel.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    nibabel.save(template, cohort / "template.nii")
    shifted = template.affine.copy()
    moved = np.roll(values, (2, -3, 1), axis=(0, 1, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(moved, shifted), folder / "t1.nii.gz")
    options = {"size": 24, "seed": 0, "crop": False}
    plain = _samples(Tcga(cohort, **options))[0].more_images["mri"]
    found = _samples(Tcga(cohort, template=str(cohort / "template.nii"), **options))
    nibabel.save(template, folder / "t1.nii.gz")
    truth = _samples(Tcga(cohort, **options))[0].more_images["mri"]

    def likeness(image):
        return np.corrcoef(image.ravel(), truth.ravel())[0, 1]

    assert likeness(found[0].more_images["mri"]) > 0.92 > 0.8 > likeness(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles_per_patient": 0}, "tiles_per_patient: a whole number from 1"),
        ({"genes": "all"}, "genes: a whole number"),
        ({"depth": -1}, "depth: a whole number"),
        ({"spacing": "fine"}, "spacing: a width"),
        ({"crop": 2}, "crop: True or False"),
        ({"template": "nowhere.nii"}, "no such template"),
    ],
)
def test_options_that_cannot_be_are_refused(cohort, options, message):
    with pytest.raises(UserError, match=message):
        Tcga(cohort, size=8, seed=0, **options)


def test_a_cohort_without_a_usable_clinical_table_is_refused(cohort):
    (cohort / "clinical.tsv").write_text("case_submitter_id\tvital_status\n")
    with pytest.raises(UserError, match="also here as"):
        Tcga(cohort, size=8, seed=0)
    (cohort / "clinical.csv").unlink()
    (cohort / "clinical.tsv").write_text("patient\tvital_status\nx\tDead\n")
    with pytest.raises(UserError, match="no column of barcodes"):
        Tcga(cohort, size=8, seed=0)
    (cohort / "clinical.tsv").unlink()
    with pytest.raises(UserError, match="Export it from GDC"):
        Tcga(cohort, size=8, seed=0)
