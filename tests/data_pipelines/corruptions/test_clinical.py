"""Corruptions of modalities, series and tables: shares, distributions, and columns that agree."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.observations import (
    elapsed,
    without_series,
    without_tabular,
)
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.schema import Batch, Feature, Kind, Manifest, Modality, TaskName

MANIFEST = Manifest(
    name="made",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(2, 4, 4),
    image_scale=255,
    classes=("no", "yes"),
    mean=(0.5, 0.5),
    std=(0.2, 0.2),
    split_counts={"train": 6},
    columns={},
    fingerprint="0",
    series=(Feature(name="pulse", mean=80, std=12), Feature(name="ph", mean=7.4, std=0.1)),
    series_hours=1.0,
    tabular=(Feature(name="age", mean=60, std=15), Feature(name="sex", vocabulary=("f", "m"))),
    modalities=(
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(0,)),
        Modality(name="t2", kind=Kind.IMAGE, column="image", indices=(1,)),
        Modality(name="vitals", kind=Kind.SERIES, column="series"),
    ),
)


def batch_of(count: int, steps: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(count)
    mask = (torch.rand((count, steps, 2), generator=draw) < 0.6).float()
    series = torch.rand((count, steps, 2), generator=draw)
    return Batch(
        sample_id=tuple(f"s{i}" for i in range(count)),
        image=torch.rand((count, 2, 4, 4), generator=draw) * 0.9 + 0.05,
        series=series.masked_fill(mask == 0, torch.nan),
        series_mask=mask,
        series_delta=waiting(mask.numpy(), np.ones((count, steps))),
        tabular=torch.stack([torch.full((count,), 60.0), torch.ones(count)], dim=1),
    )


def waiting(mask: np.ndarray, hours: np.ndarray) -> torch.Tensor:
    """GRU-D's recursion as it is written; `hours` (B, T) between a step and the one before."""
    delta = np.zeros_like(mask)
    for t in range(1, mask.shape[1]):
        delta[:, t] = hours[:, t, None] + np.where(mask[:, t - 1] > 0, 0, delta[:, t - 1])
    return torch.from_numpy(delta)


def apply(name: str, batch: Batch, parameter: float, salt: int = 0) -> Batch:
    return CORRUPTIONS[name]()(batch, parameter, draw_seeds(batch.sample_id, salt), MANIFEST)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_modalities_go_with_their_probability_but_never_all(share):
    count = 20_000
    present = apply("modality-drop", batch_of(count), share).present
    left = present.sum(dim=1)
    assert int(left.min()) == 1
    for combination in itertools.product((0.0, 1.0), repeat=3):
        kept = sum(combination)
        if kept == 0:
            continue
        chance = share ** (3 - kept) * (1 - share) ** kept
        # Those that would lose all keep one of the three, each as likely.
        chance += share**3 / 3 if kept == 1 else 0
        hits = int((present == torch.tensor(combination)).all(dim=1).sum())
        assert stats.binomtest(hits, count, chance).pvalue > 1e-4, combination


def test_what_is_dropped_is_blank_and_the_rest_is_untouched():
    batch = batch_of(500)
    result = apply("modality-drop", batch, 0.5)
    for row, (t1, t2, vitals) in enumerate(result.present.tolist()):
        for channel, kept in ((0, t1), (1, t2)):
            expected = batch.image[row, channel] * kept
            assert torch.equal(result.image[row, channel], expected)
        if vitals:
            assert torch.equal(result.series_mask[row], batch.series_mask[row])
            assert torch.equal(result.series_delta[row], batch.series_delta[row])
        else:
            assert result.series[row].isnan().all()
            assert not result.series_mask[row].any()
            assert result.series_delta[row, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    # No modality holds the table.
    assert torch.equal(result.tabular, batch.tabular)


def test_a_modality_that_is_absent_stays_absent_and_the_last_one_is_kept():
    batch = dataclasses.replace(batch_of(300), present=torch.tensor([0.0, 1.0, 0.0]).repeat(300, 1))
    assert torch.equal(apply("modality-drop", batch, 1.0).present, batch.present)
    two = torch.tensor([1.0, 0.0, 1.0]).repeat(300, 1)
    result = apply("modality-drop", dataclasses.replace(batch, present=two), 1.0).present
    assert (result.sum(dim=1) == 1).all()
    assert not result[:, 1].any()
    assert 0.4 < float(result[:, 0].mean()) < 0.6


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_features_go_missing_with_their_probability(share):
    batch = batch_of(4000)
    result = apply("feature-mask", batch, share)
    seen = batch.series_mask > 0
    hits = int((result.series_mask[seen] == 0).sum())
    assert stats.binomtest(hits, int(seen.sum()), share).pvalue > 1e-4
    for feature in range(2):
        gone = int(result.tabular[:, feature].isnan().sum())
        assert stats.binomtest(gone, 4000, share).pvalue > 1e-4
    left = result.series_mask > 0
    assert torch.equal(result.series[left], batch.series[left])
    assert torch.equal(result.series.isnan(), ~left)
    expected = waiting(result.series_mask.numpy(), np.ones((4000, 6)))
    torch.testing.assert_close(result.series_delta, expected)


def test_series_and_table_lose_different_entries():
    batch = dataclasses.replace(
        batch_of(2000), series=torch.ones(2000, 1, 2), series_mask=None, series_delta=None
    )
    result = apply("feature-mask", batch, 0.5)
    same = (result.series[:, 0].isnan() == result.tabular.isnan()).float().mean()
    assert 0.45 < float(same) < 0.55


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_value_noise_is_in_units_of_the_train_split(sigma):
    batch = batch_of(4000)
    result = apply("value-noise", batch, sigma)
    change = {
        12: (result.series - batch.series)[..., 0],
        0.1: (result.series - batch.series)[..., 1],
        15: (result.tabular - batch.tabular)[:, 0],
    }
    for deviation, values in change.items():
        noise = values[~values.isnan()].double().numpy() / (sigma * deviation)
        assert stats.kstest(noise, stats.norm().cdf).pvalue > 1e-4
    assert torch.equal(result.tabular[:, 1], batch.tabular[:, 1])
    assert torch.equal(result.series.isnan(), batch.series.isnan())
    assert result.series_mask is batch.series_mask


def test_value_noise_needs_numbers():
    noise = CORRUPTIONS["value-noise"]
    categories = dataclasses.replace(MANIFEST, series=(), tabular=MANIFEST.tabular[1:])
    assert noise.acts_on(MANIFEST)
    assert not noise.acts_on(categories)
    assert CORRUPTIONS["feature-mask"].acts_on(categories)


def test_modality_drop_needs_two_modalities():
    drop = CORRUPTIONS["modality-drop"]
    assert drop.acts_on(MANIFEST)
    assert not drop.acts_on(dataclasses.replace(MANIFEST, modalities=MANIFEST.modalities[:1]))


@pytest.mark.parametrize("seed", range(5))
def test_waiting_times_follow_the_observations_that_are_left(seed):
    draw = np.random.default_rng(seed)
    mask = (draw.random((20, 12, 3)) < 0.5).astype(np.float32)
    hours = draw.uniform(0.1, 3, (20, 12)).astype(np.float32)
    fewer = mask * (draw.random(mask.shape) < 0.5)
    found = elapsed(waiting(mask, hours), torch.from_numpy(mask), torch.from_numpy(fewer))
    torch.testing.assert_close(found, waiting(fewer.astype(np.float32), hours))
    kept = elapsed(waiting(mask, hours), torch.from_numpy(mask), torch.from_numpy(mask))
    torch.testing.assert_close(kept, waiting(mask, hours))


def test_taking_from_what_is_not_there_is_refused():
    image_only = Batch(sample_id=("a",), image=torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="no series"):
        without_series(image_only, torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="no table"):
        without_tabular(image_only, torch.ones(1, 2, dtype=torch.bool))


def test_batches_without_clinical_data_pass_through():
    image_only = Batch(sample_id=("a",), image=torch.rand(1, 2, 4, 4))
    for name in ("feature-mask", "value-noise"):
        assert torch.equal(apply(name, image_only, 0.5).image, image_only.image)
