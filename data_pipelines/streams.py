"""Ray Data: read a prepared data set once, share it, and hand each worker its batches.

The only file of this room that imports Ray. A data set is materialised in the object store once
per sweep; every slot's workers map the same blocks (zero copy on a node), so that neither a new
trial nor a new epoch reads anything. What a worker sees in an epoch depends on
(seed, epoch, rank, world size) alone, not on the order in which blocks arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray.data
import torch

from data_pipelines.errors import UserError
from data_pipelines.schema import Batch, Manifest, Split
from data_pipelines.shards import read_table

if TYPE_CHECKING:
    from ray.data import DataIterator, MaterializedDataset

_TENSORS = ("mask", "label", "tabular", "series", "series_mask", "present")


def materialise(folder: Path, splits: Iterable[Split]) -> dict[str, MaterializedDataset]:
    """Read the splits of a prepared folder into the object store, once for all slots."""
    return {
        str(split): ray.data.read_parquet(str(folder / split)).materialize() for split in splits
    }


class Samples:
    """Random access to the samples of one split, over Arrow tables that may lie in shared memory.

    Sorted by `sample_id`, so that an index means the same sample whatever the block order.
    """

    def __init__(self, tables: Iterable[pa.Table], manifest: Manifest) -> None:
        self.manifest = manifest
        self._chunks = [
            {name: _values(batch.column(name)) for name in batch.schema.names}
            for table in tables
            for batch in table.to_batches()
        ]
        rows = [
            (sample_id, chunk, row)
            for chunk, columns in enumerate(self._chunks)
            for row, sample_id in enumerate(columns["sample_id"])
        ]
        rows.sort()
        self.sample_ids = tuple(row[0] for row in rows)
        self._where = [row[1:] for row in rows]

    @classmethod
    def from_iterator(cls, shard: DataIterator, manifest: Manifest) -> Samples:
        """A worker's view of a data set that was materialised by `materialise`."""
        blocks = shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        return cls(blocks, manifest)

    @classmethod
    def read(cls, folder: Path, split: Split) -> Samples:
        """Straight from the shards, without Ray. Raises `UserError` as `shards.read_table`."""
        return cls([read_table(folder, split)], Manifest.load(folder))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def batch(self, indices: Iterable[int]) -> Batch:
        """The samples at `indices`, images scaled to [0, 1] float32, on the CPU."""
        where = [self._where[i] for i in indices]
        available = self._chunks[0]

        def gather(name: str) -> np.ndarray:
            return np.stack([self._chunks[chunk][name][row] for chunk, row in where])

        image = torch.from_numpy(gather("image")).float() / self.manifest.image_scale
        tensors = {n: torch.from_numpy(gather(n)) for n in _TENSORS if n in available}
        if "mask" in tensors:
            tensors["mask"] = tensors["mask"].float()
        groups: dict[str, tuple[Any, ...]] = {
            name: tuple(self._chunks[chunk][name][row] for chunk, row in where)
            for name in self.manifest.groups
        }
        ids = tuple(self._chunks[chunk]["sample_id"][row] for chunk, row in where)
        return Batch(sample_id=ids, image=image, groups=groups, **tensors)

    def steps(self, batch_size: int, world: int = 1) -> int:
        """Optimiser steps of an epoch, the same on every rank. Raises `UserError` as `epoch`."""
        if len(self) < world:
            raise UserError(
                f"train split: {len(self)} samples for {world} workers. Use fewer workers."
            )
        return min(math.ceil(len(self) / (batch_size * world)), len(self) // world)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Batch, float]]:
        """One rank's part of one epoch: every sample exactly once over all ranks, shuffled.

        `batch_size` is per rank. All ranks make the same number of steps (gradients are averaged
        at each), so a step's rows may differ by one between ranks; the second value, the rank's
        rows times the world size over the step's rows, makes the average of the ranks' weighted
        mean losses the mean over the step.

        Raises `UserError` if there are fewer samples than ranks.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        # Equal steps rather than a short last one, which could leave a rank without a row.
        for rows in np.array_split(order, self.steps(batch_size, world)):
            mine = rows[rank::world]
            yield self.batch(mine), len(mine) * world / len(rows)

    def sweep(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every sample once in the order of `sample_id`, whole batches dealt to the ranks.

        The batches are the same for any world size.
        """
        starts = range(0, len(self), batch_size)
        for start in list(starts)[rank::world]:
            yield self.batch(range(start, min(start + batch_size, len(self))))


def _values(column: pa.Array) -> Any:
    """A column's values, indexable by row; tensors as a view on the Arrow buffer."""
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    if pa.types.is_primitive(column.type) and column.null_count == 0:
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()
