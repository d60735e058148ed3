"""nnU-Net's and the Decathlon's forms: classes, regions, channels, and what contradicts itself."""

import importlib.util
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.nnunet import Nnunet
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.schema import PatientSource, Split, TaskName

_spec = importlib.util.spec_from_file_location(
    "miniature_nnunet", Path(__file__).parent / "miniature_nnunet.py"
)
written = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(written)

FORMS = ("decathlon", "v1", "v2")
#: Voxels of a miniature on its own grid, (D, H, W).
DEPTH, SIDE = 12, 18


def _samples(layout):
    return [s for case in layout.cases() for s in layout.load(case)]


def _refusals(folder, **options):
    layout = Nnunet(folder, **{"size": 8, "seed": 0, "dims": 3, **options})
    return [f"{p.path.name}: {p.reason}" for p in layout.read() if isinstance(p, BadFile)]


def _change(folder, **entries):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def _stored(path):
    """(D, H, W) as `PreparedVolume` lies: from feet to head, front to back, right to left."""
    values = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    return values.transpose(2, 1, 0)[:, ::-1, ::-1]


def _placed(volume):
    """The volume's own voxels in the middle of a square of `SIDE`."""
    left = (SIDE - volume.shape[2]) // 2
    out = np.zeros((DEPTH, SIDE, SIDE))
    out[:, :, left : left + volume.shape[2]] = volume
    return out


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(tmp_path, form, channels):
    folder = written.write(tmp_path, cases=3, form=form, channels=channels)
    layout = Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH)
    assert layout.classes == ("background", "Anterior", "Posterior")
    assert layout.tasks == (TaskName.MULTICLASS_SEGMENTATION,)
    names = ("MRI",) if channels == 1 else ("MRI0", "MRI1")
    assert tuple(m.name for m in layout.modalities) == names
    samples = _samples(layout)
    assert len(samples) == 3
    for number, sample in enumerate(samples, start=1):
        labels = _stored(folder / "labelsTr" / f"hippocampus_{number:03d}.nii.gz")
        assert np.array_equal(sample.mask[0], _placed(labels))
        # Bright where there is a hippocampus, in every channel.
        assert sample.image.shape == (channels, DEPTH, SIDE, SIDE)
        for channel in sample.image:
            inside = channel[sample.mask[0] > 0].min()
            assert inside > channel[(sample.mask[0] == 0)].max()


def test_the_front_is_the_anterior_part(tmp_path):
    """Rows run from front to back: 1 lies above 2 in every slice."""
    folder = written.write(tmp_path, cases=2)
    for sample in _samples(Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH)):
        rows = [np.nonzero(sample.mask[0] == value)[1] for value in (1, 2)]
        assert rows[0].max() < rows[1].min()


def test_slices_are_those_of_the_volume(tmp_path):
    folder = written.write(tmp_path, cases=2)
    volumes = _samples(Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH))
    slices = _samples(Nnunet(folder, size=SIDE, seed=0))
    stacked = np.stack([s.mask for s in slices], axis=1)
    assert np.array_equal(stacked, np.concatenate([v.mask for v in volumes], axis=1))
    assert len({s.patient_id for s in slices}) == 2
    assert len({s.sample_id for s in slices}) == 2 * DEPTH
    held = sum(bool(s.mask.any()) for s in slices)
    chosen = _samples(Nnunet(folder, size=SIDE, seed=0, slices="foreground"))
    assert sum(bool(s.mask.any()) for s in chosen) == held
    assert 0 < len(chosen) < len(slices)


def test_labels_need_not_follow_each_other_nor_be_in_order(tmp_path):
    folder = written.write(tmp_path, cases=1, labels={"2": "tail", "0": "background", "1": "head"})
    layout = Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH)
    assert layout.classes == ("background", "head", "tail")
    (before,) = _samples(layout)
    path = folder / "labelsTr" / "hippocampus_001.nii.gz"
    stored = nibabel.load(path)
    values = np.asarray(stored.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(values == 2, 7, values), stored.affine), path)
    _change(folder, labels={"0": "background", "1": "head", "7": "tail"})
    (after,) = _samples(Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH))
    assert np.array_equal(before.mask, after.mask)


def test_one_class_is_binary_segmentation(tmp_path):
    folder = written.write(tmp_path, cases=1)
    for path in (folder / "labelsTr").iterdir():
        stored = nibabel.load(path)
        whole = (np.asarray(stored.dataobj) > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(whole, stored.affine), path)
    _change(folder, labels={"0": "background", "1": "hippocampus"})
    layout = Nnunet(folder, size=8, seed=0, dims=3)
    assert layout.tasks == (TaskName.SEGMENTATION,)
    assert layout.classes == ("background", "hippocampus")
    assert set(np.unique(_samples(layout)[0].mask)) == {0, 1}


def test_regions_of_version_2_overlap(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "anterior": [1]}
    folder = written.write(tmp_path, cases=2, form="v2", labels=labels)
    layout = Nnunet(folder, size=SIDE, seed=0, dims=3, depth=DEPTH)
    assert layout.tasks == (TaskName.REGION_SEGMENTATION,)
    assert layout.regions == ("whole", "anterior")
    for number, sample in enumerate(_samples(layout), start=1):
        stored = _placed(_stored(folder / "labelsTr" / f"hippocampus_{number:03d}.nii.gz"))
        assert np.array_equal(sample.mask, np.stack([stored > 0, stored == 1]))


def test_labelled_test_cases_are_the_test_split(tmp_path):
    folder = written.write(tmp_path / "in", cases=12, form="v2", tested=2, unlabelled=1)
    report = prepare(folder, "nnunet", tmp_path / "out", size=8, dims=3)
    assert report.manifest.split_counts["test"] == 2
    assert sum(report.manifest.split_counts.values()) == 14
    assert any("1 cases of imagesTs have no labels" in w for w in report.warnings)
    assert any("patients are guessed" in w for w in report.warnings)
    splits = {s.split for s in _samples(Nnunet(folder, size=8, seed=0, dims=3))}
    assert splits == {None, Split.TEST}


def test_the_publishers_terms_are_in_the_manifest(miniature, tmp_path):
    report = prepare(miniature("nnunet"), "nnunet", tmp_path / "out", size=8, dims=3)
    assert report.manifest.licence == "CC-BY-SA 4.0"
    assert report.manifest.citation.startswith("A university hospital; Isensee")
    assert report.manifest.preprocessing["patients"] is not PatientSource.PUBLISHER
    assert sum(report.manifest.mask_shares["train"]) == pytest.approx(1)


@pytest.mark.parametrize("named", ["labelsTr/{}.nii.gz", "{}.nii.gz", "{}"])
def test_patients_may_be_listed_by_case(tmp_path, named):
    folder = written.write(tmp_path / "in", cases=4, form="v1")
    who = tmp_path / "who.csv"
    rows = [f"{named.format(f'hippocampus_{n:03d}')},{n % 2}" for n in range(1, 5)]
    who.write_text("\n".join(["file,patient", *rows]))
    layout = Nnunet.create(folder, size=8, seed=0, options={}, patients=who)
    assert layout.patient_list.problems == []
    assert len({s.patient_id for s in _samples(layout)}) == 2


def test_a_case_whose_name_ends_like_a_channel_is_a_case(tmp_path):
    folder = written.write(tmp_path, cases=1)
    for place in ("imagesTr", "labelsTr"):
        (folder / place / "hippocampus_001.nii.gz").rename(folder / place / "liver_0001.nii.gz")
    _change(folder, training=[{"image": "i", "label": "./labelsTr/liver_0001.nii.gz"}])
    assert len(_samples(Nnunet(folder, size=8, seed=0, dims=3))) == 1


def test_what_does_not_fit_together_is_refused_by_name(tmp_path):
    folder = written.write(tmp_path, cases=7, form="v1", channels=2)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    (images / "hippocampus_001_0001.nii.gz").unlink()
    (labels / "hippocampus_002.nii.gz").unlink()
    for channel in (0, 1):
        (images / f"hippocampus_003_{channel:04d}.nii.gz").unlink()
    shutil.copy(images / "hippocampus_004_0000.nii.gz", images / "hippocampus_004_0002.nii.gz")
    shutil.copy(labels / "hippocampus_005.nii.gz", labels / "hippocampus_105.nii.gz")
    shutil.copy(images / "hippocampus_006_0000.nii.gz", images / "hippocampus_006.nii.gz")
    stored = nibabel.load(labels / "hippocampus_007.nii.gz")
    odd = np.asarray(stored.dataobj).copy()
    odd[0, 0, 0] = 5
    nibabel.save(nibabel.Nifti1Image(odd, stored.affine), labels / "hippocampus_007.nii.gz")
    refusals = "\n".join(_refusals(folder))
    for reason in (
        "hippocampus_001.nii.gz: no hippocampus_001_0001.nii.gz (MRI1)",
        "hippocampus_002_0000.nii.gz: no hippocampus_002.nii.gz in labelsTr",
        "hippocampus_003.nii.gz: no image of it in imagesTr",
        "hippocampus_004_0002.nii.gz: a channel beyond the 2",
        "hippocampus_105.nii.gz: no image of it in imagesTr",
        'hippocampus_105.nii.gz: not in "training" of dataset.json',
        "labels 5 are unknown. Known: 0, 1, 2",
    ):
        assert reason in refusals
    assert "hippocampus_006" in refusals


def test_labels_beside_their_image_are_refused(tmp_path):
    folder = written.write(tmp_path, cases=1, form="v1", channels=2)
    for place, moved in (("imagesTr", "hippocampus_001_0001"), ("labelsTr", "hippocampus_001")):
        path = folder / place / f"{moved}.nii.gz"
        stored = nibabel.load(path)
        kept = path.read_bytes()
        affine = stored.affine + np.array([[0, 0, 0, 3]] * 3 + [[0] * 4])
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), affine), path)
        (refusal,) = _refusals(folder)
        assert "grid" in refusal or "beside their image" in refusal
        path.write_bytes(kept)
    assert _refusals(folder) == []


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"labels": {"0": "background"}}, 'no "labels"'),
        ({"labels": {"1": "a", "2": "b"}}, "no value 0, the background"),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "two values of one name"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "two names of one value"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, '"ignore"'),
        ({"labels": {"background": 0, "a": [0, 1], "b": 2}}, "or the background"),
        ({"labels": {"0": "background", "300": "a"}}, None),
        ({"labels": {"background": 0, "a": 1.5}}, "'1.5' is no whole number"),
        ({"modality": {}}, 'no "modality"'),
        ({"modality": {"1": "MRI"}}, "not from 0 on"),
        ({"file_ending": ".png"}, "only NIfTI"),
        ({"training": "all"}, "training: a list"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, entries, reason):
    folder = written.write(tmp_path, cases=1)
    _change(folder, **entries)
    with pytest.raises(UserError, match=reason or "0 to 255"):
        Nnunet(folder, size=8, seed=0)


def test_a_listed_case_that_is_not_here_is_named(tmp_path):
    folder = written.write(tmp_path, cases=2)
    for place in ("imagesTr", "labelsTr"):
        (folder / place / "hippocampus_002.nii.gz").unlink()
    assert _refusals(folder) == [
        "dataset.json: training: names hippocampus_002, which is not here. Fetch it."
    ]
