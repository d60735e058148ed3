"""QaTa-COV19's control groups; the infected alone are tested with `prepare`."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.qata_cov19.controls import origin
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName

NIH = "Control_Group_II/CHESTXRAY-14"


def _layout(folder: Path, seed: int = 0, **options):
    return LAYOUTS["qata-cov19"].create(folder, size=16, seed=seed, options=options)


def _samples(folder: Path, seed: int = 0, **options) -> list[Sample]:
    layout = _layout(folder, seed, **options)
    return [sample for case in layout.cases() for sample in layout.load(case)]


def _controls(samples: list[Sample]) -> list[Sample]:
    return [s for s in samples if s.label == 0]


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("qata-cov19"), tmp_path / "QaTa-COV19"))


def test_without_the_option_the_infected_alone_are_read(miniature):
    layout, samples = _layout(miniature("qata-cov19")), _samples(miniature("qata-cov19"))
    assert layout.tasks == (TaskName.SEGMENTATION,)
    assert len(samples) == 60
    assert {s.label for s in samples} == {None}
    assert layout.remarks() == ["not read, not part of the layout: Control_Group"]


@pytest.mark.parametrize(
    ("controls", "count"), [("I", 30), ("II", 36), ("all", 66), (True, 66), (False, 0)]
)
def test_the_groups_that_are_asked_for_are_read(miniature, controls, count):
    samples = _samples(miniature("qata-cov19"), controls=controls)
    assert len(_controls(samples)) == count
    assert len(samples) == 60 + count
    assert len({s.sample_id for s in samples}) == len(samples)


def test_controls_have_label_0_and_a_mask_of_background(miniature):
    layout = _layout(miniature("qata-cov19"), controls="all")
    samples = _samples(miniature("qata-cov19"), controls="all")
    assert layout.tasks == (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
    assert layout.groups == ("site", "cohort")
    for sample in samples:
        infected = "QaTa-COV19-v2" in sample.source.parts
        assert sample.label == int(infected)
        assert sample.mask.shape == (1, 16, 16)
        assert infected or not sample.mask.any()
        assert (sample.groups["cohort"] == "covid-19") == infected
    assert {s.groups["cohort"] for s in _controls(samples)} == {
        "normal",
        "chestx-ray14",
        "pediatric bacterial pneumonia",
        "pediatric viral pneumonia",
    }


def test_chestxray14_keeps_its_published_test_set_and_patients(miniature):
    controls = _controls(_samples(miniature("qata-cov19"), controls="II"))
    nih = [s for s in controls if s.site == "nih"]
    assert len(nih) == 24
    assert len({s.patient_id for s in nih}) == 12
    for sample in nih:
        assert sample.split == (Split.TEST if "Test" in sample.source.parts else None)


def test_undivided_controls_are_tested_in_the_share_of_the_infected(copy):
    """15 of 60 infected are tested: a quarter. Drawn by patient and seed, whatever else is read."""
    group = copy / "Control_Group" / "Control_Group_I"
    first = next(group.iterdir())
    for number in range(600):
        (group / f"more_{number}.png").symlink_to(first)
    tested = {
        seed: {s.patient_id for s in _controls(_samples(copy, seed, controls="I")) if s.split}
        for seed in (0, 1)
    }
    for patients in tested.values():
        # Four standard deviations of a binomial draw of 630 at 1 in 4.
        assert abs(len(patients) - 630 / 4) < 4 * (630 * 3 / 16) ** 0.5
    assert tested[0] != tested[1]
    again = _controls(_samples(copy, 0, controls="all"))
    kept = {s.patient_id for s in again if s.split and s.groups["cohort"] == "normal"}
    assert kept == tested[0]


def test_a_patients_controls_are_in_one_split(copy):
    group = copy / "Control_Group" / "Control_Group_I"
    source = next(group.iterdir())
    for patient in range(40):
        for image in range(3):
            shutil.copy(source, group / f"NORMAL-{patient}-{image:04d}.png")
    splits: dict[str, set[Split | None]] = {}
    for sample in _controls(_samples(copy, controls="I")):
        splits.setdefault(sample.patient_id, set()).add(sample.split)
    assert {len(found) for found in splits.values()} == {1}
    assert len(splits) == 30 + 40


@pytest.mark.parametrize(
    ("stem", "site", "patient"),
    [
        ("00000013_026", "nih", "nih/00000013"),
        ("person1_bacteria_2", "guangzhou", "guangzhou/person1"),
        ("BACTERIA-7422-0001", "guangzhou", "guangzhou/7422"),
        ("NORMAL2-1049278-0001", "guangzhou", "guangzhou/1049278"),
        ("normal_17", "unstated", None),
        ("0000001_1", "unstated", None),
    ],
)
def test_origins_by_file_name(stem, site, patient):
    assert origin(stem) == (site, patient)


def test_prepares_both_tasks_and_says_what_confounds_them(miniature, tmp_path):
    report = prepare(
        miniature("qata-cov19"), "qata-cov19", tmp_path / "out", size=16, controls="all"
    )
    assert set(report.manifest.tasks) == {TaskName.SEGMENTATION, TaskName.CLASSIFICATION}
    assert any("different hospitals" in warning for warning in report.warnings)
    for split in (Split.TRAIN, Split.VAL, Split.TEST):
        table = read_table(tmp_path / "out", split)
        labels = np.array(table["label"].to_pylist())
        assert set(labels) == {0, 1}
        assert set(table["cohort"].to_pylist()) >= {"covid-19", "normal"}


def test_a_group_that_is_absent_is_refused_and_a_part_of_it_remarked(copy):
    shutil.rmtree(copy / "Control_Group" / "Control_Group_I")
    with pytest.raises(UserError, match="Control_Group_I: no images"):
        _layout(copy, controls="all")
    shutil.rmtree(copy / "Control_Group" / NIH / "Test")
    (copy / "Control_Group" / "Control_Group_II" / "Other").mkdir()
    remarks = _layout(copy, controls="II").remarks()
    assert f"controls without images here: {NIH}/Test" in remarks
    assert remarks[-1] == (
        "not read, not part of the layout: Control_Group/Control_Group_II/Other, "
        "Control_Group/readme.txt"
    )


def test_groups_that_are_not_asked_for_are_remarked(miniature):
    remarks = _layout(miniature("qata-cov19"), controls="I").remarks()
    assert remarks[-1].startswith(
        "not read, not part of the layout: Control_Group/Control_Group_II"
    )


@pytest.mark.parametrize("value", ["III", "yes", 2, None])
def test_an_option_that_cannot_be_is_refused(miniature, value):
    with pytest.raises(UserError, match="controls: false, I, II or all"):
        _layout(miniature("qata-cov19"), controls=value)


def test_the_digest_covers_the_controls_that_are_read(copy):
    before = {c: _layout(copy, controls=c).source_digest() for c in (False, "I", "all")}
    assert len(set(before.values())) == 3
    next(
        (copy / "Control_Group" / "Control_Group_II" / "Pediatric_Viral_Pneumonia").iterdir()
    ).unlink()
    after = {c: _layout(copy, controls=c).source_digest() for c in (False, "I", "all")}
    assert {c for c in before if before[c] != after[c]} == {"all"}
