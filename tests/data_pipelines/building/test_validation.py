"""What no sample may be, whatever its layout, and what is unusual and kept."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trustsweep.data_pipelines.building.moments import Moments
from trustsweep.data_pipelines.building.validation import CONSTANT, EMPTY_MASK, Validator
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Boxes, Sample, Series
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, TaskName

PIXELS = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)


class Everything(Layout[int]):
    """One of each field."""

    name = "everything"
    tasks = (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
    classes = ("background", "lesion")
    box_classes = ("lesion",)
    tabular = (Feature(name="age"), Feature(name="ward", vocabulary=("icu", "er")))
    series = (Feature(name="hr"),)
    series_hours = 1.0
    modalities = (
        Modality(name="image", kind=Kind.IMAGE, column="image"),
        Modality(name="table", kind=Kind.TABULAR, column="tabular"),
        Modality(name="vitals", kind=Kind.SERIES, column="series", indices=(0,)),
    )
    groups = ("site", "sex")

    def cases(self) -> Iterator[int]:
        return iter(())

    def load(self, case: int) -> Iterator[Sample]:
        return iter(())

    def source_digest(self) -> str:
        return ""


SOUND = Sample(
    sample_id="s",
    patient_id="p",
    site="a",
    image=PIXELS,
    mask=(PIXELS > 9).astype(np.uint8),
    label=1,
    boxes=Boxes(xyxy=np.array([[1, 1, 4, 8]], np.float32), classes=np.zeros(1, np.int32)),
    tabular=np.array([50, 1], np.float32),
    series=Series(value=np.full((3, 1), 80, np.float32), delta=np.zeros((3, 1), np.float32)),
    present=(True, True, True),
    groups={"sex": "female"},
    source=Path("scan.png"),
)


def _notes(**change) -> tuple[str, ...]:
    validator = Validator(Everything(None, size=8, seed=0), SOUND)
    return validator.notes(dataclasses.replace(SOUND, **change))


def _box(*corners: float, kind: int = 0) -> Boxes:
    return Boxes(xyxy=np.array([corners], np.float32), classes=np.array([kind], np.int32))


def _series(value: float = 80, delta: float = 0) -> Series:
    full = {"value": value, "delta": delta}
    return Series(**{k: np.full((3, 1), v, np.float32) for k, v in full.items()})


def test_a_sound_sample_has_no_notes():
    assert _notes() == ()
    assert _notes(image=PIXELS / np.float32(255)) == ()
    assert _notes(tabular=np.full(2, np.nan, np.float32)) == ()


def test_what_is_unusual_is_noted_and_kept():
    assert _notes(mask=np.zeros((1, 8, 8), np.uint8)) == (EMPTY_MASK,)
    assert _notes(image=np.full((1, 8, 8), 7, np.uint8), notes=("x",)) == ("x", CONSTANT)
    # An absent image is constant by agreement, which is nothing to note.
    blank = np.zeros((1, 8, 8), np.uint8)
    assert _notes(image=blank, present=(False, True, True)) == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": PIXELS[:, :4]}, "image is 1 x 4 x 8, in the other samples 1 x 8 x 8"),
        ({"image": None}, "image is absent, in the other samples 1 x 8 x 8"),
        ({"label": None}, "label is absent, in the other samples a single value"),
        ({"more_images": {"mri": PIXELS}}, "mri is 1 x 8 x 8, in the other samples absent"),
        ({"image": PIXELS.astype(np.float64)}, "type float64"),
        ({"image": PIXELS.astype(np.float32)}, r"values from 0 to 63, outside \[0, 1\]"),
        ({"image": np.where(PIXELS > 60, np.nan, 0).astype(np.float32)}, "3 of 64 values are NaN"),
        ({"image": np.where(PIXELS > 60, np.inf, 0).astype(np.float32)}, "3 of 64 values are NaN"),
        ({"mask": np.zeros((1, 8, 7), np.uint8)}, "mask is 1 x 8 x 7"),
        ({"mask": PIXELS}, "a mask holds 0 and 1, this one 63"),
        ({"label": 2}, "label 2, but there are 2 classes"),
        ({"label": -1}, "label -1"),
        ({"boxes": _box(0, 0, 9, 4)}, "outside the 8 x 8 image"),
        ({"boxes": _box(4, 0, 4, 4)}, "is empty or outside"),
        ({"boxes": _box(0, 0, 4, 4, kind=1)}, "a box of class 1"),
        ({"tabular": np.array([np.inf, 0], np.float32)}, "age is infinite"),
        ({"tabular": np.array([1, 2], np.float32)}, "ward is none of its 2 categories"),
        ({"tabular": np.array([1, 0.5], np.float32)}, "ward is none of its 2 categories"),
        ({"tabular": np.zeros(3, np.float32)}, "tabular is 3, in the other samples 2"),
        ({"series": _series(np.inf)}, "hr is infinite"),
        ({"series": _series(delta=-1)}, "time since the last observation below 0"),
        ({"present": (True, True)}, "2 presence flags, 3 modalities"),
        ({"present": (False, True, True)}, "image is marked absent and holds values"),
        ({"present": (True, False, True)}, "table is marked absent and holds values"),
        ({"present": (True, True, False)}, "vitals is marked absent and holds values"),
        ({"groups": {}}, "groups"),
        ({"groups": {"sex": None, "race": None}}, "groups"),
    ],
)
def test_what_cannot_be_is_named_with_the_file(change, match):
    with pytest.raises(BadFile, match=match) as raised:
        _notes(**change)
    assert str(raised.value).startswith("scan.png: ")


def test_several_labels_are_zero_one_or_unknown():
    first = dataclasses.replace(SOUND, label=np.array([0, 1], np.float32))
    validator = Validator(Everything(None, size=8, seed=0), first)
    unknown = dataclasses.replace(first, label=np.array([np.nan, 1], np.float32))
    assert validator.notes(unknown) == ()
    with pytest.raises(BadFile, match="labels are 0, 1 or unknown"):
        validator.notes(dataclasses.replace(first, label=np.array([0.5, 1], np.float32)))
    with pytest.raises(BadFile, match="label is 3"):
        validator.notes(dataclasses.replace(first, label=np.zeros(3, np.float32)))


VALUES = hnp.arrays(
    st.sampled_from([np.uint8, np.float32]),
    st.tuples(st.integers(1, 30), st.just(3)),
)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_moments_are_numpy_s_whatever_the_parts(parts):
    parts = [p for p in parts if p.dtype == parts[0].dtype]
    if parts[0].dtype == np.float32:  # squares beyond float64 are not what this is about
        parts = [np.where(np.abs(p) < 1e6, p, np.nan).astype(np.float32) for p in parts]
    moments = Moments()
    for part in parts:
        moments.update(part)
    mean, std = moments.compute(3)
    for column, values in enumerate(np.concatenate(parts).astype(np.float64).T):
        known = values[np.isfinite(values)]
        expected = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
        assert (mean[column], std[column]) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_moments_do_not_cancel_far_from_zero():
    values = 1e8 + np.random.default_rng(0).normal(0, 1, (1000, 1))
    moments = Moments()
    for part in np.array_split(values, 7):
        moments.update(part)
    assert moments.compute(1)[1][0] == pytest.approx(values.std(), rel=1e-6)


class Tissues(Everything):
    """Classes that exclude each other."""

    tasks = (TaskName.MULTICLASS_SEGMENTATION,)
    classes = ("background", "lung", "lesion")


class Regions(Everything):
    """Regions that overlap."""

    tasks = (TaskName.REGION_SEGMENTATION,)
    regions = ("whole", "core")


def test_a_mask_holds_the_classes_that_the_layout_names():
    sound = dataclasses.replace(SOUND, mask=(PIXELS % 3).astype(np.uint8), label=None)
    validator = Validator(Tissues(None, size=8, seed=0), sound)
    assert validator.notes(sound) == ()
    other = dataclasses.replace(sound, mask=(PIXELS % 4).astype(np.uint8), source=Path("case/7"))
    with pytest.raises(BadFile, match=r"case/7: a mask holds 0 to 2 \(background, lung, lesion\)"):
        validator.notes(other)


def test_regions_have_a_mask_each_of_zero_and_one():
    both = np.concatenate([PIXELS > 9, PIXELS > 30]).astype(np.uint8)
    sound = dataclasses.replace(SOUND, mask=both)
    validator = Validator(Regions(None, size=8, seed=0), sound)
    assert validator.notes(sound) == ()
    with pytest.raises(BadFile, match="0 and 1, this one 2 as well"):
        validator.notes(dataclasses.replace(sound, mask=both * 2))
    with pytest.raises(BadFile, match="mask"):
        validator.notes(dataclasses.replace(sound, mask=both[:1]))


@given(hnp.arrays(np.uint8, (1, 4, 4), elements=st.integers(0, 3)))
def test_what_a_mask_holds_is_what_splits_keep_in_proportion(mask):
    known = sorted(set(mask.ravel().tolist()) - {0}) or [0]
    plain = Sample(sample_id="s", patient_id="p", site="a", mask=mask)
    assert list(plain.strata) == known
    layers = np.concatenate([mask == value for value in (1, 2, 3)]).astype(np.uint8)
    assert list(dataclasses.replace(plain, mask=layers).strata) == known
