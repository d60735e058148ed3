"""Splits whose rows can be reached at random: shared through the object store, or on a device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import order
from trustsweep.data_pipelines.streams.columns import Columns, assemble, columns_of, gather
from trustsweep.data_pipelines.streams.order import Share, Stream, Transform

if TYPE_CHECKING:
    from ray.data import DataIterator

#: Rows that are copied to a device together.
_COPIED_ROWS = 1024


class Indexed(Stream):
    """A `Stream` over samples in the order of `sample_id`."""

    manifest: Manifest
    sample_ids: tuple[str, ...]

    @abstractmethod
    def batch(self, indices: Iterable[int]) -> Batch:
        """The samples at `indices`, images scaled to [0, 1] float32."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    def epoch(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        transform: Transform | None = None,
        epochs: int | None = None,
        share: Share | None = None,
    ) -> Iterator[tuple[Batch, float]]:
        """See `Stream`."""
        shuffled = np.random.default_rng((seed, epoch)).permutation(len(self))
        whole = order.dealt(shuffled, self.steps(batch_size, world), rank, world)
        taken = self.steps(batch_size, world, share(epoch) if share else 1.0)
        for mine, weight in islice(whole, taken):
            batch = self.batch(mine)
            yield transform(batch, epoch) if transform else batch, weight

    def sweep(
        self, batch_size: int, rank: int = 0, world: int = 1, share: float = 1.0
    ) -> Iterator[Batch]:
        """See `Stream`; in the order of `sample_id`."""
        places = order.spread(len(self), share)
        for start in list(range(0, len(places), batch_size))[rank::world]:
            yield self.batch(places[start : start + batch_size])

    def close(self) -> None:
        """See `Stream`; nothing is prepared ahead."""
        return


class Samples(Indexed):
    """Over Arrow tables, which may lie in the object store of this node and be shared.

    Batches are on the CPU.
    """

    def __init__(self, tables: Iterable[pa.Table], manifest: Manifest) -> None:
        self.manifest = manifest
        self.chunks: list[Columns] = [
            columns_of(rows, manifest)
            for table in tables
            for rows in table.to_batches()
            if rows.num_rows
        ]
        rows = [
            (sample_id, chunk, row)
            for chunk, columns in enumerate(self.chunks)
            for row, sample_id in enumerate(columns["sample_id"])
        ]
        rows.sort()
        self.sample_ids = tuple(row[0] for row in rows)
        #: (chunk, row) of each sample.
        self.places = [row[1:] for row in rows]

    @classmethod
    def from_iterator(cls, shard: DataIterator, manifest: Manifest) -> Samples:
        """A worker's view of a data set that was materialised by `materialise`."""
        blocks = shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        return cls(blocks, manifest)

    @classmethod
    def read(cls, location: str | Path | Folder, split: Split) -> Samples:
        """Straight from the shards, without Ray. Raises `UserError` as `shards.read_table`."""
        return cls([read_table(location, split)], Manifest.load(location))

    def batch(self, indices: Iterable[int]) -> Batch:
        """See `Indexed`."""
        return assemble(gather(self.chunks, [self.places[i] for i in indices]), self.manifest)


class Resident(Indexed):
    """All of a split on one device, images in the type in which they are stored.

    Batches are put together on the device and a transform works there.
    """

    def __init__(self, samples: Samples, device: torch.device | str) -> None:
        self.manifest = samples.manifest
        self.sample_ids = samples.sample_ids
        self._device = torch.device(device)
        self._columns: Columns = {}
        first = samples.chunks[0] if samples.chunks else {}
        for name, values in first.items():
            if isinstance(values, list):
                self._columns[name] = [samples.chunks[c][name][row] for c, row in samples.places]
            else:
                self._columns[name] = self._copy(samples, name, values)

    def batch(self, indices: Iterable[int]) -> Batch:
        """See `Indexed`."""
        rows = np.fromiter(indices, dtype=np.int64)
        index = torch.from_numpy(rows).to(self._device, non_blocking=True)
        return assemble(
            {name: _rows(values, rows, index) for name, values in self._columns.items()},
            self.manifest,
        )

    def _copy(self, samples: Samples, name: str, like: np.ndarray) -> torch.Tensor:
        """One column in the order of the samples, a piece at a time: the host holds no copy."""
        shape = (len(samples), *like.shape[1:])
        dtype = torch.from_numpy(np.empty(0, like.dtype)).dtype
        column = torch.empty(shape, dtype=dtype, device=self._device)
        for start in range(0, len(samples), _COPIED_ROWS):
            rows = [samples.chunks[c][name][r] for c, r in samples.places[start:][:_COPIED_ROWS]]
            column[start : start + len(rows)] = torch.from_numpy(np.stack(rows))
        return column


def _rows(values: Any, rows: Sequence[int] | np.ndarray, index: torch.Tensor) -> Any:
    if isinstance(values, list):
        return [values[row] for row in rows]
    return values.index_select(0, index)
