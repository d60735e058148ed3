"""Suites, the evaluation's and the training's draws, and the seeds that they share."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption, corrupt
from trustsweep.data_pipelines.corruptions.suites import SUITES, parameters
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName

MANIFEST = Manifest(
    name="made",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(1, 16, 16),
    image_scale=255,
    classes=("no", "yes"),
    mean=(0.5,),
    std=(0.2,),
    split_counts={"train": 6},
    columns={},
    fingerprint="0",
    tabular=(Feature(name="age", std=15),),
    modalities=(
        Modality(name="x-ray", kind=Kind.IMAGE, column="image"),
        Modality(name="record", kind=Kind.TABULAR, column="tabular"),
    ),
)
LISTED = [(suite, name) for suite, listed in SUITES.items() for name in listed]


def batch_of(count: int) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(
        sample_id=tuple(f"s{i}" for i in range(count)),
        image=torch.rand((count, 1, 16, 16), generator=draw) * 0.8 + 0.1,
        tabular=torch.rand((count, 1), generator=draw) * 60,
    )


@pytest.fixture(scope="module")
def textures() -> torch.Tensor:
    """(6, 3, 96, 96) in [0, 1] with structure at every scale, as tissue has."""
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((6, 3, 96, 96))
    scales = [ndimage.gaussian_filter(noise, s, axes=(2, 3)) * s for s in (0.7, 2, 5, 12)]
    value = np.sum(scales, axis=0)
    low, high = value.min(axis=(1, 2, 3), keepdims=True), value.max(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy((value - low) / (high - low)).float()


@pytest.mark.parametrize(("suite", "name"), LISTED)
def test_every_parameter_of_a_suite_is_worse_than_the_one_before(suite, name, textures):
    five = parameters(suite, name)
    assert len(five) == 5
    corruption = CORRUPTIONS[name]()
    if not isinstance(corruption, ImageCorruption):
        assert all(mild < strong for mild, strong in pairwise(five))
        return
    seeds = draw_seeds([f"s{i}" for i in range(6)])
    batch = Batch(sample_id=tuple("abcdef"), image=textures)
    error = [
        float((corruption(batch, p, seeds, MANIFEST).image - textures).square().mean())
        for p in five
    ]
    assert error[0] > 0
    assert all(mild < strong for mild, strong in pairwise(error)), error


def test_suites_list_what_is_registered_and_cover_it():
    assert set(SUITES) == {
        *("chest", "pneumonia", "organ", "oct", "breast", "retina", "derma", "path", "blood"),
        *("tissue", "mri", "clinical"),
    }
    assert {name for _, name in LISTED} == set(CORRUPTIONS)


def test_parameters_of_the_suite_come_before_the_corruptions_own():
    assert parameters("chest", "shot-noise") == (60, 25, 18, 10, 5)
    assert parameters("organ", "shot-noise") == (200, 100, 50, 25, 15)
    assert parameters("tissue", "shot-noise") == CORRUPTIONS["shot-noise"].severities


@pytest.mark.parametrize(
    ("suite", "name", "words"),
    [
        ("chset", "jpeg", "unknown suite 'chset', did you mean 'chest'"),
        ("chest", "jpg", "unknown corruption 'jpg', did you mean 'jpeg'"),
        ("chest", "contrast", "unknown corruption 'contrast', did you mean 'contrast-"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(suite, name, words):
    with pytest.raises(UserError, match=words):
        parameters(suite, name)


def test_seeds_are_stable_distinct_and_salted():
    # A frozen value: figures of a study must not change with the machine or the release.
    assert draw_seeds(["case-1"], "evaluation", 3).tolist() == [3558646731447859696]
    ids = [f"s{i}" for i in range(2000)]
    assert len(set(draw_seeds(ids).tolist())) == 2000
    assert not set(draw_seeds(ids, 1).tolist()) & set(draw_seeds(ids, "1").tolist())
    assert draw_seeds(["a", "b"], 0).tolist() == draw_seeds(["b", "a"], 0).tolist()[::-1]
    assert int(draw_seeds(ids).min()) >= 0
    assert draw_seeds([]).shape == (0,)


def test_evaluation_draw_is_the_same_for_a_sample_in_any_batch():
    batch = batch_of(6)
    whole = corrupt(batch, "gaussian-noise", 3, manifest=MANIFEST)
    part = corrupt(batch.select([4, 1]), "gaussian-noise", 3, manifest=MANIFEST)
    assert torch.equal(part.image, whole.image[[4, 1]])
    assert whole.sample_id == batch.sample_id


def test_evaluation_takes_the_suites_parameter():
    batch = batch_of(2)
    for suite, factor in (("chest", 0.8), ("oct", 0.4)):
        result = corrupt(batch, "contrast-down", 2, manifest=MANIFEST, suite=suite)
        spread = result.image.std(dim=(1, 2, 3)) / batch.image.std(dim=(1, 2, 3))
        torch.testing.assert_close(spread, torch.full((2,), factor))


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_other_severities_are_refused(severity):
    with pytest.raises(ValueError, match="jpeg: severity is 1 to 5"):
        corrupt(batch_of(1), "jpeg", severity, manifest=MANIFEST)


def training(cells, share, seed=5, **more) -> TrainingCorruption:
    return TrainingCorruption(cells, share, seed, manifest=MANIFEST, **more)


def test_training_corrupts_the_asked_share_anew_each_epoch():
    batch = batch_of(400)
    corruption = training([("gaussian-noise", 1), ("contrast-down", 5)], 0.3)
    touched = [
        (corruption(batch, epoch).image != batch.image).flatten(1).any(1) for epoch in (0, 1)
    ]
    assert 0.22 < float(touched[0].float().mean()) < 0.38
    assert not torch.equal(touched[0], touched[1])
    again = corruption(batch.select(range(100, 200)), 1).image
    assert torch.equal(again, corruption(batch, 1).image[100:200])
    other = training([("gaussian-noise", 1), ("contrast-down", 5)], 0.3, seed=6)
    assert not torch.equal(other(batch, 0).image, corruption(batch, 0).image)


def test_training_draws_each_cell_as_often():
    batch = batch_of(3000)
    cells = [("brightness-up", 1), ("brightness-down", 5), ("brightness-down", 1)]
    ratio = (training(cells, 1.0)(batch, 0).image / batch.image).flatten(1).median(dim=1).values
    shares = [float((ratio - factor).abs().lt(0.01).float().mean()) for factor in (1.1, 0.5, 0.9)]
    assert sum(shares) == pytest.approx(1)
    assert all(0.3 < share < 0.37 for share in shares)


def test_training_mixes_corruptions_of_images_and_of_tables():
    batch = batch_of(300)
    cells = [("modality-drop", 5), ("value-noise", 5), ("jpeg", 5)]
    result = training(cells, 0.9, suite="clinical")(batch, 2)
    dropped = result.present == 0
    assert dropped.any(dim=0).all()
    assert (result.present.sum(dim=1) >= 1).all()
    assert torch.equal(result.tabular[:, 0].isnan(), dropped[:, 1])
    assert torch.equal((result.image == 0).flatten(1).all(dim=1), dropped[:, 0])
    whole = ~dropped.any(dim=1)
    noisy = (result.tabular != batch.tabular)[:, 0] & whole
    coded = (result.image != batch.image).flatten(1).any(dim=1) & whole
    assert noisy.any()
    assert coded.any()
    assert not (noisy & coded).any()
    assert batch.present is None


def test_training_leaves_present_alone_where_nothing_drops_it():
    result = training([("jpeg", 1)], 1.0)(batch_of(4), 0)
    assert result.present is None


@pytest.mark.parametrize(("cells", "share"), [([], 0.5), ([("contrast-down", 3)], 0.0)])
def test_training_without_cells_or_share_is_clean(cells, share):
    batch = batch_of(3)
    assert training(cells, share)(batch, 0) is batch


def test_training_of_no_samples_is_no_samples():
    empty = batch_of(3).select([])
    assert training([("jpeg", 3)], 1.0)(empty, 0) is empty


def test_what_data_offer_decides_what_acts_on_them():
    image_only = dataclasses.replace(MANIFEST, tabular=(), modalities=())
    table_only = dataclasses.replace(image_only, image_shape=(), tabular=MANIFEST.tabular)
    acting = {
        kind: {name for name in CORRUPTIONS if CORRUPTIONS[name].acts_on(manifest)}
        for kind, manifest in (("image", image_only), ("table", table_only), ("both", MANIFEST))
    }
    clinical = set(SUITES["clinical"])
    assert acting["image"] == set(CORRUPTIONS) - clinical | {"mixed-quality"}
    assert acting["table"] == clinical - {"modality-drop"}
    assert acting["both"] == set(CORRUPTIONS)
