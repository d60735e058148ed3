"""From a batch to the modalities' tensors, and from those to features."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from trustsweep.data_pipelines.schema import (
    Batch,
    Feature,
    ImageSpec,
    Kind,
    Manifest,
    Modality,
    TaskName,
)
from trustsweep.trainables.fusion.encoders import (
    Encoder,
    ImageStem,
    SeriesStem,
    Stem,
    TabularStem,
    encoder,
)
from trustsweep.trainables.fusion.inputs import flags, gather, in_manifest_order, sources

torch.set_num_threads(1)
STEPS = 3
TABLE = (
    Feature(name="age", mean=60.0, std=10.0),
    Feature(name="stage", vocabulary=("I", "II", "III")),
    Feature(name="site", mean=2.0, std=0.0),
)
SERIES = (Feature(name="heart", mean=80.0, std=20.0), Feature(name="breath", mean=15.0, std=5.0))
TOY = Manifest(
    name="toy",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(3, 8, 6),
    image_scale=1.0,
    classes=("well", "ill"),
    mean=(0.1, 0.2, 0.3),
    std=(0.1, 0.2, 0.3),
    split_counts={"train": 4},
    columns={},
    fingerprint="0",
    tabular=TABLE,
    series=SERIES,
    more_images={"side": ImageSpec(shape=(1, 4, 5, 6), mean=(0.7,), std=(0.5,))},
    modalities=(
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(2, 0)),
        Modality(name="vitals", kind=Kind.SERIES, column="series", indices=(1,)),
        Modality(name="bloods", kind=Kind.TABULAR, column="tabular", indices=(0, 2)),
        Modality(name="lateral", kind=Kind.IMAGE, column="side"),
    ),
)
ORDER = ["bloods", "lateral", "t1", "vitals"]


def toy(size: int = 2, **changes: object) -> Batch:
    draws = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=draws)

    batch = Batch(
        sample_id=tuple(map(str, range(size))),
        image=random(3, 8, 6),
        tabular=random(3),
        series=random(STEPS, 2),
        series_mask=random(STEPS, 2).round(),
        series_delta=random(STEPS, 2),
        more_images={"side": random(1, 4, 5, 6)},
    )
    return dataclasses.replace(batch, **changes)  # type: ignore[arg-type]


def stem_of(name: str, manifest: Manifest = TOY) -> Stem:
    modality = next(m for m in sources(manifest) if m.name == name)
    made = encoder(manifest, modality, width=4, depth=2, dim=8, dropout=0.0, seed=0)
    return made.stem


def test_modalities_are_taken_by_name_with_the_values_of_their_indices() -> None:
    batch = toy()
    assert [modality.name for modality in sources(TOY)] == ORDER
    (bloods, lateral, t1, vitals), present = gather(batch, TOY)
    assert batch.tabular is not None
    assert torch.equal(bloods, batch.tabular[:, [0, 2]])
    assert torch.equal(lateral, batch.more_images["side"])
    assert torch.equal(t1, batch.image[:, [2, 0]])
    parts = [getattr(batch, key)[..., 1:] for key in ("series", "series_mask", "series_delta")]
    assert torch.equal(vitals, torch.cat(parts, dim=2))
    assert present.all()


def test_what_is_absent_is_as_never_observed() -> None:
    (bloods, lateral, t1, vitals), present = gather(
        toy(present=torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]])), TOY
    )
    assert present.tolist() == [[False, False, True, False], [True, True, False, True]]
    assert bool(bloods[0].isnan().all() & lateral[0].isnan().all() & t1[1].isnan().all())
    value, mask, delta = vitals[0].chunk(3, dim=1)
    assert value.isnan().all()
    assert not torch.cat([mask, delta]).any()
    assert all(bool(part[1].isfinite().all()) for part in (bloods, lateral, vitals))


def test_a_series_is_there_where_a_value_is_and_not_a_mask() -> None:
    series = torch.full((2, STEPS, 2), torch.nan)
    series[:, 1, 0] = 70.0
    series[1, 2, 1] = 12.0
    assert gather(toy(series=series), TOY)[1][:, 3].tolist() == [False, True]


def test_flags_and_weights_change_order_with_the_modalities() -> None:
    severity = torch.tensor([[0.0, 2, 0, 5], [1, 0, 0, 0]])
    found = flags(toy(severity=severity), TOY)
    assert found.tolist() == [[0, 1, 0, 1], [0, 0, 1, 0]]
    assert torch.equal(in_manifest_order(found, TOY), (severity > 0).float())
    assert flags(toy(), TOY).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_batch_without_the_column_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks 'tabular', which 'bloods' is made of"):
        gather(toy(tabular=None), TOY)


@pytest.mark.parametrize("name", ORDER)
def test_encoders_take_their_modalities_and_tell_their_grid(name: str) -> None:
    values = dict(zip(ORDER, gather(toy(), TOY)[0], strict=True))
    stem = stem_of(name)
    tokens = stem(values[name])
    grid = stem.grid(values[name])
    assert tokens.shape == (2, math.prod(grid), stem.channels)
    assert len(grid) == stem.axes
    sizes = {"bloods": (1,), "lateral": (1, 2, 2), "t1": (2, 2), "vitals": (STEPS,)}
    assert grid == sizes[name]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=3), st.integers(1, 4))
def test_grid_of_any_image_is_that_of_its_tokens(shape: list[int], depth: int) -> None:
    stem = ImageStem((0.5,), (0.2,), len(shape), width=2, depth=depth)
    image = torch.rand(2, 1, *shape)
    assert stem(image).shape == (2, math.prod(stem.grid(image)), stem.channels)


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("t1", [0.3, 0.1], [0.3, 0.1]), ("lateral", [0.7], [0.5])]
)
def test_images_are_standardised_by_the_statistics_of_their_channels(
    name: str, mean: list[float], std: list[float]
) -> None:
    stem = stem_of(name)
    assert isinstance(stem, ImageStem)
    assert stem.standardise.mean.flatten().tolist() == pytest.approx(mean)
    assert stem.standardise.std.flatten().tolist() == pytest.approx(std)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_taken_for_the_mean(odd: float) -> None:
    stem = ImageStem((0.5,), (0.2,), 2, width=4, depth=2)
    image = torch.rand(1, 1, 6, 6)
    image[..., :2] = odd
    mean = torch.where(image.isfinite(), image, 0.5)
    torch.testing.assert_close(stem(image), stem(mean))
    series = SeriesStem(SERIES, 8)
    steps = torch.rand(1, STEPS, 6)
    steps[0, 0, :2] = odd
    mean = steps.clone()
    mean[0, 0, :2] = torch.tensor([80.0, 15.0])
    torch.testing.assert_close(series(steps), series(mean))


def test_tables_are_those_of_scikit_learn() -> None:
    """Standardised numbers and one-hot categories; unknown ones, as missing ones, are in none."""
    rows = np.array([[50.0, 0, 2], [70, 2, 2], [70, 1, 2], [50, 7, 2]])
    encode = OneHotEncoder(categories=[[0, 1, 2]], handle_unknown="ignore", sparse_output=False)
    expected = make_column_transformer(
        (StandardScaler(), [0]), (encode, [1]), (StandardScaler(), [2])
    ).fit_transform(rows)
    stem = TabularStem(TABLE, 8)
    seen: list[Tensor] = []
    stem.enter.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    stem(torch.tensor(rows, dtype=torch.float32))
    np.testing.assert_allclose(seen[0][:, 3:], expected, atol=1e-6)
    assert not seen[0][:, :3].any()
    stem(torch.tensor([[torch.nan, torch.nan, 2.0]]))
    assert seen[1].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]


def test_series_are_standardised_with_logarithmic_delays_and_sines_of_positions() -> None:
    stem = SeriesStem(SERIES, 6)
    seen: list[Tensor] = []
    stem.enter.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    stem.mix.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    value = torch.tensor([[100.0, torch.nan], [80.0, 10.0]])
    mask, delta = value.isfinite().float(), torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    stem(torch.cat([value, mask, delta], dim=1)[None])
    known, entered, mixed = seen
    ln2 = math.log(2)
    expected = [[1, 0, 1, 0, 0, 0], [0, -1, 1, 1, ln2, 2 * ln2]]
    torch.testing.assert_close(known[0], torch.tensor(expected, dtype=torch.float32))
    for step in (0, 1):
        angles = [step * 10_000 ** (-2 * pair / 6) for pair in range(3)]
        position = [f(angle) for f in (math.sin, math.cos) for angle in angles]
        torch.testing.assert_close((mixed - entered)[0, step], torch.tensor(position))


@pytest.mark.parametrize("channels", [1, 5, 6, 8])
def test_series_may_have_any_number_of_channels(channels: int) -> None:
    stem = SeriesStem(SERIES, channels)
    assert stem(torch.rand(2, STEPS, 6)).shape == (2, STEPS, channels)


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("passes", [1, 4])
def test_features_have_one_length_whatever_the_modality(name: str, passes: int) -> None:
    """Mean 0 and variance 1 of each vector: no network can undo a weight of fusion."""
    values = dict(zip(ORDER, gather(toy(), TOY)[0], strict=True))
    modality = next(m for m in TOY.modalities if m.name == name)
    made: Encoder = encoder(TOY, modality, width=4, depth=2, dim=16, dropout=0.3, seed=1).eval()
    with torch.no_grad():
        features = made(values[name], passes)
    assert features.shape == (passes, 2, 16)
    torch.testing.assert_close(features.mean(dim=-1), torch.zeros(passes, 2), atol=1e-5, rtol=0)
    variance = features.var(dim=-1, correction=0)
    torch.testing.assert_close(variance, torch.ones(passes, 2), atol=1e-2, rtol=0)
