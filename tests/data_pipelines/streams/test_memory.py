"""A split larger than the object store and than what the process may grow by."""

import dataclasses
import logging
import os
import threading

import numpy as np
import psutil
import pyarrow as pa
import pytest
from ray._private.internal_api import memory_summary

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import write_split
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.streams import Streamed

pytestmark = pytest.mark.slow

STORE = 80 * 2**20
SIDE = 128
ROWS = 16_384  # 256 MiB of images as stored, 1 GiB as float32


@pytest.fixture
def small_store():
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A train split of random images, which no compression makes small."""
    folder = tmp_path_factory.mktemp("large") / "data"
    prepare(None, "phantoms", folder, size=16, count=40)
    manifest = Manifest.load(folder)
    draw = np.random.default_rng(0)
    schema = pa.schema(
        [
            ("sample_id", pa.string()),
            ("image", pa.fixed_shape_tensor(pa.uint8(), (1, SIDE, SIDE))),
            ("site", pa.string()),
            ("sex", pa.string()),
            ("age", pa.float32()),
        ]
    )

    def take(start: int, stop: int) -> pa.Table:
        count = stop - start
        pixels = draw.integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
        columns = {
            "sample_id": [f"s{i:05d}" for i in range(start, stop)],
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
            "site": ["here"] * count,
            "sex": [None] * count,
            "age": [50.0] * count,
        }
        return pa.table(columns, schema=schema)

    out = folder.parent / "large"
    for _ in write_split(out, Split.TRAIN, schema, ROWS, take):
        pass
    stored = ROWS * SIDE * SIDE
    counts = {**manifest.split_counts, "train": ROWS}
    return out, dataclasses.replace(
        manifest, split_counts=counts, stored_bytes={**manifest.stored_bytes, "train": stored}
    )


def brighter(batch, epoch):
    """Changes every pixel, so that all travels as float32."""
    return batch.with_image(batch.image / 2 + 0.25)


def test_what_no_memory_holds_still_streams(small_store, large):
    folder, manifest = large
    stream = Streamed(folder, Split.TRAIN, manifest, tasks=2, store_bytes=STORE // 2)
    process = psutil.Process(os.getpid())
    before, peak, done = process.memory_info(), [0], threading.Event()

    def own() -> int:
        info = process.memory_info()
        return (info.rss - info.shared) - (before.rss - before.shared)

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    names, low, high = [], 1.0, 0.0
    for batch, _ in stream.epoch(64, seed=0, epoch=0, transform=brighter, epochs=1):
        names += batch.sample_id
        low, high = min(low, batch.image.min().item()), max(high, batch.image.max().item())
    stream.close()
    done.set()
    watcher.join()
    assert len(names) == len(set(names)) == ROWS
    assert (low, high) == (0.25, 0.75)
    assert peak[0] < 150 * 2**20  # a block and a batch or two; the split is 256 MiB
    spilled = memory_summary(address=small_store.get_runtime_context().gcs_address, stats_only=True)
    assert "Spilled" not in spilled, spilled
