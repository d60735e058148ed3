"""Shards: Parquet parts per split with a manifest beside them, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipelines.errors import UserError
from data_pipelines.sample import Sample
from data_pipelines.schema import MANIFEST_NAME, Manifest, Split
from data_pipelines.splits import assert_disjoint

#: Uncompressed. Small enough to be one Ray task, large enough not to litter a cluster file system.
PART_BYTES = 64 * 2**20
GROUP_BYTES = 16 * 2**20
#: From this many rows on a split has several row groups, so that several workers read at once.
LEAST_FOR_GROUPS = 32

IMAGE_SCALE = 255.0

_BOX = pa.struct(
    [(corner, pa.float32()) for corner in ("x0", "y0", "x1", "y1")] + [("class", pa.int32())]
)


def table_schema(sample: Sample) -> pa.Schema:
    """The columns of a data set whose samples are like this one."""
    fields = [(name, pa.string()) for name in ("sample_id", "patient_id", "site", "split")]
    for name in ("image", "mask", "tabular"):
        if (array := getattr(sample, name)) is not None:
            dtype = pa.from_numpy_dtype(array.dtype)
            fields.append((name, pa.fixed_shape_tensor(dtype, array.shape)))
    optional = {
        "label": pa.int64(),
        "boxes": pa.list_(_BOX),
        "sex": pa.string(),
        "age": pa.float32(),
    }
    fields += [(n, kind) for n, kind in optional.items() if getattr(sample, n) is not None]
    return pa.schema(fields)


def record_batch(samples: Sequence[Sample], schema: pa.Schema) -> pa.RecordBatch:
    """Rows in the order of `samples`. Raises ValueError for a sample of another shape."""
    columns = []
    for field in schema:
        values = [_value(sample, field.name) for sample in samples]
        if isinstance(field.type, pa.FixedShapeTensorType):
            columns.append(_tensors(values, field))
        else:
            columns.append(pa.array(values, field.type))
    return pa.record_batch(columns, schema=schema)


class SplitWriter:
    """Writes one split's parts below `<folder>/<split>`, `rows` rows in all."""

    def __init__(self, folder: Path, split: Split, schema: pa.Schema, rows: int) -> None:
        self._folder = folder / split
        self._folder.mkdir()
        self._schema = schema
        row_bytes = sum(_width(field.type) for field in schema)
        self._rows_per_part = max(1, PART_BYTES // row_bytes)
        self._rows_per_group = max(1, GROUP_BYTES // row_bytes)
        if rows >= LEAST_FOR_GROUPS:
            self._rows_per_group = min(self._rows_per_group, -(-rows // 4))
        self._parts = 0
        self._in_part = 0
        self._held: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows in; a row group is written whenever one is full."""
        self._held.append(rows)
        table = pa.Table.from_batches(self._held)
        while table.num_rows >= self._rows_per_group:
            self._write(table.slice(0, self._rows_per_group))
            table = table.slice(self._rows_per_group)
        self._held = table.to_batches()

    def close(self) -> None:
        """Write what is left."""
        table = pa.Table.from_batches(self._held, schema=self._schema)
        if table.num_rows:
            self._write(table)
        self._end_part()

    def _write(self, group: pa.Table) -> None:
        if self._in_part and self._in_part + group.num_rows > self._rows_per_part:
            self._end_part()
        if self._writer is None:
            path = self._folder / f"part-{self._parts:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._parts += 1
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._in_part += group.num_rows

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_part = None, 0


class ChannelStatistics:
    """Mean and standard deviation per channel of uint8 images, in one pass and exactly."""

    def __init__(self) -> None:
        self._pixels = 0
        self._sum: Any = 0
        self._squares: Any = 0

    def update(self, images: NDArray[np.uint8]) -> None:
        """Take in (N, C, *spatial)."""
        values = images.swapaxes(0, 1).reshape(images.shape[1], -1).astype(np.int64)
        self._pixels += values.shape[1]
        self._sum = self._sum + values.sum(axis=1)
        self._squares = self._squares + (values**2).sum(axis=1)

    def compute(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation on the [0, 1] scale.

        The deviation is at least one grey level: a constant channel must not be divided by zero.
        """
        mean = self._sum / self._pixels
        std = np.sqrt(np.maximum(self._squares / self._pixels - mean**2, 1.0))
        return tuple((mean / IMAGE_SCALE).tolist()), tuple((std / IMAGE_SCALE).tolist())


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to write into, which takes `out`'s place once the block ends without an error.

    What a killed process leaves lies beside `out` under another name and never reads as a data set.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    replaced = out.with_name(f"{out.name}.replaced-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        # A folder cannot be renamed onto one that holds files.
        if out.exists():
            out.replace(replaced)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of a data set: without it nothing reads as one."""
    with (folder / MANIFEST_NAME).open("w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a data set that is whole.

    Raises `UserError` if there is none, if a split holds other than the stated number of rows, or
    if a patient is in two splits.
    """
    manifest = Manifest.load(folder)
    patients = {}
    for split in _splits(manifest):
        patients[split] = _read(folder, split, ["patient_id"])["patient_id"].to_pylist()
        found, stated = len(patients[split]), manifest.split_counts[split]
        if found != stated:
            raise UserError(
                f"{folder}: {found} rows in the {split} split, the manifest says {stated}. "
                "Prepare it again."
            )
    assert_disjoint((patient, split) for split, theirs in patients.items() for patient in theirs)
    return manifest


def read_table(folder: Path, split: Split) -> pa.Table:
    """All rows of a split.

    Raises `UserError` as `load_manifest`, and for a split that the data set does not have.
    """
    known = _splits(load_manifest(folder))
    if split not in known:
        raise UserError(f"{folder}: no {split} split; it has {', '.join(known)}.")
    return _read(folder, split, None)


def _splits(manifest: Manifest) -> list[Split]:
    return [split for split in Split if split in manifest.split_counts]


def _read(folder: Path, split: Split, columns: list[str] | None) -> pa.Table:
    parts = sorted((folder / split).glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{folder / split}: the shards are missing. Prepare the data again.")
    tables = []
    for part in parts:
        try:
            tables.append(pq.read_table(part, columns=columns, partitioning=None))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{part}: damaged ({error}). Prepare the data again.") from error
    return pa.concat_tables(tables)


def _value(sample: Sample, name: str) -> Any:
    if name != "boxes":
        return getattr(sample, name)
    assert sample.boxes is not None
    return [
        {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "class": kind}
        for (x0, y0, x1, y1), kind in zip(
            sample.boxes.xyxy.tolist(), sample.boxes.classes.tolist(), strict=True
        )
    ]


def _tensors(values: list[Any], field: pa.Field) -> pa.ExtensionArray:
    stacked = np.stack(values)
    if stacked.shape[1:] != tuple(field.type.shape):
        raise ValueError(f"{field.name} of shape {stacked.shape[1:]}, not {field.type.shape}")
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(stacked))


def _width(kind: pa.DataType) -> int:
    """Bytes of a value in memory, roughly for texts and lists."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return int(np.prod(kind.shape)) * kind.value_type.byte_width
    return 32
