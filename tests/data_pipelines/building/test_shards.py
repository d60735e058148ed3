"""Columns of the shards without the rest of a sample."""

from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.shards import read_column, read_table
from trustsweep.data_pipelines.errors import StorageError
from trustsweep.data_pipelines.schema import Split
from trustsweep.data_pipelines.streams import Samples


def test_a_column_is_that_of_the_samples(phantoms: Path) -> None:
    samples = Samples.read(phantoms, Split.TRAIN)
    # Samples stand in an order of their own.
    places = {name: place for place, name in enumerate(samples.sample_ids)}
    names = read_table(phantoms, Split.TRAIN, ["sample_id"])["sample_id"].to_pylist()
    whole = samples.batch([places[name] for name in names])
    assert whole.mask is not None
    assert whole.label is not None
    masks = np.concatenate(list(read_column(phantoms, Split.TRAIN, "mask")))
    assert masks.dtype == np.uint8
    assert np.array_equal(masks, whole.mask.numpy())
    labels = np.concatenate(list(read_column(phantoms, Split.TRAIN, "label")))
    assert np.array_equal(labels, whole.label.numpy())


def test_shards_that_are_gone_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"val: the shards are missing"):
        list(read_column(tmp_path, Split.VAL, "label"))
