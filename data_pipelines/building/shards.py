"""Shards: Parquet parts per split with a manifest beside them, written whole or not at all."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trustsweep.data_pipelines.building.splits import assert_disjoint
from trustsweep.data_pipelines.errors import StorageError, UserError
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Manifest, Modality, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.tensors import described, packed, shape_of, shaped, tensor_field

#: Uncompressed. Small enough to be one Ray task, large enough not to litter a cluster file system.
PART_BYTES = 64 * 2**20
GROUP_BYTES = 16 * 2**20
#: A small split has so many parts all the same, so that several workers read at once; but parts
#: are not made smaller than so many rows.
LEAST_PARTS = 8
LEAST_ROWS = 8

#: How images are kept, and the value that stands for 1.0.
SCALES = {"uint8": 255.0, "float16": 1.0}

#: Lies in a data set on an object store while its files are being copied there.
UPLOADING = "uploading"

#: Prefix of the columns that hold `Sample.more_images`.
MORE = "image."

_BOX = pa.struct(
    [(corner, pa.float32()) for corner in ("x0", "y0", "x1", "y1")] + [("class", pa.int32())]
)


def table_schema(
    sample: Sample, groups: Sequence[str], modalities: Sequence[Modality], dtype: str
) -> pa.Schema:
    """The columns of a data set whose samples are like this one; images are kept as `dtype`."""
    fields: list[Any] = [
        (name, pa.string()) for name in ("sample_id", "patient_id", "site", "split")
    ]
    images = {"image": sample.image, **{MORE + k: v for k, v in sample.more_images.items()}}
    fields += [
        tensor_field(name, image, dtype) for name, image in images.items() if image is not None
    ]
    tensors: dict[str, Any] = {"mask": sample.mask, "tabular": sample.tabular}
    if sample.series is not None:
        tensors |= {"series": sample.series.value, "series_delta": sample.series.delta}
    if isinstance(sample.label, np.ndarray):
        tensors["label"] = sample.label
    elif sample.label is not None:
        fields.append(("label", pa.int64()))
    if sample.time is not None:
        fields += [("time", pa.float32()), ("event", pa.float32())]
    if len(modalities) > 1:
        tensors["present"] = np.ones(len(modalities), np.uint8)
    fields += [tensor_field(n, array) for n, array in tensors.items() if array is not None]
    if sample.boxes is not None:
        fields.append(("boxes", pa.list_(_BOX)))
    fields += [
        (name, pa.float32() if name == "age" else pa.string()) for name in groups if name != "site"
    ]
    return pa.schema(fields)


def record_batch(samples: Sequence[Sample], schema: pa.Schema) -> pa.RecordBatch:
    """Rows in the order of `samples`. Raises ValueError for a sample of another shape."""
    columns = []
    for field in schema:
        values = [_value(sample, field) for sample in samples]
        columns.append(
            packed(np.stack(values), field)
            if pa.types.is_fixed_size_binary(field.type)
            else pa.array(values, field.type)
        )
    return pa.record_batch(columns, schema=schema)


def write_split(
    folder: Path, split: Split, schema: pa.Schema, rows: int, take: Callable[[int, int], pa.Table]
) -> Iterator[pa.Table]:
    """Write `rows` rows below `<folder>/<split>`; `take(start, stop)` gives them.

    Yields each row group once it is written.
    """
    width = row_bytes(schema)
    per_part = min(max(1, PART_BYTES // width), max(LEAST_ROWS, -(-rows // LEAST_PARTS)))
    per_group = min(max(1, GROUP_BYTES // width), per_part)
    (folder / split).mkdir(parents=True)
    for number, start in enumerate(range(0, rows, per_part)):
        stop = min(start + per_part, rows)
        path = folder / split / f"part-{number:05d}.parquet"
        # LZ4 and no dictionary: pixels seldom repeat, and reading is the bottleneck.
        with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
            for first in range(start, stop, per_group):
                group = take(first, min(first + per_group, stop))
                writer.write_table(group, row_group_size=group.num_rows)
                yield group


@contextmanager
def building(out: Folder, scratch: Path) -> Iterator[Path]:
    """A local folder to build a data set in, for one process at a time.

    Its content outlives a killed process, so that the next one goes on; whoever uses it knows what
    of it can be trusted. `publish` takes it away. Raises `UserError` while another process builds.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{out}: another preparation is writing it. Wait for it.") from error
        yield scratch


def publish(built: Path, out: Folder, scratch: Sequence[str]) -> None:
    """Let a built folder take the place of `out`, whose content is replaced.

    A local folder is renamed, so that `out` is the old one or the new one at any moment. An object
    store knows no renaming: its old content goes first, and manifests come last, so that at no
    moment something reads as a data set that is not whole; until then `UPLOADING` marks it as ours
    to replace. What is named by `scratch` served the building and is not published.
    """
    private = {".lock", *scratch}
    if out.remote:
        files = (p.relative_to(built) for p in built.rglob("*") if p.is_file())
        names = [p.as_posix() for p in files if p.parts[0] not in private]
        (built / UPLOADING).touch()
        out.clear()
        out.upload(built, [UPLOADING, *sorted(names, key=lambda n: (n.endswith(".json"), n))])
        out.delete(UPLOADING)
        shutil.rmtree(built)
        return
    for name in private:
        path = built / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    target = out.local
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder cannot be renamed onto one that holds files.
    replaced = target.with_name(f"{target.name}.replaced-{os.getpid()}")
    if target.exists():
        target.replace(replaced)
    built.replace(target)
    shutil.rmtree(replaced, ignore_errors=True)


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of a split: its name in the data set, and the rows of each row group."""

    name: str
    rows: tuple[int, ...]


Location = str | Path | Folder


def load_manifest(location: Location) -> Manifest:
    """The manifest of a data set that is whole.

    Raises `UserError` if there is none, if a split holds other than the stated number of rows, or
    if a patient is in two splits.
    """
    folder = Folder(location)
    manifest = Manifest.load(folder)
    patients: dict[Split, list[str]] = {}
    for split in manifest.splits:
        tables = row_groups(folder, split, ["patient_id"])
        patients[split] = [p for table in tables for p in table["patient_id"].to_pylist()]
        rows, stated = len(patients[split]), manifest.split_counts[split]
        if rows != stated:
            raise UserError(
                f"{folder}: {rows} rows in the {split} split, the manifest says {stated}. "
                "Prepare it again."
            )
    assert_disjoint((patient, split) for split, theirs in patients.items() for patient in theirs)
    return manifest


def parts(location: Location, split: Split) -> list[ShardFile]:
    """The files of a split, in order. Raises `UserError` for missing or damaged ones."""
    folder = Folder(location)
    files = []
    for name in _names(folder, split):
        with opened(folder, name) as file:
            files.append(ShardFile(name, _group_rows(file)))
    return files


def row_groups(
    location: Location, split: Split, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a split, a row group at a time, arrays as Arrow's fixed-shape tensors.

    Raises `UserError` as `parts`.
    """
    folder = Folder(location)
    chosen = None if columns is None else list(columns)
    for name in _names(folder, split):
        with opened(folder, name) as file:
            for group in range(file.num_row_groups):
                yield shaped(file.read_row_group(group, columns=chosen))


def read_column(location: Location, split: Split, name: str) -> Iterator[NDArray[Any]]:
    """A column of numbers or arrays, a row group at a time: (n,) or (n, *shape), read-only.

    Raises `UserError` as `parts`.
    """
    for table in row_groups(location, split, [name]):
        column = table[name].combine_chunks()
        # Not by `to_numpy`, which loads pandas.
        if isinstance(column.type, pa.FixedShapeTensorType):
            size = math.prod(column.type.shape)
            # Nor by `flatten`, which loads Arrow's compute functions.
            values = column.storage.values.slice(column.offset * size, len(column) * size)
            yield np.from_dlpack(values).reshape(len(column), *column.type.shape)
        else:
            yield np.from_dlpack(column)


@contextmanager
def opened(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """A part, to be read as it is stored. Raises `StorageError` where that fails."""
    try:
        with pq.ParquetFile(folder.path(name), filesystem=folder.filesystem) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        away = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        if folder.remote and away:
            raise folder.unreachable(error) from error
        raise StorageError(
            f"{folder}/{name}: damaged or gone ({error}). Prepare the data again."
        ) from error


def read_table(location: Location, split: Split, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a split.

    Raises `UserError` as `load_manifest`, and for a split that the data set does not have.
    """
    known = load_manifest(location).splits
    if split not in known:
        raise UserError(f"{location}: no {split} split; it has {', '.join(known)}.")
    return pa.concat_tables(row_groups(location, split, columns))


def _names(folder: Folder, split: Split) -> list[str]:
    names = [name for name in folder.files(split) if name.endswith(".parquet")]
    if not names:
        raise StorageError(f"{folder}/{split}: the shards are missing. Prepare the data again.")
    return names


def _group_rows(file: pq.ParquetFile) -> tuple[int, ...]:
    metadata = file.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


def _value(sample: Sample, field: pa.Field) -> Any:
    name = field.name
    if name.startswith(MORE):
        return _stored(sample.more_images[name.removeprefix(MORE)], field)
    match name:
        case "image":
            assert sample.image is not None
            return _stored(sample.image, field)
        case "boxes":
            assert sample.boxes is not None
            kinds = sample.boxes.classes.tolist()
            return [
                {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "class": kind}
                for (x0, y0, x1, y1), kind in zip(sample.boxes.xyxy.tolist(), kinds, strict=True)
            ]
        case "series" | "series_delta":
            assert sample.series is not None
            return sample.series.value if name == "series" else sample.series.delta
        case "present":
            _, shape = shape_of(described(field))
            return np.array(sample.present or (True,) * shape[0], np.uint8)
    return sample.groups[name] if name in sample.groups else getattr(sample, name)


def _stored(image: NDArray[Any], field: pa.Field) -> NDArray[Any]:
    """An image in the data set's type; finer values are rounded to 8 bits for uint8."""
    wanted, _ = shape_of(described(field))
    if image.dtype == wanted:
        return image
    if wanted == np.uint8:
        return np.rint(image * SCALES["uint8"]).astype(np.uint8)
    scale = SCALES["uint8"] if image.dtype == np.uint8 else 1.0
    return (image / np.float32(scale)).astype(wanted)


def row_bytes(schema: pa.Schema) -> int:
    """Bytes of a row in memory, roughly for texts and lists."""
    fixed = pa.types.is_fixed_size_binary
    return sum(field.type.byte_width if fixed(field.type) else 32 for field in schema)
