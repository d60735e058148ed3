"""Columns of the shards as arrays, and which modality each channel belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trustsweep.data_pipelines.building.shards import MORE
from trustsweep.data_pipelines.schema import Kind, Manifest

IMAGE = "image"


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of an image that come and go together: a modality's, or all of the image.

    `place` is the modality's in the `present` column, None for channels of no modality.
    """

    name: str
    channels: tuple[int, ...]
    place: int | None

    def present(self, table: pa.Table) -> NDArray[np.bool_]:
        """(N,); True throughout where nothing is ever absent."""
        if self.place is None or "present" not in table.schema.names:
            return np.ones(table.num_rows, dtype=bool)
        return array(table, "present")[:, self.place].astype(bool)

    def channel_names(self) -> tuple[str, ...]:
        """The part's name where it has one channel, else with the channel's index behind."""
        if len(self.channels) == 1:
            return (self.name,)
        return tuple(f"{self.name} {channel}" for channel in self.channels)


def array(table: pa.Table, name: str) -> NDArray[Any]:
    """A tensor column as (N, *shape)."""
    return table[name].combine_chunks().to_numpy_ndarray()


def mask_findings(manifest: Manifest) -> tuple[str, ...]:
    """What a mask may hold: its regions, or its classes without the background."""
    return manifest.regions or manifest.mask_names[1:]


def mask_layer(masks: NDArray[Any], manifest: Manifest, index: int) -> NDArray[np.bool_]:
    """(N, *spatial) of (N, L, *spatial): where the finding of that index is."""
    if manifest.regions:
        return np.asarray(masks[:, index] > 0)
    if len(mask_findings(manifest)) == 1:
        return np.asarray(masks[:, 0] > 0)
    return np.asarray(masks[:, 0] == index + 1)


def held(masks: NDArray[Any], manifest: Manifest) -> NDArray[np.bool_]:
    """(N, K): which of `mask_findings` each mask holds."""
    layers = (mask_layer(masks, manifest, k) for k in range(len(mask_findings(manifest))))
    return np.stack([layer.reshape(len(masks), -1).any(axis=1) for layer in layers], axis=1)


def mask_classes(manifest: Manifest) -> tuple[str, ...]:
    """What data with masks alone are divided into: what a mask may hold, or else not."""
    findings = mask_findings(manifest)
    return findings if len(findings) > 1 else (f"no {findings[0]}", findings[0])


def image_columns(manifest: Manifest) -> dict[str, str]:
    """Image, as `Modality.column` names it, to its column of the shards; the main image first."""
    main = {IMAGE: IMAGE} if manifest.image_shape else {}
    return main | {name: MORE + name for name in manifest.more_images}


def image_shape(manifest: Manifest, image: str) -> tuple[int, ...]:
    """(C, *spatial)."""
    return manifest.image_shape if image == IMAGE else manifest.more_images[image].shape


def image_parts(manifest: Manifest, image: str) -> list[ChannelGroup]:
    """The parts of an image in the order of channels; each channel is in exactly one."""
    free = list(range(image_shape(manifest, image)[0]))
    parts = []
    for place, modality in enumerate(manifest.modalities):
        if modality.kind is not Kind.IMAGE or modality.column != image:
            continue
        channels = tuple(c for c in free if not modality.indices or c in modality.indices)
        free = [c for c in free if c not in channels]
        if channels:
            parts.append(ChannelGroup(modality.name, channels, place))
    if free:
        parts.append(ChannelGroup(image, tuple(free), None))
    return sorted(parts, key=lambda part: part.channels)
