"""From the columns of a shard to a batch: the same values whatever way the rows came."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trustsweep.data_pipelines.building.shards import MORE
from trustsweep.data_pipelines.schema import CHANGEABLE, IMPLIED, Batch, FollowUp, Manifest
from trustsweep.data_pipelines.tensors import unpacked

#: Prefix of a column of a field's rows as a corruption left them: the bytes of float32, null where
#: it left them alone.
CHANGED = "changed."

#: Fields of a batch that are float as stored or become so.
_FLOATS = ("mask", "tabular", "series", "series_delta", "present", "time", "event")
#: Columns of one number.
_NUMBERS = ("label", "time", "event")
_UNUSED = ("patient_id", "site", "split", "boxes")

#: Column name to its rows: an array (rows first), a tensor on some device, or a list.
Columns = dict[str, Any]


def wanted(names: Sequence[str], manifest: Manifest) -> list[str]:
    """Of the shards' columns, those that a batch is made of."""
    return [n for n in names if n not in _UNUSED or n in manifest.groups]


def columns_of(rows: pa.RecordBatch, manifest: Manifest) -> Columns:
    """The columns of a batch, indexable by row; tensors as views on Arrow's buffers."""
    return {
        name: _values(name, rows.column(name), manifest)
        for name in wanted(rows.schema.names, manifest)
    }


def gather(chunks: Sequence[Columns], where: Sequence[tuple[int, int]]) -> Columns:
    """The rows at (chunk, row), in that order; a copy that may be written to."""
    result: Columns = {}
    for name, first in chunks[0].items():
        values = [chunks[chunk][name][row] for chunk, row in where]
        result[name] = values if isinstance(first, list) else np.stack(values)
    return result


class Cutter:
    """Cuts pieces of columns, as they come, into any number of rows at a time."""

    def __init__(self, pieces: Iterator[Columns]) -> None:
        self._pieces = pieces
        self._piece: Columns = {"sample_id": []}
        self._used = 0

    def take(self, count: int) -> Columns:
        """The next `count` rows. Raises StopIteration where the pieces hold fewer."""
        chunks: list[Columns] = []
        where: list[tuple[int, int]] = []
        while len(where) < count:
            left = len(self._piece["sample_id"]) - self._used
            if not left:
                self._piece, self._used = next(self._pieces), 0
                continue
            rows = range(self._used, self._used + min(left, count - len(where)))
            where += [(len(chunks), row) for row in rows]
            chunks.append(self._piece)
            self._used = rows.stop
        return gather(chunks, where)


def assemble(columns: Mapping[str, Any], manifest: Manifest) -> Batch:
    """A batch of all rows; on the device where the columns are.

    Images are stored / scale in float32, correctly rounded, so the same bits on every device.
    """
    fields = {name: _tensor(columns[name]).float() for name in _FLOATS if name in columns}
    if "label" in columns:
        label = _tensor(columns["label"])
        fields["label"] = label if label.ndim == 1 else label.float()
    if "time" in fields and manifest.follow_up is not None:
        fields["interval"] = interval_of(fields["time"], manifest.follow_up)
    if "series" in fields:
        fields["series_mask"] = (~fields["series"].isnan()).float()
    more = {name: _image(columns[MORE + name], manifest) for name in manifest.more_images}
    if "image" in columns:
        fields["image"] = _image(columns["image"], manifest)
    else:
        device = next(iter(fields.values())).device if fields else None
        fields["image"] = torch.zeros((len(columns["sample_id"]), 0), device=device)
    batch = Batch(
        sample_id=tuple(columns["sample_id"]),
        more_images=more,
        groups={name: tuple(columns[name]) for name in manifest.groups},
        **fields,
    )
    return _overwritten(batch, columns)


def interval_of(time: Tensor, follow_up: FollowUp) -> Tensor:
    """(B,) times to the index of the interval that each is in, float; NaN where unknown."""
    inner = torch.tensor(follow_up.edges[1:-1], dtype=torch.float64, device=time.device)
    place = torch.bucketize(time.double(), inner, right=True)
    return place.to(time).masked_fill(time.isnan(), torch.nan)


def pack(stored: pa.Table, before: Batch, after: Batch) -> pa.Table:
    """Rows for the object store: as stored, and what a corruption changed of them.

    Uncorrupted rows so take a quarter of their float32. Which columns there are depends on the
    data set alone, as Ray Data may join rows of several calls.
    """
    arrays = dict(zip(stored.column_names, stored.columns, strict=True))
    for name in CHANGEABLE:
        old, new = getattr(before, name), getattr(after, name)
        arrays[CHANGED + name] = _changed_rows(old, new, len(before))
    for name, old in before.more_images.items():
        arrays[CHANGED + MORE + name] = _changed_rows(old, after.more_images[name], len(before))
    return pa.table(arrays)


def _changed_rows(old: Tensor | None, new: Tensor | None, count: int) -> pa.Array:
    rows: list[bytes | None] = [None] * count
    if new is not None and new is not old:
        for row in range(count) if old is None else _differing(old, new):
            rows[row] = new[row].numpy().tobytes()
    return pa.array(rows, pa.large_binary())


def _differing(old: Tensor, new: Tensor) -> list[int]:
    """Rows of other bits, as a missing value is not equal to itself."""
    bits = [t.contiguous().view(torch.int32).flatten(1) for t in (old, new)]
    rows: list[int] = (bits[0] != bits[1]).any(dim=1).nonzero()[:, 0].tolist()
    return rows


def _overwritten(batch: Batch, columns: Mapping[str, Any]) -> Batch:
    """The batch with the rows that a corruption changed."""
    fields: dict[str, Any] = {}
    for name in (*CHANGEABLE, *(MORE + name for name in batch.more_images)):
        changed = columns.get(CHANGED + name, ())
        rows = [row for row, value in enumerate(changed) if value is not None]
        if not rows:
            continue
        more = name.removeprefix(MORE)
        whole = getattr(batch, name) if name == more else batch.more_images[more]
        if whole is None:
            width = len(np.frombuffer(changed[rows[0]], np.float32))
            whole = fields[name] = torch.full((len(batch), width), IMPLIED[name])
        for row in rows:
            new = torch.from_numpy(np.frombuffer(changed[row], np.float32).copy())
            whole[row] = new.view(whole.shape[1:])
    return dataclasses.replace(batch, **fields)


def _image(stored: Any, manifest: Manifest) -> Tensor:
    image = _tensor(stored).float()
    if manifest.image_scale == 1:
        return image
    # On a GPU, torch divides by a number as it multiplies by its inverse, which rounds otherwise;
    # by a tensor it divides.
    return image / torch.full((), manifest.image_scale, device=image.device)


def _tensor(values: Any) -> Tensor:
    """A tensor as it is, an array as one; a copy of what may not be written (shared memory)."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _values(name: str, column: pa.Array, manifest: Manifest) -> Any:
    if pa.types.is_fixed_size_binary(column.type):  # as the shards keep arrays
        return unpacked(column, manifest.columns[name])
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    if pa.types.is_large_binary(column.type):
        return [value.as_buffer() for value in column]
    return column.to_numpy() if name in _NUMBERS else column.to_pylist()
