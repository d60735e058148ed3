"""Single modalities made worse: what changes is recorded, and nothing else changes."""

import dataclasses

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.alone import alone, manifest_of
from trustsweep.data_pipelines.corruptions.base import SEVERITIES
from trustsweep.data_pipelines.corruptions.mixed_quality import acting_on
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption, corrupt
from trustsweep.data_pipelines.schema import (
    CHANGEABLE,
    Batch,
    Feature,
    ImageSpec,
    Kind,
    Manifest,
    Modality,
    Split,
    TaskName,
)
from trustsweep.data_pipelines.streams import Samples
from trustsweep.data_pipelines.streams.columns import assemble, columns_of, pack

MANIFEST = Manifest(
    name="made",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(3, 8, 8),
    image_scale=255,
    classes=("no", "yes"),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.2),
    split_counts={"train": 6},
    columns={},
    fingerprint="0",
    series=(Feature(name="pulse", std=12), Feature(name="ph", std=0.1), Feature(name="k", std=1)),
    tabular=(Feature(name="age", std=15), Feature(name="sex", vocabulary=("f", "m"))),
    more_images={"slide": ImageSpec(shape=(1, 9, 7), mean=(0.5,), std=(0.2,))},
    modalities=(
        Modality(name="t1", kind=Kind.IMAGE, column="image", indices=(2,)),
        Modality(name="t2", kind=Kind.IMAGE, column="image", indices=(0, 1)),
        Modality(name="slide", kind=Kind.IMAGE, column="slide"),
        Modality(name="vitals", kind=Kind.SERIES, column="series", indices=(0,)),
        Modality(name="labs", kind=Kind.SERIES, column="series", indices=(1, 2)),
        Modality(name="age", kind=Kind.TABULAR, column="tabular", indices=(0,)),
        Modality(name="sex", kind=Kind.TABULAR, column="tabular", indices=(1,)),
    ),
)
UNNAMED = dataclasses.replace(MANIFEST, modalities=())
COUNT = len(MANIFEST.modalities)
SERIES = ("series", "series_mask", "series_delta")


def batch_of(count: int, seed: int = 0, missing: float = 0.3) -> Batch:
    """Modalities are missing with a probability, but never all; so are a tenth of the values."""
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.rand((count, 5, 3), generator=draw) < 0.9).float()
    delta = torch.zeros_like(mask)
    for step in range(1, 5):
        delta[:, step] = 1 + torch.where(mask[:, step - 1] > 0, 0, delta[:, step - 1])
    series = torch.randn((count, 5, 3), generator=draw).masked_fill(mask == 0, torch.nan)
    sex = (torch.rand((count,), generator=draw) < 0.5).float()
    whole = Batch(
        sample_id=tuple(f"s{i}" for i in range(count)),
        image=torch.rand((count, 3, 8, 8), generator=draw) * 0.8 + 0.1,
        more_images={"slide": torch.rand((count, 1, 9, 7), generator=draw) * 0.8 + 0.1},
        series=series,
        series_mask=mask,
        series_delta=delta,
        tabular=torch.stack([torch.full((count,), 60.0), sex], dim=1),
    )
    seeds = draw_seeds(whole.sample_id, "missing", seed)
    return CORRUPTIONS["modality-drop"]()(whole, missing, seeds, MANIFEST)


def parts(batch: Batch, modality: Modality) -> list[torch.Tensor]:
    """The values of a modality, samples first."""
    if modality.kind is Kind.IMAGE:
        columns = [batch.image if modality.column == "image" else batch.more_images["slide"]]
        columns = [column.movedim(1, -1) for column in columns]
    else:
        names = SERIES if modality.kind is Kind.SERIES else ("tabular",)
        columns = [getattr(batch, name) for name in names]
    return [c[..., list(modality.indices)] if modality.indices else c for c in columns]


def changed(before: Batch, after: Batch, manifest: Manifest = MANIFEST) -> torch.Tensor:
    """(B, M) bool: which modalities have other values."""
    result = []
    for modality in manifest.sources:
        pairs = zip(parts(before, modality), parts(after, modality), strict=True)
        differs = [(a != b) & ~(a.isnan() & b.isnan()) for a, b in pairs]
        result.append(torch.stack([d.flatten(1).any(dim=1) for d in differs]).any(dim=0))
    return torch.stack(result, dim=1)


def worse(batch: Batch, share: float, manifest: Manifest = MANIFEST) -> Batch:
    return CORRUPTIONS["mixed-quality"]()(batch, share, draw_seeds(batch.sample_id), manifest)


def columns(batch: Batch) -> dict[str, torch.Tensor | None]:
    return {name: getattr(batch, name) for name in CHANGEABLE} | batch.more_images


def check_equal(left: Batch, right: Batch) -> None:
    """To the bit, NaN equal to NaN."""
    assert left.sample_id == right.sample_id
    for (name, mine), yours in zip(columns(left).items(), columns(right).values(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0, equal_nan=True, msg=name)


@settings(max_examples=30)
@given(
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
    rows=st.lists(st.integers(0, 11), min_size=1, max_size=8),
)
def test_the_severity_says_what_changed_whatever_the_batch(share, seed, rows):
    batch = batch_of(12, seed)
    result = worse(batch, share)
    assert torch.equal(result.severity > 0, changed(batch, result))
    assert set(result.severity.unique().tolist()) <= {0, *SEVERITIES}
    assert not result.severity[batch.present == 0].any()
    assert torch.equal(result.present, batch.present)
    assert torch.equal(result.series_mask == 0, result.series.isnan())
    check_equal(worse(batch.select(rows), share), result.select(rows))


@pytest.mark.parametrize("share", CORRUPTIONS["mixed-quality"].severities)
def test_present_modalities_get_worse_with_their_probability(share):
    batch = batch_of(3000)
    severity = worse(batch, share).severity
    hit = severity > 0
    # JPEG, noise and fewer pixels change any image; fewer values of few may be all of them.
    for number in range(3):
        there = int(batch.present[:, number].sum())
        count = int(hit[:, number].sum())
        assert stats.binomtest(count, there, share).pvalue > 1e-4
        drawn = severity[:, number][hit[:, number]].long().bincount(minlength=6)[1:]
        assert stats.chisquare(drawn.numpy()).pvalue > 1e-4
    # Modalities of one sample are hit on their own.
    both = batch.present[:, :2].all(dim=1)
    together = int(hit[both][:, :2].all(dim=1).sum())
    assert stats.binomtest(together, int(both.sum()), share**2).pvalue > 1e-4


def test_a_modality_meets_all_that_suits_it_and_nothing_else():
    suited = {m.name: acting_on(m, MANIFEST) for m in MANIFEST.modalities}
    images, values = ["gaussian-noise", "pixelate", "jpeg"], ["value-noise", "feature-mask"]
    assert suited == {
        **dict.fromkeys(("t1", "t2", "slide"), images),
        **dict.fromkeys(("vitals", "labs", "age"), values),
        "sex": ["feature-mask"],
    }
    batch = batch_of(400, missing=0)
    result = worse(batch, 1.0)
    age, sex = result.tabular.unbind(dim=1)
    assert age.isnan().any()
    assert ((age != 60) & ~age.isnan()).any()
    kept = ~sex.isnan()
    assert 0 < kept.sum() < 400
    assert torch.equal(sex[kept], batch.tabular[kept, 1])
    # Two modalities of one image get noise of their own.
    noise = (result.image - batch.image)[:, [0, 2]].flatten(2)
    assert max(abs(float(pair.corrcoef()[0, 1])) for pair in noise) < 0.8


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("modality", MANIFEST.modalities, ids=lambda m: m.name)
def test_any_corruption_can_be_of_one_modality_alone(name, modality):
    batch = batch_of(16, missing=0)
    corruption, seeds = CORRUPTIONS[name](), draw_seeds(batch.sample_id)
    result, flags = alone(
        batch,
        modality,
        MANIFEST,
        lambda part, its: corruption(part, corruption.severities[4], seeds, its),
    )
    found = changed(batch, result)
    number = MANIFEST.modalities.index(modality)
    assert torch.equal(found[:, number], flags)
    assert found.sum() == flags.sum()
    assert bool(flags.any()) == corruption.acts_on(manifest_of(modality, MANIFEST))


def test_data_without_named_modalities_have_one_for_each_column():
    assert [m.name for m in UNNAMED.sources] == ["image", "slide", "series", "tabular"]
    batch = dataclasses.replace(batch_of(50, missing=0), present=None)
    result = worse(batch, 0.5, UNNAMED)
    assert result.severity.shape == (50, 4)
    assert torch.equal(result.severity > 0, changed(batch, result, UNNAMED))
    assert result.present is None
    categories = dataclasses.replace(
        UNNAMED, image_shape=(), more_images={}, series=(), tabular=MANIFEST.tabular[1:]
    )
    assert acting_on(*categories.sources, categories) == ["feature-mask"]


def test_a_batch_carries_severities():
    result = worse(batch_of(6), 1.0)
    assert torch.equal(result.select([4, 0]).severity, result.severity[[4, 0]])
    assert result.to("meta").severity.device.type == "meta"
    assert torch.equal(result.with_image(result.image + 1).severity, result.severity)
    # The worse of two counts, and what is dropped is not corrupted.
    twice = corrupt(result, "mixed-quality", 5, manifest=MANIFEST)
    assert (twice.severity >= result.severity).all()
    dropped = corrupt(twice, "modality-drop", 5, manifest=MANIFEST)
    assert torch.equal(dropped.severity, twice.severity * dropped.present)


def training(**shares: float) -> TrainingCorruption:
    return TrainingCorruption([], 0.0, 3, manifest=MANIFEST, suite="clinical", **shares)


@settings(max_examples=30)
@given(corruption=st.floats(0, 1), p_miss=st.floats(0, 1), epoch=st.integers(0, 3))
def test_training_draws_by_epoch_and_sample_alone(corruption, p_miss, epoch):
    batch = batch_of(12)
    transform = training(modality_corruption=corruption, p_miss=p_miss)
    result = transform(batch, epoch)
    assert result.present.any(dim=1).all()
    assert not (result.present > batch.present).any()
    assert (result.severity is None) == (corruption == 0)
    if result.severity is not None:
        assert not result.severity[result.present == 0].any()
        kept = result.present > 0
        assert torch.equal((result.severity > 0)[kept], changed(batch, result)[kept])
    check_equal(transform(batch.select([7, 2]), epoch), result.select([7, 2]))


def test_training_drops_and_corrupts_the_asked_shares_anew_each_epoch():
    batch = dataclasses.replace(batch_of(2000, missing=0), present=None)
    transform = training(modality_corruption=0.4, p_miss=0.2)
    first, second = transform(batch, 0), transform(batch, 1)
    assert batch.present is None
    assert not torch.equal(first.present, second.present)
    assert not torch.equal(first.severity, second.severity)
    for result in (first, second):
        kept = int(result.present[:, :3].sum())
        # 0.2^7 of the samples would lose all: nothing to see here.
        assert stats.binomtest(kept, 6000, 0.8).pvalue > 1e-4
        assert stats.binomtest(int((result.severity[:, :3] > 0).sum()), kept, 0.4).pvalue > 1e-4
    assert transform(batch.select([]), 0).severity is None


def test_training_with_both_at_zero_changes_nothing():
    batch = batch_of(4)
    assert training()(batch, 0) is batch


def test_samples_that_meet_another_corruption_count_as_clean():
    cells = [("gaussian-noise", 3), ("mixed-quality", 5)]
    batch = batch_of(60, missing=0)
    result = TrainingCorruption(cells, 1.0, 3, manifest=MANIFEST)(batch, 0)
    mixed = (result.severity > 0).any(dim=1)
    assert 0 < mixed.sum() < 60
    assert (changed(batch, result)[~mixed, :3]).all()


def test_other_processes_can_make_the_batches(phantoms):
    """What they send is the stored rows and what changed of them."""
    manifest = Manifest.load(phantoms)
    stored = read_table(phantoms, Split.TRAIN).drop_columns("present")
    transform = TrainingCorruption(
        [], 0.0, 3, manifest=manifest, modality_corruption=0.2, p_miss=0.2
    )
    before = _received(stored, manifest)
    after = transform(before, 1)
    assert before.present is None
    check_equal(_received(pack(stored, before, after), manifest), after)


def _received(table: pa.Table, manifest: Manifest) -> Batch:
    (rows,) = table.combine_chunks().to_batches()
    return assemble(columns_of(rows, manifest), manifest)


def test_hospitals_tables(real_data, tmp_path):
    """UCI heart disease: 13 entries in four modalities, many of them missing."""
    prepare(real_data / "uci_heart_disease", "uci-heart", tmp_path / "heart", size=16)
    manifest = Manifest.load(tmp_path / "heart")
    samples = Samples.read(tmp_path / "heart", Split.TRAIN)
    batch = samples.batch(range(len(samples)))
    for severity, share in zip(SEVERITIES, (0.1, 0.3, 0.5, 0.7, 1.0), strict=True):
        result = corrupt(batch, "mixed-quality", severity, manifest=manifest, suite="clinical")
        assert torch.equal(result.severity > 0, changed(batch, result, manifest))
        hit = float((result.severity > 0)[batch.present > 0].float().mean())
        assert 0.5 * share < hit <= share + 0.03
