"""From the columns of a shard to a batch: the same values whatever way the rows came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data_pipelines.schema import Batch, Manifest
from data_pipelines.shards import MORE

#: Prefix of a column that holds a batch's field as a corruption left it, in place of the stored
#: one.
CHANGED = "changed."

#: Fields of a batch that are float as stored or become so.
_FLOATS = ("mask", "tabular", "series", "series_delta", "present")
_UNUSED = ("patient_id", "site", "split", "boxes")

#: Column name to its rows: an array (rows first), a tensor on some device, or a list.
Columns = dict[str, Any]


def wanted(names: Sequence[str], manifest: Manifest) -> list[str]:
    """Of the shards' columns, those that a batch is made of."""
    return [n for n in names if n not in _UNUSED or n in manifest.groups]


def columns_of(rows: pa.RecordBatch, manifest: Manifest) -> Columns:
    """The columns of a batch, indexable by row; tensors as views on Arrow's buffers."""
    return {name: _values(name, rows.column(name)) for name in wanted(rows.schema.names, manifest)}


def gather(chunks: Sequence[Columns], where: Sequence[tuple[int, int]]) -> Columns:
    """The rows at (chunk, row), in that order; a copy that may be written to."""
    result: Columns = {}
    for name, first in chunks[0].items():
        values = [chunks[chunk][name][row] for chunk, row in where]
        result[name] = values if isinstance(first, list) else np.stack(values)
    return result


def assemble(columns: Mapping[str, Any], manifest: Manifest) -> Batch:
    """A batch of all rows; on the device where the columns are.

    Images are stored / scale in float32, correctly rounded, so the same bits on every device.
    """
    ids = tuple(columns["sample_id"])
    fields: dict[str, Tensor] = {}
    for name in _FLOATS:
        if (value := _tensor(columns, name)) is not None:
            fields[name] = value.float()
    if (label := _tensor(columns, "label")) is not None:
        fields["label"] = label if label.ndim == 1 else label.float()
    if "series" in fields:
        observed = _tensor(columns, "series_mask")
        fields["series_mask"] = (
            (~fields["series"].isnan()).float() if observed is None else observed
        )
    more = {
        name: image
        for name in manifest.more_images
        if (image := _image(columns, MORE + name, manifest)) is not None
    }
    image = _image(columns, "image", manifest)
    if image is None:
        device = next(iter(fields.values())).device if fields else None
        image = torch.zeros((len(ids), 0), device=device)
    groups = {name: tuple(columns[name]) for name in manifest.groups}
    return Batch(sample_id=ids, image=image, more_images=more, groups=groups, **fields)


def changes(before: Batch, after: Batch) -> dict[str, Tensor]:
    """What `after` holds other than `before`, by the name of the column that it replaces."""
    names = ("image", "label", "series_mask", *_FLOATS)
    found = {n: (getattr(before, n), getattr(after, n)) for n in names}
    found |= {MORE + n: (before.more_images[n], after.more_images[n]) for n in before.more_images}
    return {name: new for name, (old, new) in found.items() if new is not None and new is not old}


def pack(stored: pa.Table, columns: Columns, changed: Mapping[str, Tensor]) -> pa.Table:
    """Rows for the object store: as stored, but for what a corruption changed.

    Args:
        stored: The columns that are no numbers (identifiers, groups), of the rows.
        columns: Arrays of the rows.
        changed: By `changes`.
    """
    arrays = {name: stored.column(name) for name in stored.column_names}
    for name, values in columns.items():
        if name not in arrays and name not in changed:
            arrays[name] = _arrow(values)
    arrays |= {CHANGED + name: _arrow(tensor.numpy()) for name, tensor in changed.items()}
    return pa.table(arrays)


def _image(columns: Mapping[str, Any], name: str, manifest: Manifest) -> Tensor | None:
    if CHANGED + name in columns or name not in columns:
        return _tensor(columns, name)
    image = torch.as_tensor(columns[name]).float()
    if manifest.image_scale == 1:
        return image
    # On a GPU, torch divides by a number as it multiplies by its inverse, which rounds otherwise;
    # by a tensor it divides.
    return image / torch.full((), manifest.image_scale, device=image.device)


def _tensor(columns: Mapping[str, Any], name: str) -> Tensor | None:
    """The column as a corruption left it, else as stored; None where there is neither."""
    values = columns.get(CHANGED + name, columns.get(name))
    return None if values is None else torch.as_tensor(values)


def _values(name: str, column: pa.Array) -> Any:
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    return column.to_numpy() if name == "label" else column.to_pylist()


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
