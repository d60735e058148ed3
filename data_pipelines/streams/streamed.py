"""A split that no memory holds: read and corrupted by Ray Data's tasks while a worker trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from trustsweep.data_pipelines.errors import StorageError, UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import order
from trustsweep.data_pipelines.streams.columns import (
    Columns,
    Cutter,
    assemble,
    columns_of,
    gather,
    pack,
)
from trustsweep.data_pipelines.streams.modes import TASK_CPUS
from trustsweep.data_pipelines.streams.order import Share, Stream, Transform
from trustsweep.data_pipelines.streams.windows import WINDOW_BYTES, Piece, RowGroup, Shards

#: Tasks that one pipeline is planned for, in whole epochs. Starting one costs 0.3 to 2 seconds.
_PLANNED_TASKS = 256
#: Of a block on its way to a worker, as float32; less where a store has no room for so many of
#: them for each task (two that are made, two that wait, and those of the task before it).
_BLOCK_BYTES = 8 * 2**20
_BLOCKS_PER_TASK = 8
_FLOAT_BYTES = 4


class Streamed(Stream):
    """A `Stream` that holds a few windows of rows at a time; see `windows` for the order.

    Args:
        location: A prepared data set.
        split: One of its splits.
        manifest: Its manifest.
        tasks: How many tasks may prepare rows at once; each takes `TASK_CPUS` of the cluster, and
            training waits for ever if nothing is left for them. Fewer where `store_bytes` has no
            room for what they make.
        store_bytes: What the prepared rows may take of the object store; Ray's own limit if None.
        window_bytes: See `Shards.groups_per_window`.

    Raises:
        UserError: for missing or damaged files; so do all methods that read.
    """

    def __init__(
        self,
        location: str | Path | Folder,
        split: Split,
        manifest: Manifest,
        *,
        tasks: int = 2,
        store_bytes: int | None = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.manifest = manifest
        self._shards = Shards.open(location, split, manifest, window_bytes)
        if store_bytes is not None:
            # While a worker waits for the first task, Ray Data takes whatever the others make.
            window = self._shards.window_rows * self._shards.row_bytes * (1 + _FLOAT_BYTES)
            tasks = max(1, min(tasks, store_bytes // window))
        self._tasks = tasks
        self._store_bytes = store_bytes
        self._pipeline: _Pipeline | None = None

    def __len__(self) -> int:
        return len(self._shards)

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
        """See `Stream`. The pipeline goes on to the next epoch; one left half-way ends it."""
        whole = order.share_steps(len(self), self.steps(batch_size, world), rank, world)

        def steps(number: int) -> list[tuple[int, float]]:
            return whole[: self.steps(batch_size, world, share(number) if share else 1.0)]

        def rows_of(number: int) -> int:
            return sum(rows for rows, _ in steps(number))

        pipeline = self._running(seed, epoch, rank, world, transform, epochs, rows_of)
        try:
            for rows, weight in steps(epoch):
                yield assemble(pipeline.take(rows), self.manifest), weight
            pipeline.epoch += 1
        finally:
            if pipeline.epoch != epoch + 1:
                pipeline.close()

    def sweep(
        self, batch_size: int, rank: int = 0, world: int = 1, share: float = 1.0
    ) -> Iterator[Batch]:
        """See `Stream`; in the order of the files, a contiguous part for each rank.

        Read in this process, a row group ahead: evaluation is far slower than reading.
        """
        places = order.spread(len(self), share)
        first, last = order.shares(math.ceil(len(places) / batch_size), world)[rank : rank + 2]
        mine = places[first * batch_size : last * batch_size]
        rows = Cutter(chain.from_iterable(map(self._columns, self._at(mine))))
        for begin in range(0, len(mine), batch_size):
            yield assemble(rows.take(min(batch_size, len(mine) - begin)), self.manifest)

    def close(self) -> None:
        """See `Stream`."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    @cached_property
    def sample_ids(self) -> tuple[str, ...]:
        """All identifiers, in the order of the files."""
        tables = (self._shards.read(group, ["sample_id"]) for group in self._shards.groups)
        return tuple(name for table in tables for name in table["sample_id"].to_pylist())

    def batch(self, indices: Iterable[int]) -> Batch:
        """The samples at these places of `sample_ids`; for a few, as row groups are read whole."""
        wanted = list(indices)
        chunks: list[Columns] = []
        places: dict[int, tuple[int, int]] = {}
        for start, group in zip(self._edges[:-1], self._shards.groups, strict=True):
            mine = [i for i in wanted if start <= i < start + group.rows]
            if mine:
                rows = self._shards.read(group).take(pa.array([i - start for i in mine]))
                places |= {index: (len(chunks), row) for row, index in enumerate(mine)}
                chunks += self._columns(rows)
        return assemble(gather(chunks, [places[i] for i in wanted]), self.manifest)

    @property
    def _edges(self) -> list[int]:
        """Where each row group starts, and where the last ends."""
        return [0, *accumulate(group.rows for group in self._shards.groups)]

    def _columns(self, table: pa.Table) -> list[Columns]:
        return [columns_of(b, self.manifest) for b in table.combine_chunks().to_batches()]

    def _at(self, places: np.ndarray) -> Iterator[pa.Table]:
        """The rows at ascending places of the files, one row group read ahead."""
        edges = self._edges
        cuts = np.searchsorted(places, edges)
        mine = [
            (group, places[a:b] - start)
            for group, start, (a, b) in zip(
                self._shards.groups, edges[:-1], pairwise(cuts), strict=True
            )
            if a < b
        ]
        with ThreadPoolExecutor(1) as pool:

            def read(group: RowGroup, rows: np.ndarray) -> pa.Table:
                table = self._shards.read(group)
                return table if len(rows) == group.rows else table.take(pa.array(rows))

            ahead = None
            for wanted in mine:
                coming = pool.submit(read, *wanted)
                if ahead is not None:
                    yield ahead.result()
                ahead = coming
            if ahead is not None:
                yield ahead.result()

    def _running(
        self,
        seed: int,
        epoch: int,
        rank: int,
        world: int,
        transform: Transform | None,
        epochs: int | None,
        rows: Callable[[int], int],
    ) -> _Pipeline:
        """The pipeline that comes to this epoch next, else a new one."""
        now = self._pipeline
        # Equality would compare what a transform holds; another trial brings another object.
        fits = (
            now and now.serves(seed, epoch, rank, world, rows(epoch)) and now.transform is transform
        )
        if now is None or not fits:
            self.close()
            now = self._pipeline = _Pipeline(
                self._shards,
                (seed, rank, world),
                range(epoch, epochs or epoch + _PLANNED_TASKS),
                rows,
                transform,
                tasks=self._tasks,
                store_bytes=self._store_bytes,
            )
        return now


class _Pipeline:
    """One run of Ray Data over a rank's share of some epochs.

    `rows` says how many each takes of that share; `epoch` is the one whose rows come next.
    """

    def __init__(
        self,
        shards: Shards,
        whose: tuple[int, int, int],
        epochs: range,
        rows: Callable[[int], int],
        transform: Transform | None,
        *,
        tasks: int,
        store_bytes: int | None,
    ) -> None:
        self._whose = whose
        self._manifest = shards.manifest
        self.transform = transform
        self.epoch = epochs.start
        seed, rank, world = whose
        start = order.shares(len(shards), world)[rank]
        plan: list[Piece] = []
        #: Rows of each epoch that it will go through.
        self._planned: dict[int, int] = {}
        for epoch in epochs:
            self._planned[epoch] = rows(epoch)
            plan += shards.pieces(seed, epoch, start, start + rows(epoch))
            if len(plan) >= _PLANNED_TASKS:
                break
        dataset = _dataset(shards, seed, plan, transform, tasks, store_bytes)
        # What `iter_batches` does inside. Closed half-way, that kills the tasks' processes, and
        # starting others takes the next trial seconds; the executor's own end interrupts the
        # tasks. `iter_internal_ref_bundles` ends so too, but says of no consumer, and Ray Data
        # then fills the object store beyond its limit.
        self._bundles, _, self._executor = dataset._execute_to_iterator(capture_executor=False)
        self._executor.set_external_consumer_bytes(0)
        self._open = True
        self._rows = Cutter(self._pieces())

    def serves(self, seed: int, epoch: int, rank: int, world: int, rows: int) -> bool:
        """Whether the next rows are those of `epoch` for this rank of this trial."""
        return (
            self._open
            and (seed, rank, world) == self._whose
            and epoch == self.epoch
            and self._planned.get(epoch) == rows
        )

    def take(self, count: int) -> Columns:
        """The next rows. Raises `UserError` for a file that a task could not read."""
        from ray.exceptions import RayError

        try:
            return self._rows.take(count)
        except RayError as error:
            self.close()
            if (known := _user_error(error)) is not None:
                raise known from error
            raise

    def close(self) -> None:
        """End the tasks; what they made is dropped."""
        if self._open:
            self._open = False
            self._rows = Cutter(iter(()))
            self._executor.shutdown(force=False)

    def _pieces(self) -> Iterator[Columns]:
        import ray

        for bundle in self._bundles:
            for block in bundle.blocks:
                for rows in ray.get(block.ref).combine_chunks().to_batches():
                    yield columns_of(rows, self._manifest)


def _dataset(
    shards: Shards,
    seed: int,
    plan: list[Piece],
    transform: Transform | None,
    tasks: int,
    store_bytes: int | None,
) -> Any:
    """Lazily: the pieces of `plan`, one a task, in their order."""
    import ray.data

    block_bytes = _BLOCK_BYTES
    if store_bytes is not None:
        block_bytes = min(block_bytes, store_bytes // (_BLOCKS_PER_TASK * tasks))
    per_block = max(1, block_bytes // (_FLOAT_BYTES * shards.row_bytes))
    dataset = ray.data.from_items(
        [piece._asdict() for piece in plan], override_num_blocks=len(plan)
    ).map_batches(
        _prepare,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=TASK_CPUS,
        compute=ray.data.TaskPoolStrategy(size=min(tasks, len(plan))),
        fn_kwargs={"shards": shards, "seed": seed, "transform": transform, "rows": per_block},
    )
    # The data set's own copy of the context: nothing else in the process is changed.
    context = dataset.context
    context.execution_options.preserve_order = True
    context.target_max_block_size = max(1, block_bytes)
    context.enable_progress_bars = False
    if store_bytes is not None:
        limits = ray.data.ExecutionResources.for_limits(object_store_memory=store_bytes)
        context.execution_options.resource_limits = limits
    return dataset


def _prepare(
    items: pa.Table, shards: Shards, seed: int, transform: Transform | None, rows: int
) -> Iterator[pa.Table]:
    """A task: read the rows of its pieces and corrupt them, `rows` at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a task has half a CPU
    try:
        for item in items.to_pylist():
            piece = Piece(**item)
            for stored in shards.load(seed, piece, rows):
                batch = shards.batch(stored)
                after = transform(batch, piece.epoch) if transform else batch
                yield pack(pa.Table.from_batches([stored]), batch, after)
    finally:
        torch.set_num_threads(threads)  # Ray gives the process to other tasks


def _user_error(error: BaseException) -> UserError | None:
    """The `UserError` that a task raised, from among its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            kind = StorageError if isinstance(cause, StorageError) else UserError
            return kind(str(cause).splitlines()[0] if str(cause) else str(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return None
