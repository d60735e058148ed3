import numpy as np
import pytest
import torch

from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Samples, materialise


@pytest.fixture(scope="module")
def samples(phantoms) -> Samples:
    return Samples.read(phantoms, Split.TRAIN)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 1000])
def test_an_epoch_sees_each_sample_once_over_all_ranks(samples, world, batch_size):
    ranks = [
        list(samples.epoch(batch_size, seed=3, epoch=1, rank=rank, world=world))
        for rank in range(world)
    ]
    seen = [name for rank in ranks for batch, _ in rank for name in batch.sample_id]
    assert sorted(seen) == list(samples.sample_ids)
    assert len({len(rank) for rank in ranks}) == 1
    assert all(len(batch) > 0 for rank in ranks for batch, _ in rank)


def test_weights_make_the_mean_over_ranks_the_mean_over_the_step(samples):
    steps = zip(
        *(samples.epoch(3, seed=0, epoch=0, rank=r, world=5) for r in range(5)), strict=True
    )
    for step in steps:
        means = [batch.image.mean(dim=(1, 2, 3)) for batch, _ in step]
        averaged = sum(m.mean() * w for m, (_, w) in zip(means, step, strict=True)) / 5
        torch.testing.assert_close(averaged, torch.cat(means).mean())


def test_the_order_depends_on_seed_and_epoch_alone(samples):
    def order(**more):
        return [n for batch, _ in samples.epoch(8, **more) for n in batch.sample_id]

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)
    assert order(seed=1, epoch=2) != order(seed=2, epoch=2)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_a_sweep_deals_the_same_batches_to_any_number_of_ranks(samples, world):
    whole = [batch.sample_id for batch in samples.sweep(10)]
    dealt = [[b.sample_id for b in samples.sweep(10, rank, world)] for rank in range(world)]
    assert [dealt[i % world][i // world] for i in range(len(whole))] == whole
    assert [name for names in whole for name in names] == list(samples.sample_ids)


def test_fewer_samples_than_workers_is_refused(samples):
    with pytest.raises(UserError, match="workers"):
        next(samples.epoch(1, seed=0, epoch=0, rank=0, world=1000))


def test_a_batch_is_what_the_shards_hold(samples, phantoms):
    table = read_table(phantoms, Split.TRAIN).sort_by("sample_id")
    batch = samples.batch([4, 0])
    rows = [table.slice(i, 1) for i in (4, 0)]
    assert batch.sample_id == tuple(row["sample_id"][0].as_py() for row in rows)
    for place, row in enumerate(rows):
        image = row["image"].combine_chunks().to_numpy_ndarray()[0]
        np.testing.assert_array_equal((batch.image[place] * 255).round().numpy(), image)
        assert batch.groups["age"][place] == row["age"][0].as_py()
    assert batch.image.dtype == torch.float32
    assert 0 <= batch.image.min() <= batch.image.max() <= 1
    assert set(batch.mask.unique().tolist()) <= {0.0, 1.0}
    assert batch.label.shape == (2,)
    assert batch.tabular.shape == (2, len(Manifest.load(phantoms).tabular))


@pytest.mark.slow
def test_ray_data_hands_over_the_same_samples_whatever_the_blocks(local_ray, phantoms, samples):
    splits = [Split.TRAIN, Split.VAL]
    # Read by Ray Data's tasks, and by this process.
    by_tasks, here = (materialise(phantoms, splits, small=small)["train"] for small in (0, 2**40))
    for dataset in (by_tasks, here, here.repartition(5).materialize()):
        seen = Samples.from_iterator(dataset.iterator(), Manifest.load(phantoms))
        assert seen.sample_ids == samples.sample_ids
        a, b = seen.batch(range(len(seen))), samples.batch(range(len(samples)))
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.tabular.nan_to_num(-1), b.tabular.nan_to_num(-1))
