"""`trustsweep inspect`: every number against another route, every warning on data made for it."""

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import (
    SCALES,
    read_table,
    record_batch,
    table_schema,
    write_split,
)
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.columns import image_parts
from trustsweep.data_pipelines.inspection.command import run
from trustsweep.data_pipelines.inspection.composition import image_panels, marks, mask_marks
from trustsweep.data_pipelines.inspection.corruption_sheet import corruption_sheet
from trustsweep.data_pipelines.inspection.examples import choose
from trustsweep.data_pipelines.inspection.numbers import inspect
from trustsweep.data_pipelines.inspection.panels import BOXES, LINE, OUTLINE, AbsentPanel
from trustsweep.data_pipelines.inspection.sheets import contact_sheet
from trustsweep.data_pipelines.inspection.tables import tables
from trustsweep.data_pipelines.layouts.phantoms import Phantoms
from trustsweep.data_pipelines.sample import Boxes, Sample, Series
from trustsweep.data_pipelines.schema import (
    MANIFEST_NAME,
    Feature,
    ImageSpec,
    Kind,
    Manifest,
    Modality,
    Split,
    TaskName,
)
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.tensors import described
from trustsweep.distributed.cli.app import app

IMAGE = (Modality(name="image", kind=Kind.IMAGE, column="image"),)
SECRET = "patient-secret"


def _write(
    folder: Path,
    samples: list[Sample],
    *,
    groups: tuple[str, ...] = ("site",),
    modalities: tuple[Modality, ...] = IMAGE,
    dtype: str = "uint8",
    **fields,
) -> Path:
    """A data set of these samples, whatever is wrong with them: nothing of `prepare` is asked."""
    schema = table_schema(samples[0], groups, modalities, dtype)
    counts = Counter(sample.split for sample in samples)
    for split in counts:
        batch = record_batch([s for s in samples if s.split is split], schema)
        table = pa.Table.from_batches([batch])
        folder.mkdir(exist_ok=True)
        taken = write_split(folder, split, schema, counts[split], lambda a, b, t=table: t[a:b])
        assert sum(group.num_rows for group in taken) == counts[split]
    first = samples[0]
    manifest = Manifest(
        **{
            "name": "made",
            "tasks": (
                TaskName.SEGMENTATION if first.mask is not None else TaskName.CLASSIFICATION,
            ),
            "image_shape": () if first.image is None else first.image.shape,
            "image_scale": SCALES[dtype],
            "classes": ("background", "lesion"),
            "mean": (0.5,),
            "std": (0.2,),
            "split_counts": {str(split): n for split, n in counts.items()},
            "columns": {field.name: described(field) for field in schema},
            "fingerprint": "0",
            "groups": groups,
            "modalities": modalities,
            "licence": "CC0",
            **fields,
        }
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return folder


def _sample(number: int, split: Split = Split.TRAIN, **fields) -> Sample:
    """A sample with an image of its own; each is a patient of its own unless said otherwise."""
    draw = np.random.default_rng(number)
    return Sample(
        **{
            "sample_id": f"s{number}",
            "patient_id": f"{SECRET}-{number}",
            "site": "a",
            "split": split,
            "image": draw.integers(0, 256, (1, 8, 8), np.uint8),
            "label": number % 2,
            **fields,
        }
    )


def _pair(**fields) -> list[Sample]:
    """Two classes in each of two splits: nothing to remark on, but for `fields`."""
    splits = (Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST)
    return [_sample(number, split, **fields) for number, split in enumerate(splits)]


def _warning(folder: Path, *words: str) -> str:
    """The only warning with these words."""
    found = [w for w in inspect(folder).warnings if all(word in w for word in words)]
    assert len(found) == 1, inspect(folder).warnings
    return found[0]


def _column(folder: Path, split: str, name: str) -> np.ndarray:
    return read_table(folder, Split(split))[name].combine_chunks().to_numpy_ndarray()


# --- numbers -----------------------------------------------------------------------------------


def test_phantoms_are_counted_as_the_layout_draws_them(phantoms):
    layout = Phantoms(None, size=32, seed=0, count=96)
    drawn = [sample for case in layout.cases() for sample in layout.load(case)]
    found = inspect(phantoms)
    where = {
        sample_id: split
        for split in ("train", "val", "test")
        for sample_id in read_table(phantoms, Split(split))["sample_id"].to_pylist()
    }
    expected = Counter((where[s.sample_id], s.site, s.label) for s in drawn)
    counted = {
        (stratum.split, stratum.site, label): n
        for stratum in found.strata
        for label, n in enumerate(stratum.positive)
        if n
    }
    assert counted == expected
    assert sum(stratum.samples for stratum in found.strata) == 96
    for split in found.splits:
        mine = [s for s in drawn if where[s.sample_id] == split.split]
        assert (split.samples, split.patients) == (len(mine), len({s.patient_id for s in mine}))
    for group in found.groups:
        if group.group == "age":
            low = int(group.value.split("–")[0])
            mine = [s for s in drawn if low <= s.groups["age"] < low + 10]
        else:
            mine = [s for s in drawn if {**s.groups, "site": s.site}[group.group] == group.value]
        assert (group.samples, group.patients) == (len(mine), len({s.patient_id for s in mine}))
        assert group.splits == Counter(where[s.sample_id] for s in mine)
    assert sum(box.boxes for box in found.boxes) == sum(len(s.boxes.classes) for s in drawn)
    assert [box.name for box in found.boxes] == ["infection"]


def test_phantoms_are_measured_as_numpy_measures_them(phantoms):
    found = inspect(phantoms)
    for channel in found.intensities:
        pixels = _column(phantoms, channel.split, "image").ravel() / 255
        assert channel.images == len(pixels) // 32**2
        assert (channel.minimum, channel.maximum) == (pixels.min(), pixels.max())
        assert channel.mean == pytest.approx(pixels.mean(), abs=1e-12)
        assert channel.std == pytest.approx(pixels.std(), abs=1e-12)
        for percentage, value in channel.percentiles.items():
            expected = np.percentile(pixels, int(percentage), method="inverted_cdf")
            assert value == pytest.approx(expected, abs=1e-12)
    for mask in found.masks:
        masks = _column(phantoms, mask.split, "mask")
        filled = masks.reshape(len(masks), -1).any(axis=1)
        assert (mask.masks, mask.empty) == (len(masks), (~filled).sum())
        assert mask.foreground == pytest.approx(masks.mean())
        assert mask.foreground_filled == pytest.approx(masks[filled].mean())
    tables = {s: _column(phantoms, s, "tabular") for s in ("train", "val", "test")}
    whole = np.concatenate(list(tables.values())).astype(np.float64)
    for place, feature in enumerate(found.features):
        assert feature.name == Phantoms.tabular[place].name
        assert feature.minimum == np.nanmin(whole[:, place])
        assert feature.maximum == np.nanmax(whole[:, place])
        assert feature.mean == pytest.approx(np.nanmean(whole[:, place]))
        for split, values in tables.items():
            observed = np.isfinite(values[:, place]).mean()
            assert feature.observed[split] == pytest.approx(observed)
        assert feature.in_samples == pytest.approx(np.isfinite(whole[:, place]).mean())


def test_images_finer_than_eight_bits_are_measured_as_they_are_stored(tmp_path):
    draw = np.random.default_rng(0)
    images = [draw.random((2, 4, 6, 8), np.float32) for _ in range(3)]
    samples = [_sample(n, image=image) for n, image in enumerate(images)]
    found = inspect(_write(tmp_path / "d", samples, dtype="float16"))
    stored = np.stack(images).astype(np.float16).astype(np.float64)
    assert [channel.channel for channel in found.intensities] == ["image 0", "image 1"]
    for place, channel in enumerate(found.intensities):
        pixels = stored[:, place].ravel()
        assert (channel.minimum, channel.maximum) == (pixels.min(), pixels.max())
        assert channel.mean == pytest.approx(pixels.mean())
        median = np.percentile(pixels, 50, method="inverted_cdf")
        assert channel.percentiles["50"] == median
        assert channel.outside == 0


def test_absent_channels_are_no_part_of_the_intensities(tmp_path):
    modalities = (
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(0,)),
        Modality(name="flair", kind=Kind.IMAGE, column="image", indices=(1,)),
    )
    samples = []
    for number in range(4):
        image = np.random.default_rng(number).integers(100, 200, (2, 8, 8), np.uint8)
        present = (True, number != 0)
        image[1] *= present[1]
        samples.append(_sample(number, image=image, present=present))
    found = inspect(_write(tmp_path / "d", samples, modalities=modalities))
    assert {c.channel: c.images for c in found.intensities} == {"t1": 4, "flair": 3}
    assert all(channel.minimum >= 100 / 255 for channel in found.intensities)
    assert {m.name: m.present["train"] for m in found.modalities} == {"t1": 1.0, "flair": 0.75}
    assert not found.flaws.constant


def test_several_labels_are_counted_by_class_with_the_unknown(tmp_path):
    labels = np.array([[1, 0, np.nan], [1, 1, 0], [0, 0, np.nan], [1, 0, 0]], np.float32)
    samples = [_sample(n, label=label) for n, label in enumerate(labels)]
    folder = _write(
        tmp_path / "d", samples, tasks=(TaskName.MULTILABEL,), classes=("mass", "edema", "hernia")
    )
    found = inspect(folder)
    (stratum,) = found.strata
    assert found.several
    assert stratum.positive == (3, 1, 0)
    assert stratum.unknown == (0, 0, 2)
    assert "hernia" in _warning(folder, "train: no sample of")
    assert "mass" not in _warning(folder, "train: no sample of")


def _table_only(folder: Path, **changes) -> Path:
    """Four stays with a table of a number and a category, and a series of two channels."""
    features = {
        "tabular": (Feature(name="age", unit="y"), Feature(name="sex", vocabulary=("f", "m"))),
        "series": (Feature(name="hr", unit="1/min", mean=80, std=10), Feature(name="lactate")),
    }
    nan = np.nan
    tables = np.array([[60, 0], [nan, 1], [50, 1], [40, nan]], np.float32)
    series = np.full((4, 3, 2), nan, np.float32)
    series[:, 0, 0] = (70, 80, 90, 100)
    series[1, 2, 0] = 60
    samples = [
        _sample(
            number,
            image=None,
            tabular=changes.get("tables", tables)[number],
            series=Series(value=series[number], delta=np.zeros((3, 2), np.float32)),
        )
        for number in range(4)
    ]
    modalities = (
        Modality(name="record", kind=Kind.TABULAR, column="tabular"),
        Modality(name="vitals", kind=Kind.SERIES, column="series"),
    )
    return _write(
        folder, samples, modalities=modalities, mean=(), std=(), series_hours=1.0, **features
    )


def test_tables_and_series_without_images(tmp_path):
    found = inspect(_table_only(tmp_path / "d"))
    age, sex, rate, lactate = found.features
    assert (age.minimum, age.maximum, age.mean) == (40, 60, 50)
    assert (age.observed["train"], age.in_samples) == (0.75, 0.75)
    assert sex.categories == {"f": 1, "m": 2}
    assert sex.minimum is None
    assert (rate.minimum, rate.maximum, rate.mean) == (60, 100, 80)
    assert rate.observed["train"] == pytest.approx(5 / 12)
    assert rate.in_samples == 1
    assert (lactate.observed["train"], lactate.minimum) == (0, None)
    assert (found.intensities, found.image_shape) == ((), ())
    assert _warning(tmp_path / "d", "series lactate", "never observed")


def test_masks_alone_divide_the_samples(tmp_path):
    samples = []
    for number in range(3):
        mask = np.zeros((1, 8, 8), np.uint8)
        mask[0, 2:4, 2:4] = number > 0
        samples.append(_sample(number, label=None, mask=mask))
    found = inspect(_write(tmp_path / "d", samples))
    assert found.classes == ("no lesion", "lesion")
    assert found.strata[0].positive == (1, 2)


@pytest.mark.parametrize("target", ["classes", "regions"])
def test_what_masks_hold_is_counted_by_class_and_region(tmp_path, target):
    prepare(None, "phantoms", tmp_path / "d", size=16, count=40, target=target)
    found, manifest = inspect(tmp_path / "d"), Manifest.load(tmp_path / "d")
    names = manifest.regions or manifest.classes[1:]
    parts = {(part.split, part.name): part for part in found.mask_parts}
    assert len(parts) == 3 * len(names)
    for split in ("train", "val", "test"):
        masks = _column(tmp_path / "d", split, "mask")
        union = next(count for count in found.masks if count.split == split)
        assert union.foreground == pytest.approx((masks > 0).any(axis=1).mean())
        for index, name in enumerate(names):
            layer = masks[:, index] if manifest.regions else masks[:, 0] == index + 1
            holding = layer.reshape(len(layer), -1).any(axis=1)
            part = parts[split, name]
            assert part.masks == holding.sum()
            assert part.share == pytest.approx(layer.mean())
            assert part.share_held == pytest.approx(layer[holding].mean())
            if not manifest.regions:
                (stratum,) = [sum(s.positive[index] for s in found.strata if s.split == split)]
                assert stratum == holding.sum()
    assert found.of_masks == (target == "classes")
    words = " ".join(found.warnings)
    assert "no sample without" not in words
    console = Console(width=100, record=True, file=io.StringIO())
    for table in tables(found):
        console.print(table)
    assert "Findings of the masks" in console.export_text()


def test_a_region_that_a_split_lacks_is_told(tmp_path):
    masks = np.zeros((2, 2, 8, 8), np.uint8)
    masks[0, 0, 2:4, 2:4] = masks[1, :, 3:6, 3:6] = 1
    samples = [
        _sample(number, split, mask=masks[number % 2 if split is Split.TRAIN else 0])
        for number, split in enumerate([Split.TRAIN] * 4 + [Split.TEST] * 2)
    ]
    tasks = (TaskName.REGION_SEGMENTATION, TaskName.CLASSIFICATION)
    folder = _write(tmp_path / "d", samples, tasks=tasks, regions=("whole", "core"))
    assert _warning(folder, "no mask holds") == (
        "test: no mask holds core; metrics of it are undefined."
    )


def test_the_findings_are_json_that_names_no_patient(tmp_path):
    text = inspect(_write(tmp_path / "d", _pair(), groups=("site",))).to_json()
    assert json.loads(text)["splits"][0] == {
        "split": "train", "samples": 2, "patients": 2, "stated": 2,
    }  # fmt: skip
    assert SECRET not in text


# --- warnings ----------------------------------------------------------------------------------


def test_a_sound_data_set_is_told_of_its_few_patients_alone(tmp_path):
    folder = _write(tmp_path / "d", _pair())
    assert inspect(folder).warnings == (_warning(folder, "fewer than 50 patients", "a (4)"),)


def test_a_group_of_fifty_patients_is_large_enough(tmp_path):
    def samples(patients: int) -> list[Sample]:
        return [_sample(n, groups={"sex": "f" if n % 2 else None}) for n in range(2 * patients)]

    fewer = _write(tmp_path / "fewer", samples(49), groups=("sex",))
    enough = _write(tmp_path / "enough", samples(50), groups=("sex",))
    assert "f (49)" in _warning(fewer, "sex: fewer than 50")
    assert inspect(enough).warnings == ()
    unknown = [g for g in inspect(enough).groups if g.value == "unknown"]
    assert [g.samples for g in unknown] == [50]


def test_ages_are_in_decades_and_unknown_ones_apart(tmp_path):
    ages = (9.5, 10.0, 19.9, 100.0, None, np.nan)
    samples = [_sample(n, groups={"age": age}) for n, age in enumerate(ages)]
    found = inspect(_write(tmp_path / "d", samples, groups=("age",)))
    counts = [(g.value, g.samples) for g in found.groups]
    assert counts == [("0–9", 1), ("10–19", 2), ("100–109", 1), ("unknown", 2)]


def test_copies_across_and_within_splits(tmp_path):
    image = np.random.default_rng(9).integers(0, 256, (1, 8, 8), np.uint8)
    samples = [*_pair(), *(_sample(n, image=image, label=1) for n in (10, 11))]
    samples.append(_sample(12, Split.TEST, image=image))
    folder = _write(tmp_path / "d", samples)
    assert "1 image is" in _warning(folder, "the same in train and test")
    assert "1 image is a copy" in _warning(folder, "train:", "of another")
    assert inspect(folder).flaws.copies_within == {"train": 1}


def test_copies_of_rows_without_images(tmp_path):
    rows = np.array([[60, 0], [60, 0], [50, 1], [np.nan, np.nan]], np.float32)
    folder = _table_only(tmp_path / "d", tables=rows)
    assert inspect(folder).flaws.copies_within == {}  # the series differ
    features = (Feature(name="age"), Feature(name="sex", vocabulary=("f", "m")))
    record = (Modality(name="record", kind=Kind.TABULAR, column="tabular"),)
    samples = [_sample(n, image=None, tabular=row) for n, row in enumerate(rows)]
    plain = _write(tmp_path / "p", samples, modalities=record, tabular=features, mean=(), std=())
    assert "1 case is a copy" in _warning(plain, "train:", "of another")


def test_a_patient_in_two_splits_is_told_and_not_named(tmp_path):
    samples = [*_pair(), _sample(20, Split.TEST, patient_id=f"{SECRET}-0")]
    folder = _write(tmp_path / "d", samples)
    assert SECRET not in _warning(folder, "1 patient is in train and test")


def test_rows_that_are_missing(tmp_path):
    folder = _write(tmp_path / "d", _pair(), split_counts={"train": 2, "test": 5})
    _warning(folder, "test: 2 rows, the manifest says 5")


def test_a_class_that_a_split_lacks(tmp_path):
    samples = [_sample(0), _sample(1), _sample(2, Split.TEST)]
    assert "background" not in _warning(
        _write(tmp_path / "d", samples), "test: no sample of lesion"
    )


def test_a_class_that_is_everywhere_has_no_ranking(tmp_path):
    labels = np.array([[1, 0], [1, 1]], np.float32)
    samples = [_sample(n, label=label) for n, label in enumerate(labels)]
    folder = _write(tmp_path / "d", samples, classes=("mass", "edema"))
    assert "edema" not in _warning(folder, "train: no sample without mass")


def test_a_site_in_one_split_only(tmp_path):
    samples = [*_pair(), _sample(30, site="b"), _sample(31, Split.OOD, site="c")]
    folder = _write(tmp_path / "d", samples)
    assert _warning(folder, "in train only").startswith("site b:")
    assert not [w for w in inspect(folder).warnings if "ood only" in w]


def test_constant_images_count_only_where_they_are_present(tmp_path):
    flat = np.full((1, 8, 8), 7, np.uint8)
    samples = [*_pair(), _sample(40, image=flat), _sample(41, image=flat)]
    folder = _write(tmp_path / "d", samples)
    _warning(folder, "image: 2 images are constant")
    assert inspect(folder).flaws.copies_within == {}


def test_nan_and_values_beyond_the_scale(tmp_path):
    images = [np.random.default_rng(n).random((1, 8, 8), np.float32) for n in range(3)]
    images[0][0, 1, 1] = np.nan
    images[2][0, 1, 1:3] = 1.5
    samples = [_sample(n, image=image) for n, image in enumerate(images)]
    folder = _write(tmp_path / "d", samples, dtype="float16")
    _warning(folder, "image: 1 image holds NaN")
    _warning(folder, "image: 2 pixels are beyond [0, 1]")
    (channel,) = inspect(folder).intensities
    stored = np.stack(images).astype(np.float16).astype(np.float64)
    assert channel.mean == pytest.approx(np.nanmean(stored))
    assert channel.maximum == 1.5


@pytest.mark.parametrize(
    ("where", "touches"),
    [
        (np.s_[0, 0, 3], 1), (np.s_[0, 7, 3], 1), (np.s_[0, 3, 0], 1), (np.s_[0, 3, 7], 1),
        (np.s_[0, 1:7, 1:7], 0),
    ],
)  # fmt: skip
def test_masks_at_the_border(tmp_path, where, touches):
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[where] = 1
    empty = np.zeros_like(mask)
    samples = [_sample(0, mask=mask), _sample(1, mask=empty)]
    folder = _write(tmp_path / "d", samples)
    (count,) = inspect(folder).masks
    assert (count.at_border, count.empty) == (touches, 1)
    _warning(folder, "1 of 2 masks are empty")
    if touches:
        _warning(folder, "1 of 2 masks touch the border")


def test_a_volume_of_one_slice_has_no_border_above(tmp_path):
    mask = np.zeros((1, 1, 8, 8), np.uint8)
    mask[0, 0, 2:5, 2:5] = 1
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), np.uint8)
    found = inspect(_write(tmp_path / "d", [_sample(0, image=image, mask=mask)]))
    assert found.masks[0].at_border == 0


def test_modalities_and_features_that_are_never_there(tmp_path):
    modalities = (
        *IMAGE,
        Modality(name="labs", kind=Kind.TABULAR, column="tabular"),
        Modality(name="notes", kind=Kind.TABULAR, column="tabular", indices=(1,)),
    )
    samples = []
    for number, split in enumerate((Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST)):
        values = np.array([np.nan if split is Split.TEST else number, np.nan], np.float32)
        there = (True, split is Split.TRAIN, False)
        samples.append(_sample(number, split, tabular=values, present=there))
    tabular = (Feature(name="crp"), Feature(name="text"))
    folder = _write(tmp_path / "d", samples, modalities=modalities, tabular=tabular)
    _warning(folder, "modality notes is absent everywhere")
    _warning(folder, "modality labs is absent from the whole of test")
    _warning(folder, "tabular text is never observed")
    _warning(folder, "tabular crp is never observed in test")


def test_values_that_are_no_numbers_or_categories(tmp_path):
    rows = np.array([[np.inf, 0], [1, 2], [2, 0.5], [3, 1]], np.float32)
    folder = _table_only(tmp_path / "d", tables=rows)
    _warning(folder, "tabular age: 1 value is infinite")
    _warning(folder, "tabular sex: 2 values are none of its 2 categories")
    assert inspect(folder).features[0].maximum == 3
    inspect(folder).to_json()


def test_an_unstated_licence(tmp_path):
    _warning(_write(tmp_path / "d", _pair(), licence="unstated"), "licence is unstated")


def _boxes(*corners: tuple[float, float, float, float], kind: int = 1) -> Boxes:
    return Boxes(
        xyxy=np.array(corners, np.float32).reshape(-1, 4),
        classes=np.full(len(corners), kind, np.int32),
    )


def test_boxes_that_cannot_be(tmp_path):
    boxes = [
        _boxes((0, 0, 8, 8), (1, 1, 1, 4)),  # whole image; no width
        _boxes((2, 2, 9, 4)),  # beyond the image
        _boxes((2, 2, 4, 4), kind=5),
        _boxes(),
    ]
    folder = _write(tmp_path / "d", [_sample(n, boxes=b) for n, b in enumerate(boxes)])
    found = inspect(folder)
    _warning(folder, "3 boxes have no area")
    assert {b.name: (b.boxes, b.samples) for b in found.boxes} == {
        "lesion": (3, 2), "class 5": (1, 1),
    }  # fmt: skip


def test_a_folder_without_data(tmp_path):
    with pytest.raises(UserError, match="no prepared data set"):
        inspect(tmp_path)


# --- pictures ----------------------------------------------------------------------------------


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def _of_colour(picture: np.ndarray, colour: str, tolerance: int = 24) -> np.ndarray:
    """(n, 2) rows and columns of a colour such as "#56B4E9"."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((abs(picture - wanted) <= tolerance).all(axis=2))


def _tile(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the one black image, whatever is drawn on it."""
    black = np.argwhere((picture < 12).all(axis=2))
    # Letters are black here and there, an image is so for a good part of a row.
    rows = np.flatnonzero(np.bincount(black[:, 0]) > 80)
    columns = np.flatnonzero(np.bincount(black[np.isin(black[:, 0], rows), 1]) > 80)
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def test_a_box_is_drawn_where_it_is(tmp_path):
    # No text on the image: more than three boxes are not named, so four lie on each other.
    box = (8.0, 4.0, 24.0, 20.0)
    samples = [_sample(0, image=np.zeros((1, 32, 32), np.uint8), boxes=_boxes(*[box] * 4, kind=0))]
    folder = _write(tmp_path / "d", samples, box_classes=("cell",))
    picture = _pixels(contact_sheet(folder, tmp_path / "sheet.png"))
    top, left, bottom, right = _tile(picture)
    side = right - left
    assert bottom - top == pytest.approx(side, abs=2)
    drawn = _of_colour(picture[top:bottom, left:right], BOXES[0])
    low, high = drawn.min(axis=0) / side * 32, (drawn.max(axis=0) + 1) / side * 32
    assert low == pytest.approx([4, 8], abs=0.4)
    assert high == pytest.approx([20, 24], abs=0.4)
    inside = drawn[
        (drawn[:, 0] > 6 / 32 * side) & (drawn[:, 0] < 18 / 32 * side)
        & (drawn[:, 1] > 10 / 32 * side) & (drawn[:, 1] < 22 / 32 * side)
    ]  # fmt: skip
    assert not len(inside)


def test_a_mask_is_outlined_where_it_is(tmp_path):
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 10:20, 6:30] = 1
    samples = [_sample(0, image=np.zeros((1, 32, 32), np.uint8), mask=mask)]
    folder = _write(tmp_path / "d", samples)
    picture = _pixels(contact_sheet(folder, tmp_path / "sheet.png"))
    top, left, bottom, right = _tile(picture)
    drawn = _of_colour(picture[top:bottom, left:right], OUTLINE)
    side = right - left
    assert drawn.min(axis=0) / side * 32 == pytest.approx([10, 6], abs=0.4)
    assert (drawn.max(axis=0) + 1) / side * 32 == pytest.approx([20, 30], abs=0.4)


def test_classes_are_outlined_each_in_its_colour(tmp_path):
    """Two squares of two classes; a legend names both."""
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 4:12, 6:14] = 1
    mask[0, 18:28, 16:30] = 2
    samples = [_sample(0, image=np.zeros((1, 32, 32), np.uint8), mask=mask, label=None)]
    folder = _write(
        tmp_path / "d", samples, tasks=(TaskName.MULTICLASS_SEGMENTATION,),
        classes=("background", "left", "right"),
    )  # fmt: skip
    drawn = {mark.name: mark.colour for mark in mask_marks(Manifest.load(folder))}
    assert len(set(drawn.values())) == 2
    picture = _pixels(contact_sheet(folder, tmp_path / "sheet.png"))
    top, left, bottom, right = _tile(picture)
    side = right - left
    for name, corners in {"left": ([4, 6], [12, 14]), "right": ([18, 16], [28, 30])}.items():
        found = _of_colour(picture[top:bottom, left:right], drawn[name])
        assert found.min(axis=0) / side * 32 == pytest.approx(corners[0], abs=0.4)
        assert (found.max(axis=0) + 1) / side * 32 == pytest.approx(corners[1], abs=0.4)
        assert len(_of_colour(picture[bottom:], drawn[name]))


def test_a_region_looks_like_the_boxes_of_its_name(tmp_path):
    prepare(None, "phantoms", tmp_path / "d", size=16, count=12, target="regions")
    manifest = Manifest.load(tmp_path / "d")
    found = {mark.name: mark for mark in mask_marks(manifest)}
    assert list(found) == list(manifest.regions)
    assert found["infection"] == marks(manifest)[0]
    assert len({(mark.colour, mark.style) for mark in found.values()}) == len(found)


def test_the_sheet_is_the_same_every_time_and_shows_every_label_site_and_split(phantoms, tmp_path):
    folder, manifest = Folder(phantoms), Manifest.load(phantoms)
    chosen = choose(folder, manifest, 9)
    assert len({example.sample_id for example in chosen}) == 9
    assert {example.site for example in chosen} == {"digital", "computed", "portable"}
    assert {example.split for example in chosen} == {"train", "val", "test"}
    labels = Counter(example.label for example in chosen)
    assert abs(labels["background"] - labels["infection"]) <= 1
    assert [e.sample_id for e in choose(folder, manifest, 4)] == [e.sample_id for e in chosen[:4]]
    first, second = (contact_sheet(phantoms, tmp_path / f"{n}.png", samples=3) for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    picture = _pixels(first)
    assert picture.shape[1] == 1650
    assert picture.std() > 30


def test_a_chosen_sample_is_the_one_in_the_shards(phantoms):
    layout = Phantoms(None, size=32, seed=0, count=96)
    drawn = {s.sample_id: s for case in layout.cases() for s in layout.load(case)}
    for example in choose(Folder(phantoms), Manifest.load(phantoms), 20):
        sample = drawn[example.sample_id]
        assert np.array_equal(np.rint(example.case.images["image"] * 255), sample.image)
        assert np.array_equal(example.case.mask, sample.mask)
        assert len(example.case.boxes) == len(sample.boxes.classes)
        assert example.site == sample.site
        assert example.label == Phantoms.classes[sample.label]


def test_a_volume_is_shown_where_its_lesion_is_largest(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 8), np.uint8)
    mask = np.zeros((1, 6, 8, 8), np.uint8)
    mask[0, 1, 2:4, 2:4] = 1
    mask[0, 4, 1:7, 1:7] = 1
    samples = [_sample(0, image=image, mask=mask), _sample(1, image=image[:, ::-1], mask=mask * 0)]
    folder = _write(tmp_path / "d", samples)
    manifest = Manifest.load(folder)
    notes = {
        example.label: image_panels(example.case, manifest, "image")[0]
        for example in choose(Folder(folder), manifest, 2)
    }
    assert notes["background"].note == "slice 5 of 6"
    assert np.array_equal(np.rint(notes["background"].pixels * 255), image[0, 4])
    ((outlined, _),) = notes["background"].outlines
    assert outlined.sum() == 36
    assert notes["lesion"].note == "slice 4 of 6"
    assert contact_sheet(folder, tmp_path / "sheet.png").stat().st_size > 5_000


def test_channels_are_colours_only_where_they_are_one_modality(tmp_path):
    sequences = tuple(
        Modality(name=name, kind=Kind.IMAGE, column="image", indices=(index,))
        for index, name in enumerate(("pre", "flair", "post"))
    )
    image = np.random.default_rng(0).integers(1, 256, (3, 8, 8), np.uint8)
    colour = _write(tmp_path / "colour", [_sample(0, image=image)])
    absent = image.copy()
    absent[2] = 0
    apart = _write(
        tmp_path / "apart",
        [_sample(0, image=absent, present=(True, True, False))],
        modalities=sequences,
    )
    for folder, shapes in ((colour, [(8, 8, 3)]), (apart, [(8, 8), (8, 8), None])):
        manifest = Manifest.load(folder)
        (example,) = choose(Folder(folder), manifest, 5)
        panels = image_panels(example.case, manifest, "image")
        shown = [None if isinstance(p, AbsentPanel) else p.pixels.shape for p in panels]
        assert shown == shapes
        assert contact_sheet(folder, tmp_path / f"{folder.name}.png").exists()


def test_every_channel_is_in_one_part():
    manifest = Manifest.from_json(
        json.dumps(
            json.loads(
                Manifest(
                    name="m", tasks=(), image_shape=(4, 8, 8), image_scale=255, classes=(),
                    mean=(), std=(), split_counts={}, columns={}, fingerprint="",
                    modalities=(
                        Modality(name="b", kind=Kind.IMAGE, column="image", indices=(2, 3)),
                        Modality(name="x", kind=Kind.TABULAR, column="tabular"),
                        Modality(name="a", kind=Kind.IMAGE, column="image", indices=(0,)),
                        Modality(name="mri", kind=Kind.IMAGE, column="mri"),
                    ),
                    more_images={"mri": ImageSpec(shape=(2, 4, 4, 4), mean=(), std=())},
                ).to_json()
            )
        )
    )  # fmt: skip
    parts = image_parts(manifest, "image")
    assert [(part.name, part.channels, part.place) for part in parts] == [
        ("a", (0,), 2), ("image", (1,), None), ("b", (2, 3), 0),
    ]  # fmt: skip
    assert [part.channels for part in image_parts(manifest, "mri")] == [(0, 1)]


def test_eighteen_classes_of_boxes_are_told_apart(tmp_path):
    names = tuple(f"finding-{k}" for k in range(18))
    folder = _write(tmp_path / "d", [_sample(0, boxes=_boxes((1, 1, 4, 4)))], box_classes=names)
    drawn = marks(Manifest.load(folder))
    assert [mark.name for mark in drawn.values()] == list(names)
    assert len({(mark.colour, mark.style) for mark in drawn.values()}) == 18


@pytest.mark.parametrize("suite", ["clinical", None])
def test_data_without_images_have_both_pictures(tmp_path, suite):
    folder = _table_only(tmp_path / "d")
    sheet = _pixels(contact_sheet(folder, tmp_path / "sheet.png"))
    assert len(_of_colour(sheet, LINE)) > 100  # the line of a series
    worse = _pixels(corruption_sheet(folder, tmp_path / "worse.png", suite_name=suite))
    assert worse.std() > 5


def test_a_suite_for_other_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="suite chest: nothing in it acts on made"):
        corruption_sheet(_table_only(tmp_path / "d"), tmp_path / "x.png", suite_name="chest")
    with pytest.raises(UserError, match="did you mean 'chest'"):
        corruption_sheet(_table_only(tmp_path / "e"), tmp_path / "x.png", suite_name="chst")


def test_the_corruptions_have_a_row_each(phantoms, tmp_path):
    heights = {
        name: _pixels(corruption_sheet(phantoms, tmp_path / f"{name}.png", suite_name=name)).shape
        for name in ("oct", "breast")
    }
    rows = {name: len(SUITES[name]) for name in heights}
    step = (heights["breast"][0] - heights["oct"][0]) / (rows["breast"] - rows["oct"])
    assert 180 < step < 280
    assert not list(tmp_path.glob("*.partial"))


# --- the command -------------------------------------------------------------------------------


def _shown(folder: Path, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for table in tables(inspect(folder)):
            console.print(table)
    return captured.get()


def test_the_tables_keep_to_a_hundred_columns(phantoms):
    text = _shown(phantoms)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    for title in ("by split, site and label", "Groups", "Modalities", "Intensities", "Masks"):
        assert title in text


def test_a_bracket_in_a_name_is_no_markup(tmp_path):
    folder = _write(tmp_path / "d", _pair(site="[red]ward[/red] 5"))
    assert "[red]ward[/red] 5" in _shown(folder)


def test_many_sites_and_classes_are_summed_up(tmp_path):
    labels = np.eye(20, dtype=np.float32)
    samples = [_sample(n, site=f"site-{n:02d}", label=labels[n % 20]) for n in range(30)]
    folder = _write(tmp_path / "d", samples, classes=tuple(f"finding-{k}" for k in range(20)))
    text = _shown(folder)
    assert "10 more sites" in text
    assert "finding-19" in text
    assert "all" in text


def test_the_command_writes_beside_the_data_and_says_where(phantoms, tmp_path):
    before = _digest(phantoms)
    numbers = tmp_path / "out" / "numbers.json"
    result = CliRunner().invoke(
        app,
        ["inspect", str(phantoms), "--suite", "breast", "--json", str(numbers)],
        env={"COLUMNS": "100"},
    )
    assert result.exit_code == 0, result.output
    beside = phantoms.parent / "phantoms-inspect"
    written = [beside / "contact-sheet.png", beside / "corruptions-breast.png", numbers]
    for path in written:
        assert path.stat().st_size > 1_000
        assert str(path) in result.output
    assert "fewer than 50 patients" in result.output
    assert json.loads(numbers.read_text()) == json.loads(inspect(phantoms).to_json())
    assert _digest(phantoms) == before
    assert "phantom-patient" not in result.output + numbers.read_text()


def test_nothing_is_written_within_the_data(phantoms):
    with pytest.raises(UserError, match="within the data set"):
        run(str(phantoms), phantoms / "pictures", None, None, Console(quiet=True))
    with pytest.raises(UserError, match="within the data set"):
        run(str(phantoms), None, None, phantoms / "numbers.json", Console(quiet=True))


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [f"{p.relative_to(folder)} {p.stat().st_size}".encode() for p in files]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()
