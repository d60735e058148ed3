"""One modality as if it were all the data: what corrupts a sample then corrupts that alone.

A modality may be some channels of an image or some features of a table, beside others in the same
column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import IMAGE
from trustsweep.data_pipelines.schema import Batch, ImageSpec, Kind, Manifest, Modality

_FIELDS = {Kind.SERIES: ("series", "series_mask", "series_delta"), Kind.TABULAR: ("tabular",)}


def alone(
    batch: Batch,
    modality: Modality,
    manifest: Manifest,
    corrupt: Callable[[Batch, Manifest], Batch],
) -> tuple[Batch, Tensor]:
    """Corrupt a modality and nothing else.

    Args:
        batch: Left as it is.
        modality: One of `manifest.sources`.
        manifest: Of the batch's data set.
        corrupt: Corrupts a batch, given the manifest of this modality alone.

    Returns:
        The batch with that, and (B,) bool, whether anything of a sample changed.
    """
    axis = 1 if modality.kind is Kind.IMAGE else -1
    columns = _values(batch, modality)
    index = torch.tensor(modality.indices, dtype=torch.long, device=batch.image.device)
    before = {n: v.index_select(axis, index) if len(index) else v for n, v in columns.items()}
    changed = torch.zeros(len(batch), dtype=torch.bool, device=batch.image.device)
    corrupted = corrupt(_batch_of(batch, modality, before), manifest_of(modality, manifest))
    after = _values(corrupted, modality)
    for name, values in after.items():
        changed |= _differs(before[name], values)
        if len(index):
            after[name] = columns[name].index_copy(axis, index, values)
    more = {name: after.pop(name, image) for name, image in batch.more_images.items()}
    fields: dict[str, Any] = {**after, "more_images": more}
    return dataclasses.replace(batch, **fields), changed


def manifest_of(modality: Modality, manifest: Manifest) -> Manifest:
    """The manifest of data that hold this modality alone."""

    def own(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[i] for i in modality.indices) if modality.indices else tuple(values)

    held: dict[str, Any] = dict.fromkeys(
        ("image_shape", "mean", "std", "series", "tabular", "modalities"), ()
    )
    held["more_images"] = {}
    if modality.kind is not Kind.IMAGE:
        held[modality.column] = own(getattr(manifest, modality.column))
    elif modality.column == IMAGE:
        mean, std = own(manifest.mean), own(manifest.std)
        held |= {"image_shape": (len(mean), *manifest.image_shape[1:]), "mean": mean, "std": std}
    else:
        spec = manifest.more_images[modality.column]
        mean, std = own(spec.mean), own(spec.std)
        spec = ImageSpec(shape=(len(mean), *spec.shape[1:]), mean=mean, std=std)
        held["more_images"] = {modality.column: spec}
    return dataclasses.replace(manifest, **held)


def _values(batch: Batch, modality: Modality) -> dict[str, Tensor]:
    """The columns that hold the modality, by name; none where the batch has none."""
    images = {IMAGE: batch.image, **batch.more_images}
    if modality.kind is Kind.IMAGE:
        columns = {modality.column: images.get(modality.column)}
    else:
        columns = {name: getattr(batch, name) for name in _FIELDS[modality.kind]}
    return {name: v for name, v in columns.items() if v is not None and v.numel()}


def _batch_of(batch: Batch, modality: Modality, values: dict[str, Tensor]) -> Batch:
    """The same samples, with these columns alone."""
    further = modality.kind is Kind.IMAGE and modality.column != IMAGE
    fields: dict[str, Any] = {"image": batch.image.new_zeros(len(batch), 0)}
    fields |= {"more_images": values} if further else values
    return Batch(sample_id=batch.sample_id, **fields)


def _differs(before: Tensor, after: Tensor) -> Tensor:
    """(B,) bool; a missing value is no change from a missing value."""
    both_missing = before.isnan() & after.isnan()
    return ((before != after) & ~both_missing).flatten(1).any(dim=1)
