"""LGG Segmentation Dataset: sequences that are not there, slices and volumes, broken folders."""

import shutil

import numpy as np
import pytest
from PIL import Image

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.lgg import Lgg
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.schema import TaskName


def _samples(layout):
    return [s for case in layout.cases() for s in layout.load(case)]


def _problems(layout):
    return [p for p in layout.read() if isinstance(p, BadFile)]


@pytest.fixture
def folder(miniature, tmp_path):
    """A copy of six patients, to break."""
    root = miniature("lgg")
    for patient in sorted(root.glob("TCGA_*"))[:6]:
        shutil.copytree(patient, tmp_path / "kaggle_3m" / patient.name)
    shutil.copy(root / "data.csv", tmp_path / "kaggle_3m")
    return tmp_path / "kaggle_3m"


def test_a_sequence_filled_with_flair_is_absent(miniature):
    for sample in _samples(Lgg(miniature("lgg"), size=16, seed=0)):
        flair = sample.image[1]
        assert sample.present[1]
        assert flair.any()
        for channel in (0, 2):
            assert sample.present[channel] == bool(sample.image[channel].any())
            assert not np.array_equal(sample.image[channel], flair)


def test_labels_say_whether_the_slice_holds_tumour(miniature):
    samples = _samples(Lgg(miniature("lgg"), size=24, seed=0))
    assert len(samples) == 45 * 4
    assert [s.label for s in samples] == [int(s.mask.any()) for s in samples]


def test_every_slice_of_a_patient_shares_patient_site_and_table(miniature):
    layout = Lgg(miniature("lgg"), size=8, seed=0)
    for case in layout.cases():
        samples = list(layout.load(case))
        assert len({(s.patient_id, s.site, s.groups["age"]) for s in samples}) == 1
        assert samples[0].site == case.folder.name.split("_")[1]
        assert case.folder.name not in samples[0].sample_id + samples[0].patient_id


def test_clusters_are_categories_and_gaps_stay_gaps(miniature):
    layout = Lgg(miniature("lgg"), size=8, seed=0)
    rows = {row["Patient"]: row for row in layout._table}
    for case in layout.cases():
        sample = next(layout.load(case))
        row = rows["_".join(case.folder.name.split("_")[:3])]
        for feature, value in zip(layout.tabular, sample.tabular, strict=True):
            if row[feature.name] is None:
                assert np.isnan(value)
            else:
                assert feature.vocabulary[int(value)] == str(row[feature.name])
        assert sample.present[3] == (not np.isnan(sample.tabular).all())
        if sample.groups["age"] is None:
            assert sample.groups == {"sex": None, "age": None, "race": None}


def test_tumour_slices_come_with_as_many_without(miniature):
    root = miniature("lgg")
    samples = _samples(Lgg(root, size=24, seed=0, slices="tumour"))
    labels = np.array([s.label for s in samples])
    assert len(labels) == 45 * 4
    third = _samples(Lgg(root, size=24, seed=0, slices=3))
    whole = _samples(Lgg(root, size=24, seed=0))
    assert [s.sample_id for s in third] == [
        s.sample_id for p in range(45) for s in whole[4 * p : 4 * p + 4 : 3]
    ]


def test_a_volume_stacks_the_slices_in_their_order(folder):
    volumes = _samples(Lgg(folder, size=24, seed=0, dims=3, depth=4))
    slices = _samples(Lgg(folder, size=24, seed=0))
    for index, volume in enumerate(volumes):
        mine = slices[4 * index : 4 * index + 4]
        assert volume.image.shape == (3, 4, 24, 24)
        np.testing.assert_array_equal(volume.mask, np.stack([s.mask for s in mine], axis=1))
        assert volume.present == mine[0].present
        for channel, there in enumerate(volume.present[:3]):
            stack = np.stack([s.image[channel] for s in mine])
            if there:
                assert np.corrcoef(stack.ravel(), volume.image[channel].ravel())[0, 1] > 0.99
            else:
                assert not volume.image[channel].any()


def test_the_real_patients(real_data):
    layout = Lgg(real_data / "lgg-mri-segmentation", size=64, seed=0)
    samples = _samples(layout)
    assert len(samples) == 359
    assert {s.site for s in samples} == {"CS", "DU", "EZ", "FG", "HT"}
    assert len({s.patient_id for s in samples}) == 12
    absent = {s.patient_id for s in samples if not s.present[2]}
    assert len(absent) == 5
    assert layout.remarks() == []
    assert {s.groups["sex"] for s in samples} == {"1", "2"}
    masks = [s.mask.any() for s in samples]
    assert 0.25 < np.mean(masks) < 0.4


@pytest.mark.slow
def test_the_real_patients_prepare(real_data, tmp_path):
    report = prepare(
        real_data / "lgg-mri-segmentation", "lgg", tmp_path / "lgg", size=32, slices="tumour"
    )
    assert sum(report.manifest.split_counts.values()) > 220
    assert any("no post-contrast sequence" in warning for warning in report.warnings)
    volumes = prepare(
        real_data / "lgg-mri-segmentation", "lgg", tmp_path / "lgg3", size=32, dims=3, depth=16
    )
    assert volumes.manifest.image_shape == (3, 16, 32, 32)


@pytest.mark.parametrize("options", [{"slices": "tumour"}, {"dims": 3, "depth": 8}])
def test_the_real_patients_without_their_table(real_data, tmp_path, options):
    """Everything but what only the table tells is as with it."""
    real = real_data / "lgg-mri-segmentation" / "kaggle_3m"
    chosen = sorted(real.glob("TCGA_*"))[::3]
    for patient in chosen:
        (tmp_path / "kaggle_3m").mkdir(exist_ok=True)
        (tmp_path / "kaggle_3m" / patient.name).symlink_to(patient)
    layout = Lgg(tmp_path, size=16, seed=0, **options)
    bare = _samples(layout)
    full = {s.sample_id: s for s in _samples(Lgg(real, size=16, seed=0, **options))}
    assert len({s.patient_id for s in bare}) == len(chosen)
    for sample in bare:
        other = full[sample.sample_id]
        assert (sample.patient_id, sample.site) == (other.patient_id, other.site)
        assert (sample.label, sample.present) == (other.label, other.present[:3])
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.mask, other.mask)
        assert sample.groups == {}
        assert sample.tabular is None
    assert layout.groups == ("site",)
    assert [m.name for m in layout.modalities] == ["pre-contrast", "flair", "post-contrast"]
    (remark,) = layout.remarks()
    assert remark.startswith("no data.csv here: no genomic clusters, sex, age or race")
    report = prepare(tmp_path, "lgg", tmp_path / "out", size=16, **options)
    assert TaskName.SEGMENTATION in report.manifest.tasks
    assert sum(report.manifest.split_counts.values()) == len(bare)
    assert remark in report.warnings


def test_the_table_is_part_of_the_digest(folder):
    before = Lgg(folder, size=8, seed=0).source_digest()
    (folder / "data.csv").unlink()
    assert Lgg(folder, size=8, seed=0).source_digest() != before


def test_what_does_not_fit_is_named(folder):
    first, second, third, fourth, fifth, _ = sorted(folder.glob("TCGA_*"))
    (first / f"{first.name}_2_mask.tif").unlink()
    (fifth / f"{fifth.name}_2.tif").rename(fifth / "slice_2.tif")
    (second / f"{second.name}_2.tif").unlink()
    (third / "notes.txt").write_text("x")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(fourth / f"{fourth.name}_1_mask.tif")
    (folder / "TCGA_CS_0001_19990101").mkdir()
    (folder / "TCGA_odd").mkdir()
    problems = {p.path.name: p.reason for p in _problems(Lgg(folder, size=8, seed=0))}
    assert "has no mask" in problems[f"{first.name}_2.tif"]
    assert "without its image" in problems[f"{second.name}_2_mask.tif"]
    assert "not named" in problems["notes.txt"]
    assert "9 x 9 pixels" in problems[f"{fourth.name}_1_mask.tif"]
    assert "no slices" in problems["TCGA_CS_0001_19990101"]
    assert "no slices" in problems["TCGA_odd"]
    assert "not named" in problems["slice_2.tif"]
    assert "without its image" in problems[f"{fifth.name}_2_mask.tif"]


def test_a_patient_in_no_row_and_an_odd_name_are_refused(folder):
    first = sorted(folder.glob("TCGA_*"))[0]
    for name in ("TCGA_HT_0002_19990101", "TCGA_HT_5"):
        shutil.copytree(first, folder / name)
        for path in (folder / name).iterdir():
            path.rename(path.with_name(path.name.replace(first.name, name)))
    problems = {p.path.name: p.reason for p in _problems(Lgg(folder, size=8, seed=0))}
    assert "in no row of data.csv" in problems["TCGA_HT_0002_19990101"]
    assert "not named TCGA_<site>" in problems["TCGA_HT_5"]


def test_a_volume_with_a_gap_is_refused(folder):
    first = sorted(folder.glob("TCGA_*"))[0]
    for suffix in ("", "_mask"):
        (first / f"{first.name}_2{suffix}.tif").unlink()
    (problem,) = _problems(Lgg(folder, size=8, seed=0, dims=3))
    assert problem.path == first
    assert "slice 2 is missing" in problem.reason
    assert not _problems(Lgg(folder, size=8, seed=0))


def test_what_is_not_read_and_who_is_not_here_is_remarked(folder):
    (folder / "extra.zip").touch()
    remarks = Lgg(folder, size=8, seed=0).remarks()
    assert remarks == [
        "not read, not part of the layout: extra.zip",
        "40 of 46 patients of data.csv have no folder",
    ]


def test_an_impossible_age_is_refused(folder):
    table = (folder / "data.csv").read_text(encoding="utf-8").splitlines()
    cells = table[1].split(",")
    cells[14] = "230"
    (folder / "data.csv").write_text("\n".join([table[0], ",".join(cells), *table[2:]]))
    (problem,) = _problems(Lgg(folder, size=8, seed=0))
    assert "line 2" in str(problem)
    assert "0 to 120 years" in str(problem)
    assert "TCGA" not in str(problem).replace(str(folder), "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 4}, "dims: 2 for slices or 3 for volumes, not 4"),
        ({"slices": "some"}, "slices: all, tumour, or a whole number"),
        ({"slices": 0}, "slices: all"),
        ({"dims": 3, "slices": 2}, "leave it out with dims=3"),
        ({"depth": 8}, "leave it out, or set dims=3"),
        ({"dims": 3, "depth": "x"}, "depth: a number of slices"),
    ],
)
def test_options_that_cannot_be_are_refused(miniature, options, message):
    with pytest.raises(UserError, match=message):
        Lgg(miniature("lgg"), size=8, seed=0, **options)


def test_a_table_without_a_column_or_with_an_empty_one_is_refused(folder):
    text = (folder / "data.csv").read_text(encoding="utf-8")
    (folder / "data.csv").write_text(text.replace("RPPACluster", "RPPACLUSTERS"))
    with pytest.raises(UserError, match="no column 'RPPACluster', did you mean"):
        Lgg(folder, size=8, seed=0)
    lines = [line.split(",") for line in text.splitlines()]
    for cells in lines[1:]:
        cells[5] = ""
    (folder / "data.csv").write_text("\n".join(",".join(cells) for cells in lines))
    with pytest.raises(UserError, match="'RPPACluster' is empty"):
        Lgg(folder, size=8, seed=0)
