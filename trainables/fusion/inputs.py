"""One tensor for each modality of a batch, and which modalities are present."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch, Kind, Manifest, Modality


def sources(manifest: Manifest) -> tuple[Modality, ...]:
    """The manifest's modalities by name, the order in which every model takes them."""
    return tuple(sorted(manifest.sources, key=lambda modality: modality.name))


def gather(batch: Batch, manifest: Manifest) -> tuple[tuple[Tensor, ...], Tensor]:
    """The values of each of the `sources`, and which of them are present.

    A modality is present where `batch.present` is above 0 and at least one of its values is finite:
    one that is NaN throughout was never observed. The values of an absent modality are replaced by
    NaN, with a mask and hours of 0 in series.

    Returns:
        One tensor each: an image (B, C, *spatial), NaN where absent; a table (B, F), NaN where
        missing; a series (B, T, 3F), value (NaN where unobserved), mask and hours since the last
        observation. And (B, M) bool, in the same order.
    """
    values, masks = [], []
    for modality in sources(manifest):
        value = _values(batch, modality)
        mask = _is_present(value, modality, batch, manifest)
        shape = (-1, *(1,) * (value.ndim - 1))
        values.append(torch.where(mask.view(shape), value, _nothing(value, modality.kind)))
        masks.append(mask)
    return tuple(values), torch.stack(masks, dim=1)


def observed(batch: Batch, manifest: Manifest) -> Tensor:
    """(B, M) bool, whether each modality is present, in the order of the manifest; see `gather`."""
    masks = [_is_present(_values(batch, m), m, batch, manifest) for m in manifest.sources]
    return torch.stack(masks, dim=1)


def flags(batch: Batch, manifest: Manifest) -> Tensor:
    """(B, M) float, 1 where a modality was corrupted on its own; 0 without `batch.severity`."""
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


def _is_present(value: Tensor, modality: Modality, batch: Batch, manifest: Manifest) -> Tensor:
    """(B,) bool: whether the modality with these `_values` is present."""
    numbers = value.chunk(3, dim=2)[0] if modality.kind is Kind.SERIES else value
    present = numbers.isfinite().flatten(1).any(dim=1)
    if batch.present is not None and manifest.modalities:
        present = present & (batch.present[:, list(manifest.sources).index(modality)] > 0)
    return present


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
