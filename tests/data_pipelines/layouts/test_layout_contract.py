"""What holds for every registered layout, on its miniature: a new one is tested by registering."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from trustsweep.data_pipelines.building.prepare import PrepareReport, prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.schema import Batch, Kind, Manifest, PatientSource, Split, TaskName
from trustsweep.data_pipelines.streams import Samples

SIZE = 16


#: What a layout offers beside its default, as far as the samples are of another kind.
OTHERS = {
    "brats": [{"target": "regions", "slices": 3}, {"target": "tissues", "dims": 3}],
    "covid-cxr-segmentations": [{"target": "classes"}, {"target": "regions"}],
    "nnunet": [{"dims": 3}],
    "phantoms": [{"target": "classes"}, {"target": "regions"}],
    "voc": [{"target": "classes"}, {"target": "regions"}],
}
CASES = [(name, options) for name in sorted(LAYOUTS) for options in ({}, *OTHERS.get(name, ()))]


def _called(case: tuple[str, dict[str, object]]) -> str:
    return "-".join(map(str, [case[0], *case[1].values()]))


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=CASES, ids=_called)
def case(request) -> tuple[str, dict[str, object]]:
    """A layout, and options of its own."""
    name, options = request.param
    return name, {**options, **({"count": 60} if name == "phantoms" else {})}


@pytest.fixture(scope="module")
def folder(name, miniature) -> Path | None:
    return None if name == "phantoms" else miniature(name)


@pytest.fixture(scope="module")
def source(case, miniature) -> Path | None:
    return None if case[0] == "phantoms" else miniature(case[0])


@pytest.fixture(scope="module")
def prepared(case, source, tmp_path_factory) -> tuple[Path, PrepareReport]:
    name, options = case
    out = tmp_path_factory.mktemp("prepared") / name
    return out, prepare(source, name, out, size=SIZE, **options)


def test_describes_itself(name):
    layout = LAYOUTS[name]
    assert layout.name == name
    assert layout.__doc__
    assert layout.licence
    assert layout.citation


def test_refuses_unknown_options(name, folder):
    with pytest.raises(UserError, match=f"layout {name}: no option 'cuont'"):
        LAYOUTS[name].create(folder, size=SIZE, seed=0, options={"cuont": 3})


def test_patients_are_known_or_taken_from_a_list(name, folder, tmp_path):
    kind, who = LAYOUTS[name], tmp_path / "who.csv"
    if not kind.takes_patients:
        assert kind.patients is not PatientSource.FILE_NAMES
        with pytest.raises(UserError, match=f"layout {name}: takes no --patients"):
            kind.create(folder, size=SIZE, seed=0, options={}, patients=who)
        return
    images = list(kind.create(folder, size=SIZE, seed=0, options={}).image_files())
    assert len(images) == len(set(images)) > 3
    rows = [f"{image.relative_to(folder).as_posix()},{n % 3}" for n, image in enumerate(images)]
    who.write_text("\n".join(["file name,patient", *rows]), encoding="utf-8")
    layout = kind.create(folder, size=SIZE, seed=0, options={}, patients=who)
    assert layout.patient_list.problems == []
    samples = [sample for case in layout.cases() for sample in layout.load(case)]
    assert {sample.source for sample in samples} == set(images)
    groups = {sample.source: sample.patient_id for sample in samples}
    for number, image in enumerate(images):
        assert groups[image] == groups[images[number % 3]]
    assert len(set(groups.values())) == 3


def test_refuses_an_empty_and_a_missing_folder(name, folder, tmp_path):
    if folder is None:
        pytest.skip("generated: reads no folder")
    (tmp_path / "empty").mkdir()
    for other in (tmp_path / "empty", tmp_path / "nowhere", None):
        with pytest.raises(UserError) as raised:
            prepare(other, name, tmp_path / "out", size=SIZE)
        if other is not None:
            assert str(other) in str(raised.value)
        assert not (tmp_path / "out").exists()


def test_the_manifest_describes_the_samples(prepared):
    out, report = prepared
    manifest = report.manifest
    assert manifest.tasks
    assert set(manifest.split_counts) >= {"train", "val", "test"}
    assert len(manifest.classes) >= 2 or len(manifest.regions) >= 2
    assert len({m.name for m in manifest.modalities}) == len(manifest.modalities) >= 1
    assert manifest.groups[0] == "site"
    assert Manifest.from_json(manifest.to_json()) == manifest
    table = read_table(out, Split.TRAIN)
    assert set(manifest.groups) <= set(table.schema.names)
    several = {TaskName.MULTICLASS_SEGMENTATION, TaskName.REGION_SEGMENTATION}
    segmented = {TaskName.SEGMENTATION, *several} & set(manifest.tasks)
    assert len(segmented) <= 1
    assert bool(segmented) == ("mask" in table.schema.names)
    assert (TaskName.REGION_SEGMENTATION in segmented) == bool(manifest.regions)
    if TaskName.MULTICLASS_SEGMENTATION in segmented:
        # The classes are those of the mask, so that a label can have none.
        assert "label" not in table.schema.names
        assert len(manifest.classes) > 2
    for task in {TaskName.CLASSIFICATION, TaskName.MULTILABEL} & set(manifest.tasks):
        tensor = "[" in manifest.columns["label"]
        assert tensor == (task is TaskName.MULTILABEL)
    if "boxes" in table.schema.names:
        assert manifest.box_classes


def test_no_patient_is_in_two_splits_and_no_id_comes_twice(prepared):
    out, report = prepared
    seen: dict[str, str] = {}
    ids = []
    for split in report.manifest.split_counts:
        table = read_table(out, Split(split))
        ids += table["sample_id"].to_pylist()
        for patient in table["patient_id"].to_pylist():
            assert seen.setdefault(patient, split) == split
    assert len(ids) == len(set(ids))


def test_the_same_again_does_nothing(case, source, prepared):
    out, report = prepared
    again = prepare(source, case[0], out, size=SIZE, **case[1])
    assert again.unchanged
    assert again.manifest == report.manifest


def test_batches_have_the_shapes_that_the_manifest_says(prepared):
    out, report = prepared
    manifest = report.manifest
    for split in (Split.TRAIN, Split.VAL):
        samples = Samples.read(out, split)
        batches = [b for b, _ in samples.epoch(4, seed=0, epoch=0)] + list(samples.sweep(5))
        for batch in batches:
            _check_batch(batch, manifest)


def _check_batch(batch: Batch, manifest: Manifest) -> None:
    count = len(batch)
    if manifest.image_shape:
        assert batch.image.shape == (count, *manifest.image_shape)
        assert batch.image.min() >= 0
        assert batch.image.max() <= 1
    else:
        assert batch.image.shape == (count, 0)
    assert batch.image.dtype == torch.float32
    for key, spec in manifest.more_images.items():
        assert batch.more_images[key].shape == (count, *spec.shape)
        assert 0 <= batch.more_images[key].min() <= batch.more_images[key].max() <= 1
    if batch.mask is not None:
        layers = len(manifest.regions) or 1
        assert batch.mask.shape == (count, layers, *manifest.image_shape[1:])
        assert batch.mask.dtype == torch.float32
        values = 2 if manifest.regions else len(manifest.mask_names)
        assert set(batch.mask.unique().tolist()) <= set(range(values))
    if TaskName.MULTILABEL in manifest.tasks:
        assert batch.label.shape == (count, len(manifest.classes))
        known = batch.label[~batch.label.isnan()]
        assert set(known.unique().tolist()) <= {0.0, 1.0}
    elif TaskName.CLASSIFICATION in manifest.tasks:
        assert batch.label.dtype == torch.int64
        assert batch.label.min() >= 0
        assert batch.label.max() < len(manifest.classes)
    if manifest.tabular:
        assert batch.tabular.shape == (count, len(manifest.tabular))
    if manifest.series:
        assert manifest.series_hours > 0
        assert batch.series.shape[::2] == (count, len(manifest.series))
        assert torch.equal(batch.series_mask == 1, ~batch.series.isnan())
        assert batch.series_delta.shape == batch.series.shape
        assert batch.series_delta.min() >= 0
    if len(manifest.modalities) > 1:
        assert batch.present.shape == (count, len(manifest.modalities))
        assert batch.present.any(dim=1).all()
    assert {len(values) for values in batch.groups.values()} == {count}
    assert set(batch.groups) == set(manifest.groups)


def test_what_is_absent_is_blank(prepared):
    out, report = prepared
    batch = next(iter(Samples.read(out, Split.TRAIN).sweep(1000)))
    if batch.present is None:
        pytest.skip("a single modality is never absent")
    fields = {"image": batch.image, "tabular": batch.tabular, "series": batch.series}
    for place, modality in enumerate(report.manifest.modalities):
        values = {**fields, **batch.more_images}[modality.column]
        absent = values[batch.present[:, place] == 0]
        if modality.kind is Kind.IMAGE:
            chosen = absent[:, list(modality.indices)] if modality.indices else absent
            assert not chosen.any()
        else:
            chosen = absent[..., list(modality.indices)] if modality.indices else absent
            assert chosen.isnan().all()


def test_statistics_are_of_what_is_present_in_the_train_split(prepared):
    out, report = prepared
    manifest = report.manifest
    batch = next(iter(Samples.read(out, Split.TRAIN).sweep(100_000)))
    for features, values in ((manifest.tabular, batch.tabular), (manifest.series, batch.series)):
        for place, feature in enumerate(features):
            known = values[..., place].double()
            known = known[~known.isnan()]
            if feature.vocabulary:
                assert dataclasses.replace(feature, mean=0.0, std=1.0) == feature
            elif len(known):
                assert feature.mean == pytest.approx(float(known.mean()), rel=1e-5, abs=1e-6)
                spread = float(known.std(correction=0)) or 1.0
                assert feature.std == pytest.approx(spread, rel=1e-4, abs=1e-6)
    for channel in range(manifest.channels):
        there = torch.ones(len(batch), dtype=torch.bool)
        for place, modality in enumerate(manifest.modalities):
            mine = modality.column == "image" and channel in (modality.indices or (channel,))
            if mine and batch.present is not None:
                there = batch.present[:, place] == 1
        values = batch.image[there, channel].double()
        assert manifest.mean[channel] == pytest.approx(float(values.mean()), abs=1e-6)
        assert manifest.std[channel] == pytest.approx(
            max(float(values.std(correction=0)), 1 / 255), abs=1e-6
        )


def test_classes_are_counted_in_every_split(prepared):
    out, report = prepared
    manifest = report.manifest
    for split in manifest.splits:
        batch = next(iter(Samples.read(out, split).sweep(100_000)))
        if batch.label is None:
            assert not manifest.label_counts
        elif batch.label.ndim == 2:
            assert manifest.label_counts[split] == tuple((batch.label == 1).sum(dim=0).tolist())
        else:
            counts = torch.bincount(batch.label, minlength=len(manifest.classes))
            assert manifest.label_counts[split] == tuple(counts.tolist())
        if batch.mask is None:
            assert manifest.mask_names == ()
            assert not manifest.mask_shares
            continue
        layers = [
            batch.mask[:, place] if manifest.regions else batch.mask == place
            for place in range(len(manifest.mask_names))
        ]
        shares = [float(layer.double().mean()) for layer in layers]
        assert manifest.mask_shares[split] == pytest.approx(shares, abs=1e-9)
        lacking = {n for n, s in zip(manifest.mask_names, shares, strict=True) if not s}
        assert lacking <= set(manifest.lacking(split))
        assert all(any(n in w for w in report.warnings) for n in lacking)


def test_no_published_number_is_stored(source, prepared):
    """Identifiers are opaque: no folder or file name of the source is one."""
    if source is None:
        pytest.skip("generated: no identifiers")
    out, report = prepared
    names = {p.stem for p in source.rglob("*")} | {p.name for p in source.rglob("*")}
    for split in report.manifest.split_counts:
        table = read_table(out, Split(split))
        for column in ("sample_id", "patient_id"):
            assert not names & set(table[column].to_pylist())
            assert not np.char.isdigit(table[column].to_pylist()).all()
