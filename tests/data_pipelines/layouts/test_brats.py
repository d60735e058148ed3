"""BraTS: every year's names, regions, sequences that are missing, cases that cannot be."""

import importlib.util
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.brats import Brats
from trustsweep.data_pipelines.problems import BadFile

_spec = importlib.util.spec_from_file_location(
    "miniature_brats", Path(__file__).parent / "miniature_brats.py"
)
written = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(written)

YEARS = {
    "Brats18_CBICA_AAB_1": (written.EARLY, 4),
    "BraTS19_TCIA01_147_1": (written.EARLY, 4),
    "BraTS20_Training_007": (written.EARLY, 4),
    "BraTS2021_00000": (written.EARLY, 4),
    "BraTS-GLI-00000-000": (written.LATE, 3),
}


def _samples(layout):
    return [s for case in layout.cases() for s in layout.load(case)]


def _problems(layout):
    return [p for p in layout.read() if isinstance(p, BadFile)]


def _case(folder, name="BraTS2021_00000", seed=0):
    files, enhancing = next(v for k, v in YEARS.items() if k[:9] == name[:9])
    written.write_case(folder / name, files, np.random.default_rng(seed), enhancing)
    return folder / name


@pytest.mark.parametrize("name", YEARS)
@pytest.mark.parametrize("below", ["", "HGG", "TrainingData/deep"])
def test_every_years_names_are_known(tmp_path, name, below):
    _case(tmp_path / below, name)
    (sample,) = _samples(Brats(tmp_path, size=16, seed=0, dims=3))
    assert sample.image.shape == (4, 16, 16, 16)
    assert sample.image.dtype == np.float32
    assert sample.mask.any()
    expected = {"Brats18_": "CBICA", "BraTS19_": "TCIA01"}.get(name[:8], "unstated")
    assert sample.site == expected
    assert sample.groups == ({"grade": "HGG"} if below == "HGG" else {})


@pytest.mark.parametrize("name", YEARS)
def test_regions_hold_their_labels(tmp_path, name):
    folder = _case(tmp_path, name)
    seg = nibabel.load(folder / f"{name}{YEARS[name][0]['seg']}.nii.gz").get_fdata()
    enhancing = YEARS[name][1]
    regions = {"whole": (1, 2, enhancing), "core": (1, enhancing), "enhancing": (enhancing,)}
    for region, labels in regions.items():
        layout = Brats(tmp_path, size=20, seed=0, dims=3, depth=10, region=region, crop=False)
        (sample,) = _samples(layout)
        assert sample.mask.sum() == np.isin(seg, labels).sum()
        assert layout.classes == ("background", f"{region} tumour")


def test_channels_are_the_sequences_in_their_order(tmp_path):
    folder = _case(tmp_path)
    (whole,) = _samples(Brats(tmp_path, size=20, seed=0, dims=3, depth=10, crop=False))
    for channel, kind in enumerate(("flair", "t1", "t1ce", "t2")):
        stored = nibabel.load(folder / f"{folder.name}_{kind}.nii.gz").get_fdata()
        # Stored towards left and back, as the image is.
        placed = np.zeros((10, 20, 20))
        placed[:, :, 2:18] = stored.transpose(2, 1, 0)
        assert np.corrcoef(placed.ravel(), whole.image[channel].ravel())[0, 1] > 0.99


def test_slices_are_those_of_the_volume(tmp_path):
    _case(tmp_path)
    (volume,) = _samples(Brats(tmp_path, size=20, seed=0, dims=3, depth=10, crop=False))
    slices = _samples(Brats(tmp_path, size=20, seed=0, crop=False))
    np.testing.assert_array_equal(np.stack([s.image for s in slices], axis=1), volume.image)
    np.testing.assert_array_equal(np.stack([s.mask for s in slices], axis=1), volume.mask)
    assert [s.label for s in slices] == [int(s.mask.any()) for s in slices]
    chosen = _samples(Brats(tmp_path, size=20, seed=0, crop=False, slices="tumour"))
    assert sum(s.label for s in chosen) == sum(s.label for s in slices) > 0
    tumours = sum(s.label for s in slices)
    assert len(chosen) == min(2 * tumours, len(slices))


def test_the_head_fills_a_cropped_slice(tmp_path):
    _case(tmp_path)
    cropped = _samples(Brats(tmp_path, size=16, seed=0, slices=3))
    whole = _samples(Brats(tmp_path, size=16, seed=0, slices=3, crop=False))
    assert np.mean([s.image.any(axis=0).mean() for s in cropped]) > np.mean(
        [s.image.any(axis=0).mean() for s in whole]
    )


def test_time_points_of_2023_are_one_patient(tmp_path):
    for number, name in enumerate(("00000-000", "00000-001", "00001-000")):
        _case(tmp_path, f"BraTS-GLI-{name}", seed=number)
    first, second, third = _samples(Brats(tmp_path, size=8, seed=0, dims=3))
    assert first.patient_id == second.patient_id != third.patient_id
    assert len({s.sample_id for s in (first, second, third)}) == 3


def test_2020s_tables_tell_site_grade_and_age(miniature):
    layout = Brats(miniature("brats"), size=8, seed=0, dims=3)
    samples = _samples(layout)
    assert layout.groups == ("site", "grade", "age")
    assert len(samples) == 42
    assert {s.site for s in samples} == {"CBICA", "TCIA01", "2013", "unstated"}
    assert sum(s.groups["grade"] == "LGG" for s in samples) == 10
    assert [s.groups["age"] for s in samples[:2]] == [41.5, None]
    assert layout.remarks() == ["2 validation cases have no published masks and are not read"]


def test_a_missing_sequence_is_refused_or_absent(tmp_path):
    folder = _case(tmp_path)
    _case(tmp_path, "BraTS2021_00001", seed=1)
    (folder / f"{folder.name}_flair.nii.gz").unlink()
    (problem,) = _problems(Brats(tmp_path, size=8, seed=0, dims=3))
    assert problem.path == folder
    assert "no BraTS2021_00000_flair.nii.gz" in problem.reason
    assert "missing=absent" in problem.reason
    sample, other = _samples(Brats(tmp_path, size=8, seed=0, dims=3, missing="absent"))
    assert sample.present == (False, True, True, True)
    assert not sample.image[0].any()
    assert all(channel.any() for channel in sample.image[1:])
    assert sample.notes == ("images have no flair sequence; set to 0",)
    assert other.present == (True,) * 4


def test_what_cannot_be_is_named(tmp_path):
    names = [f"BraTS2021_{n:05d}" for n in range(6)]
    a, b, c, d, e, f = (_case(tmp_path, name, seed) for seed, name in enumerate(names))
    (a / f"{a.name}_seg.nii.gz").unlink()
    (b / f"{b.name}_seg.nii.gz").rename(b / "W39_1998.09.19_Segm.nii.gz")
    shutil.copy(c / f"{c.name}_t1.nii.gz", c / f"{c.name}_t1.nii")
    labels = np.full(written.SHAPE, 3, np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, written.AFFINE), d / f"{d.name}_seg.nii.gz")
    moved = written.AFFINE.copy()
    moved[0, 3] = 5
    other = np.ones(written.SHAPE, np.int16)
    nibabel.save(nibabel.Nifti1Image(other, moved), e / f"{e.name}_t2.nii.gz")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(f / f"{f.name}_t1.nii.gz", tmp_path / "elsewhere")
    problems = _problems(Brats(tmp_path, size=8, seed=0, dims=3))
    reasons = {p.path.relative_to(tmp_path).as_posix(): p.reason for p in problems}
    assert "no BraTS2021_00000_seg.nii.gz" in reasons.pop(a.name)
    assert "no BraTS2021_00001_seg.nii.gz" in reasons.pop(b.name)
    assert "Rename it" in reasons.pop(f"{b.name}/W39_1998.09.19_Segm.nii.gz")
    assert "also here as" in reasons.pop(f"{c.name}/{c.name}_t1.nii.gz")
    assert "labels 3 are unknown" in reasons.pop(f"{d.name}/{d.name}_seg.nii.gz")
    assert "another grid" in reasons.pop(f"{e.name}/{e.name}_t2.nii.gz")
    assert "not named as a case" in reasons.pop(f"elsewhere/{f.name}_t1.nii.gz")
    assert not reasons


def test_years_are_not_mixed_and_validation_alone_is_refused(tmp_path):
    _case(tmp_path / "a")
    _case(tmp_path / "a", "BraTS20_Training_007")
    with pytest.raises(UserError, match="cases of 2020 and 2021"):
        Brats(tmp_path / "a", size=8, seed=0)
    folder = _case(tmp_path / "ValidationData")
    (folder / f"{folder.name}_seg.nii.gz").unlink()
    with pytest.raises(UserError, match="no labelled case"):
        Brats(tmp_path / "ValidationData", size=8, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "edema"}, "region: one of whole, core, enhancing"),
        ({"missing": "zero"}, "missing: one of refuse, absent"),
        ({"crop": "yes"}, "crop: one of True, False"),
        ({"spacing": -1.0}, "spacing: a width in mm"),
        ({"spacing": float("nan")}, "spacing: a width in mm"),
        ({"dims": 1}, "dims: 2 for slices"),
    ],
)
def test_options_that_cannot_be_are_refused(miniature, options, message):
    with pytest.raises(UserError, match=message):
        Brats(miniature("brats"), size=8, seed=0, **options)


def test_tables_that_cannot_be_are_refused(tmp_path):
    _case(tmp_path, "BraTS20_Training_007")
    mapping = tmp_path / "name_mapping.csv"
    mapping.write_text(
        "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID\nIV,NA,BraTS20_Training_007\n"
    )
    with pytest.raises(BadFile, match="line 2: column 'Grade' is HGG or LGG"):
        Brats(tmp_path, size=8, seed=0)
    mapping.unlink()
    (tmp_path / "survival_info.csv").write_text("Brats20ID,Age\nBraTS20_Training_007,161\n")
    with pytest.raises(BadFile, match="line 2: column 'Age' is 0 to 120 years"):
        Brats(tmp_path, size=8, seed=0)


@pytest.mark.parametrize("name", YEARS)
def test_regions_lie_within_each_other_whatever_the_year_calls_them(tmp_path, name):
    _case(tmp_path, name)
    made = {"size": 20, "seed": 0, "dims": 3, "depth": 10, "crop": False}
    layout = Brats(tmp_path, **made, target="regions")
    (sample,) = _samples(layout)
    assert layout.regions == ("whole tumour", "tumour core", "enhancing tumour")
    for mask, region in zip(sample.mask, ("whole", "core", "enhancing"), strict=True):
        (alone,) = _samples(Brats(tmp_path, **made, region=region))
        assert np.array_equal(mask, alone.mask[0])
    whole, core, enhancing = sample.mask
    assert (core <= whole).all()
    assert (enhancing <= core).all()
    assert 0 < enhancing.sum() < core.sum() < whole.sum()


@pytest.mark.parametrize("name", YEARS)
def test_tissues_exclude_each_other_and_add_up_to_the_regions(tmp_path, name):
    _case(tmp_path, name)
    made = {"size": 20, "seed": 0, "dims": 3, "depth": 10, "crop": False}
    layout = Brats(tmp_path, **made, target="tissues")
    (sample,), (regions,) = _samples(layout), _samples(Brats(tmp_path, **made, target="regions"))
    assert layout.classes == ("background", "necrotic core", "oedema", "enhancing tumour")
    for mask, held in zip(regions.mask, ((1, 2, 3), (1, 3), (3,)), strict=True):
        assert np.array_equal(mask, np.isin(sample.mask[0], held))


def test_slices_of_regions_are_labelled_by_the_whole_tumour(tmp_path):
    _case(tmp_path)
    samples = _samples(Brats(tmp_path, size=20, seed=0, crop=False, target="regions"))
    assert [s.label for s in samples] == [int(s.mask[0].any()) for s in samples]
    assert {s.label for s in samples} == {0, 1}
    tissues = _samples(Brats(tmp_path, size=20, seed=0, crop=False, target="tissues"))
    assert {s.label for s in tissues} == {None}


def test_a_region_that_vanishes_is_noted(tmp_path):
    _case(tmp_path)
    (sample,) = _samples(Brats(tmp_path, size=2, seed=0, dims=3, target="regions"))
    assert any("lose their" in note for note in sample.notes)
    for lost, name in zip(
        ~sample.mask.any(axis=(1, 2, 3)),
        ("whole tumour", "tumour core", "enhancing tumour"),
        strict=True,
    ):
        assert any(f"lose their {name} " in note for note in sample.notes) == lost


@pytest.mark.parametrize("target", ["regions", "tissues"])
def test_one_region_and_all_of_them_are_not_asked_for_at_once(tmp_path, target):
    _case(tmp_path)
    with pytest.raises(UserError, match="region: chooses with target=region"):
        Brats(tmp_path, size=8, seed=0, region="core", target=target)


def test_extensions_in_capitals_are_read(tmp_path):
    folder = _case(tmp_path)
    path = folder / f"{folder.name}_t1.nii.gz"
    path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    assert len(_samples(Brats(tmp_path, size=8, seed=0, dims=3))) == 1


def test_a_folder_named_like_its_file_is_told(tmp_path):
    """As one of the archives on Kaggle unpacks."""
    folder = _case(tmp_path)
    path = folder / f"{folder.name}_t1.nii.gz"
    inner = folder / f"{folder.name}_t1.nii"
    inner.mkdir()
    path.rename(inner / "00000057_brain_t1.nii.gz")
    reasons = [p.reason for p in _problems(Brats(tmp_path, size=8, seed=0, dims=3))]
    assert any("in a folder that is named like a file" in reason for reason in reasons)


def test_a_resection_cavity_of_2024_is_no_tissue_of_2023(tmp_path):
    folder = _case(tmp_path, "BraTS-GLI-02000-100")
    path = folder / f"{folder.name}-seg.nii.gz"
    stored = nibabel.load(path)
    values = np.asarray(stored.dataobj).copy()
    values[0, 0, 0] = 4
    nibabel.save(nibabel.Nifti1Image(values, stored.affine), path)
    (problem,) = _problems(Brats(tmp_path, size=8, seed=0, dims=3))
    assert "resection cavity, of BraTS 2024" in problem.reason
