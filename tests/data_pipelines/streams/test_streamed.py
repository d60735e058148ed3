"""The three modes side by side, on a real Ray: the same samples, the same pixels, once each."""

import logging
import os
import time
from itertools import pairwise

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Resident, Samples, Streamed
from trustsweep.data_pipelines.streams.order import shares, spread

CELLS = [("gaussian-noise", 3), ("gaussian-blur", 1), ("contrast-down", 5), ("modality-drop", 3)]
SEED = 7
#: Small windows: several in an epoch, and some cut by the border between two ranks.
SMALL = 1


@pytest.fixture(scope="module")
def ray_two_cpus():
    """Ray with as little as a laptop has; a task's processes stay from one test to the next."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def corruption(phantoms):
    manifest = Manifest.load(phantoms)
    return TrainingCorruption(
        CELLS, 0.6, SEED, manifest=manifest, modality_corruption=0.2, p_miss=0.1
    )


@pytest.fixture(scope="module")
def samples(phantoms):
    return Samples.read(phantoms, Split.TRAIN)


@pytest.fixture
def streamed(ray_two_cpus, phantoms):
    stream = Streamed(phantoms, Split.TRAIN, Manifest.load(phantoms), window_bytes=SMALL)
    yield stream
    stream.close()


def bits(batch, row):
    """All that a model sees of a sample; `present` left out stands for all there."""
    present = torch.ones(2) if batch.present is None else batch.present[row]
    severity = torch.zeros(2) if batch.severity is None else batch.severity[row]
    tensors = (batch.image[row], batch.mask[row], batch.tabular[row], batch.label[row])
    tensors += (present, severity)
    groups = tuple((name, values[row]) for name, values in batch.groups.items())
    return *(t.numpy().tobytes() for t in tensors), groups


def seen(stream, epoch, world, corruption, batch_size=8):
    """Every sample of an epoch over all ranks: (sample_id, content), sorted."""
    found = []
    for rank in range(world):
        batches = stream.epoch(
            batch_size,
            seed=SEED,
            epoch=epoch,
            rank=rank,
            world=world,
            transform=corruption,
            epochs=epoch + 1,
        )
        for batch, _ in batches:
            found += [(name, bits(batch, row)) for row, name in enumerate(batch.sample_id)]
    return sorted(found)


@pytest.fixture(scope="module")
def expected(samples, corruption):
    """Two epochs as one rank sees them in memory."""
    return [seen(samples, epoch, 1, corruption) for epoch in (0, 1)]


def test_an_epoch_draws_other_corruptions_than_the_one_before(expected):
    first, second = expected
    assert [name for name, _ in first] == [name for name, _ in second]
    differ = sum(a != b for a, b in zip(first, second, strict=True))
    assert differ > len(first) / 2


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shared_samples_are_the_same_for_any_number_of_ranks(samples, corruption, expected, world):
    assert [seen(samples, epoch, world, corruption) for epoch in (0, 1)] == expected


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_resident_samples_are_the_shared_ones_to_the_bit(samples, corruption, expected, world):
    resident = Resident(samples, "cpu")
    assert [seen(resident, epoch, world, corruption) for epoch in (0, 1)] == expected


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_streamed_samples_are_the_shared_ones_to_the_bit(streamed, corruption, expected, world):
    assert [seen(streamed, epoch, world, corruption) for epoch in (0, 1)] == expected


@pytest.mark.parametrize("world", [1, 3])
def test_resident_batches_are_the_shared_ones_in_their_order(samples, corruption, world):
    resident = Resident(samples, "cpu")
    options = {"seed": 3, "epoch": 4, "rank": world - 1, "world": world, "transform": corruption}
    pairs = zip(samples.epoch(5, **options), resident.epoch(5, **options), strict=True)
    for (mine, weight), (yours, other) in pairs:
        assert (mine.sample_id, weight) == (yours.sample_id, other)
        assert torch.equal(mine.image, yours.image)
    for mine, yours in zip(samples.sweep(7), resident.sweep(7), strict=True):
        assert mine.sample_id == yours.sample_id
        assert torch.equal(mine.image, yours.image)


def order(stream, **options):
    return [n for batch, _ in stream.epoch(8, **options) for n in batch.sample_id]


@pytest.mark.slow
def test_a_streamed_epoch_is_shuffled_by_seed_and_epoch_alone(streamed, phantoms):
    plain = order(streamed, seed=1, epoch=0)
    assert order(streamed, seed=1, epoch=1) != plain
    assert order(streamed, seed=2, epoch=0) != plain
    assert order(streamed, seed=1, epoch=0) == plain
    part_of = {
        name: part
        for part in (phantoms / "train").glob("*.parquet")
        for name in pq.read_table(part, columns=["sample_id"])["sample_id"].to_pylist()
    }
    assert len({part_of[name] for name in plain[:16]}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 5])
def test_streamed_ranks_make_the_same_steps_with_weights_of_mean_one(streamed, world):
    ranks = [
        [(len(b), w) for b, w in streamed.epoch(4, seed=0, epoch=0, rank=r, world=world)]
        for r in range(world)
    ]
    assert {len(rank) for rank in ranks} == {streamed.steps(4, world)}
    for step in zip(*ranks, strict=True):
        rows = sum(count for count, _ in step)
        for count, weight in step:
            assert 0 < count <= 4
            assert weight == pytest.approx(count * world / rows)


@pytest.mark.slow
def test_an_epoch_left_half_way_leaves_nothing_to_the_next_trial(
    streamed, corruption, expected, ray_two_cpus
):
    batches = streamed.epoch(8, seed=99, epoch=0, transform=corruption, epochs=50)
    for _ in range(2):
        next(batches)
    batches.close()
    assert seen(streamed, 0, 1, corruption) == expected[0]
    streamed.close()
    deadline = time.monotonic() + 20
    while ray_two_cpus.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray_two_cpus.available_resources()["CPU"] == 2


@pytest.mark.slow
def test_one_pipeline_serves_consecutive_epochs_and_its_processes_the_next_trials(
    streamed, corruption
):
    """A restart costs a second, and killed processes would cost several."""

    def tasks() -> set[int]:
        found = set()
        for child in psutil.Process(os.getpid()).children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
            if title.startswith(("ray::MapBatches", "ray::IDLE")):
                found.add(child.pid)
        return found

    order(streamed, seed=0, epoch=0, transform=corruption, epochs=9)
    pipeline = streamed._pipeline
    order(streamed, seed=0, epoch=1, transform=corruption, epochs=9)
    assert streamed._pipeline is pipeline
    before = tasks()
    for seed in range(1, 4):
        next(streamed.epoch(8, seed=seed, epoch=0, transform=corruption, epochs=9))
    assert before
    assert before & tasks()


@pytest.mark.slow
def test_one_pipeline_takes_the_first_steps_of_each_epoch(streamed, corruption):
    """Another share of an epoch than was planned is another pipeline."""
    taken = (0.2, 0.5, 1.0)
    options = {"seed": 0, "transform": corruption, "rank": 1, "world": 2}
    whole = [order(streamed, epoch=epoch, **options) for epoch in range(3)]
    pipelines = set()
    for epoch, part in enumerate(taken):
        found = order(streamed, epoch=epoch, epochs=3, share=taken.__getitem__, **options)
        pipelines.add(streamed._pipeline)
        assert 0 < len(found) <= part * len(whole[epoch]) + 8
        assert found == whole[epoch][: len(found)]
    assert len(pipelines) == 1
    order(streamed, epoch=0, epochs=3, share=taken.__getitem__, **options)
    assert order(streamed, epoch=1, epochs=3, **options) == whole[1]


@pytest.mark.parametrize("world", [1, 2, 5])
def test_part_of_a_sweep_is_the_same_for_any_world(phantoms, samples, world):
    stream = Streamed(phantoms, Split.TRAIN, Manifest.load(phantoms))
    for source in (stream, samples):
        places = spread(len(source), 0.4)
        dealt = [b for rank in range(world) for b in source.sweep(5, rank, world, share=0.4)]
        names = sorted(name for batch in dealt for name in batch.sample_id)
        assert names == sorted(source.sample_ids[place] for place in places)
        assert {len(batch) for batch in dealt} <= {5, len(places) % 5}
        for batch in dealt:
            same = source.batch([source.sample_ids.index(name) for name in batch.sample_id])
            assert torch.equal(batch.image, same.image)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_a_streamed_sweep_is_whole_and_its_batches_those_of_any_world(phantoms, samples, world):
    stream = Streamed(phantoms, Split.TRAIN, Manifest.load(phantoms))
    whole = list(stream.sweep(10))
    dealt = [b for rank in range(world) for b in stream.sweep(10, rank, world)]
    assert [b.sample_id for b in dealt] == [b.sample_id for b in whole]
    names = [name for batch in whole for name in batch.sample_id]
    assert sorted(names) == list(samples.sample_ids)
    assert tuple(names) == stream.sample_ids
    assert {len(b) for b in whole[:-1]} == {10}
    place = {name: i for i, name in enumerate(samples.sample_ids)}
    for batch in whole:
        same = samples.batch([place[name] for name in batch.sample_id])
        assert all(bits(batch, row) == bits(same, row) for row in range(len(batch)))


def test_single_samples_of_a_stream_can_be_looked_up(phantoms, samples):
    stream = Streamed(phantoms, Split.TRAIN, Manifest.load(phantoms))
    batch = stream.batch([40, 3, 41])
    assert batch.sample_id == tuple(stream.sample_ids[i] for i in (40, 3, 41))
    same = samples.batch([samples.sample_ids.index(name) for name in batch.sample_id])
    assert torch.equal(batch.image, same.image)


@pytest.mark.slow
def test_a_file_that_goes_while_training_is_named(ray_two_cpus, tmp_path):
    prepare(None, "phantoms", tmp_path / "data", size=16, count=60)
    stream = Streamed(tmp_path / "data", Split.TRAIN, Manifest.load(tmp_path / "data"))
    part = sorted((tmp_path / "data" / "train").glob("*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:-200])
    with pytest.raises(UserError, match=rf"{part.name}: damaged or gone.*Prepare the data again"):
        list(stream.epoch(4, seed=0, epoch=0))
    with pytest.raises(UserError, match=part.name):
        list(stream.sweep(4))


def test_a_split_with_missing_files_is_refused(tmp_path):
    prepare(None, "phantoms", tmp_path / "data", size=16, count=60)
    manifest = Manifest.load(tmp_path / "data")
    parts = sorted((tmp_path / "data" / "train").glob("*.parquet"))
    parts[0].unlink()
    with pytest.raises(UserError, match="the manifest says"):
        Streamed(tmp_path / "data", Split.TRAIN, manifest)


def test_shares_are_contiguous_and_even():
    for samples in range(40):
        for parts in range(1, 9):
            edges = shares(samples, parts)
            assert (edges[0], edges[-1]) == (0, samples)
            sizes = [b - a for a, b in pairwise(edges)]
            assert len(sizes) == parts
            assert max(sizes) - min(sizes) <= 1
