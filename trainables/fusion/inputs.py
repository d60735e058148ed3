"""From a batch to one tensor for each modality, and to what of it is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch, Kind, Manifest, Modality


def sources(manifest: Manifest) -> tuple[Modality, ...]:
    """The manifest's modalities by name, the order in which every model takes them."""
    return tuple(sorted(manifest.sources, key=lambda modality: modality.name))


def gather(batch: Batch, manifest: Manifest) -> tuple[tuple[Tensor, ...], Tensor]:
    """What each of the `sources` holds, and which of them are there.

    A modality is there where `batch.present` says so and at least one of its values is a number:
    one that is NaN throughout was never observed. Whatever the batch holds of what is not there is
    replaced by what was never observed: NaN, with a mask and hours of 0 in series.

    Returns:
        One tensor each: an image (B, C, *spatial), NaN where absent; a table (B, F), NaN where
        missing; a series (B, T, 3F), value (NaN where unobserved), mask and hours since the last
        observation. And (B, M) bool, in the same order.
    """
    values, there = [], []
    for modality in sources(manifest):
        value = _values(batch, modality)
        here = _here(value, modality, batch, manifest)
        shape = (-1, *(1,) * (value.ndim - 1))
        values.append(torch.where(here.view(shape), value, _nothing(value, modality.kind)))
        there.append(here)
    return tuple(values), torch.stack(there, dim=1)


def observed(batch: Batch, manifest: Manifest) -> Tensor:
    """(B, M) bool as the manifest lists the modalities: which of them are there; see `gather`."""
    there = [_here(_values(batch, m), m, batch, manifest) for m in manifest.sources]
    return torch.stack(there, dim=1)


def flags(batch: Batch, manifest: Manifest) -> Tensor:
    """(B, M) float, 1 where a modality was corrupted on its own; nowhere if nobody said."""
    if batch.severity is None:
        return batch.image.new_zeros(len(batch), len(manifest.sources), dtype=torch.float32)
    known = list(manifest.sources)
    order = [known.index(modality) for modality in sources(manifest)]
    return (batch.severity[:, order] > 0).to(torch.float32)


def in_manifest_order(values: Tensor, manifest: Manifest) -> Tensor:
    """(B, M) by name to (B, M) as the manifest lists the modalities."""
    ordered = sources(manifest)
    return values[:, [ordered.index(modality) for modality in manifest.sources]]


def _values(batch: Batch, modality: Modality) -> Tensor:
    if modality.kind is Kind.IMAGE:
        image = batch.image if modality.column == "image" else batch.more_images[modality.column]
        return _picked(image, modality.indices, dim=1)
    if modality.kind is Kind.TABULAR:
        return _picked(_held(batch.tabular, modality), modality.indices, dim=1)
    parts = (batch.series, batch.series_mask, batch.series_delta)
    return torch.cat([_picked(_held(p, modality), modality.indices, dim=2) for p in parts], dim=2)


def _here(value: Tensor, modality: Modality, batch: Batch, manifest: Manifest) -> Tensor:
    """(B,) bool: whether the modality, whose `_values` are given, is there."""
    numbers = value.chunk(3, dim=2)[0] if modality.kind is Kind.SERIES else value
    here = numbers.isfinite().flatten(1).any(dim=1)
    if batch.present is not None and manifest.modalities:
        here = here & (batch.present[:, list(manifest.sources).index(modality)] > 0)
    return here


def _nothing(value: Tensor, kind: Kind) -> Tensor:
    """One sample, (1, ...), of a modality that is absent."""
    if kind is not Kind.SERIES:
        return torch.full_like(value[:1], torch.nan)
    blank = torch.zeros_like(value[:1])
    blank[..., : value.shape[-1] // 3] = torch.nan
    return blank


def _picked(values: Tensor, indices: Sequence[int], dim: int) -> Tensor:
    if not indices:
        return values
    return values.index_select(dim, torch.tensor(indices, device=values.device))


def _held(values: Tensor | None, modality: Modality) -> Tensor:
    if values is None:
        raise ValueError(f"the batch lacks {modality.column!r}, which {modality.name!r} is made of")
    return values
