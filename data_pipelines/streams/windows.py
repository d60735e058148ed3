"""The shuffled order of a split that is larger than memory, and reading it piece by piece.

An epoch shuffles the row groups, joins every few of them to a window, and shuffles the rows of
each window. The epoch's order is one line of rows; a rank works through its contiguous share of
it. Every piece can be worked out from (seed, epoch) alone, so there is no state to keep or lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trustsweep.data_pipelines.building.shards import opened, parts
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams.columns import assemble, columns_of, wanted

#: What a window holds as stored: what one task has in memory, and how far rows are mixed.
WINDOW_BYTES = 64 * 2**20
#: Of row groups, where a data set has them: fewer would mix nothing.
LEAST_GROUPS = 4


class RowGroup(NamedTuple):
    """A row group: the file in the data set, its number there, its rows."""

    part: str
    number: int
    rows: int


class Piece(NamedTuple):
    """Rows `start` to `stop` of one window of one epoch, in their shuffled order."""

    epoch: int
    window: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shards:
    """The row groups of a split, in the order of the files."""

    folder: Folder
    manifest: Manifest
    groups: tuple[RowGroup, ...]
    row_bytes: int
    window_bytes: int = WINDOW_BYTES

    @classmethod
    def open(
        cls,
        location: str | Path | Folder,
        split: Split,
        manifest: Manifest,
        window_bytes: int = WINDOW_BYTES,
    ) -> Shards:
        """Raises `UserError` for missing or damaged files, or fewer rows than the manifest says."""
        folder = Folder(location).resolved()
        groups = tuple(
            RowGroup(part.name, number, rows)
            for part in parts(folder, split)
            for number, rows in enumerate(part.rows)
            if rows
        )
        total, stated = sum(g.rows for g in groups), manifest.split_counts.get(split, 0)
        if total != stated or not total:
            raise UserError(
                f"{folder}: {total} rows in the {split} split, the manifest says {stated}. "
                "Prepare it again."
            )
        stored = manifest.stored_bytes.get(split, 0)
        return cls(folder, manifest, groups, max(1, stored // total), window_bytes)

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def groups_per_window(self) -> int:
        """As many as fit `window_bytes`, at least `LEAST_GROUPS`."""
        largest = max(group.rows for group in self.groups) * self.row_bytes
        return max(LEAST_GROUPS, self.window_bytes // largest)

    @property
    def window_rows(self) -> int:
        """Of a window, at most."""
        return self.groups_per_window * max(group.rows for group in self.groups)

    def read(self, group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a group, the columns that a batch is made of or those named.

        Raises `UserError` for a missing or damaged file.
        """
        with opened(self.folder, group.part) as file:
            names = wanted(file.schema_arrow.names, self.manifest)
            return file.read_row_group(group.number, columns=list(columns or names))

    def windows(self, seed: int, epoch: int) -> list[tuple[RowGroup, ...]]:
        """The row groups of an epoch in their shuffled order."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.groups))
        size = self.groups_per_window
        return [
            tuple(self.groups[i] for i in order[start : start + size])
            for start in range(0, len(order), size)
        ]

    def pieces(self, seed: int, epoch: int, start: int, stop: int) -> Iterator[Piece]:
        """What makes up rows `start` to `stop` of an epoch's order."""
        windows = self.windows(seed, epoch)
        edges = [0, *accumulate(sum(group.rows for group in window) for window in windows)]
        for number, (first, last) in enumerate(pairwise(edges)):
            if start < last and first < stop:
                yield Piece(epoch, number, max(start, first) - first, min(stop, last) - first)

    def load(self, seed: int, piece: Piece, rows_at_once: int) -> Iterator[pa.RecordBatch]:
        """The rows of a piece as stored, in their order."""
        window = self.windows(seed, piece.epoch)[piece.window]
        table = pa.concat_tables(self.read(group) for group in window).combine_chunks()
        draw = np.random.default_rng((seed, piece.epoch, piece.window + 1))
        order = draw.permutation(table.num_rows)[piece.start : piece.stop]
        for first in range(0, len(order), rows_at_once):
            rows = table.take(pa.array(order[first : first + rows_at_once])).combine_chunks()
            yield from rows.to_batches()

    def batch(self, rows: pa.RecordBatch) -> Batch:
        """Rows of this data set as a batch."""
        return assemble(columns_of(rows, self.manifest), self.manifest)
