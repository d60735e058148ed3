"""A data set from spooled samples: every split's shards, their statistics, and the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trustsweep.data_pipelines.building import splits
from trustsweep.data_pipelines.building.moments import Moments
from trustsweep.data_pipelines.building.shards import MORE, SCALES, row_bytes, write_split
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import (
    MANIFEST_NAME,
    Feature,
    FollowUp,
    ImageSpec,
    Kind,
    Manifest,
    Split,
    TaskName,
)
from trustsweep.data_pipelines.tensors import described, shape_of, unpacked

Place = tuple[int, int]

#: Intervals of the times to an event: as many, between quartiles, as in survival studies of TCGA
#: (Chen et al. 2022, arXiv 2108.02278; Hemker et al. 2024, 2311.09115).
INTERVALS = 4
#: Train patients with the event below which quartiles of their times are chance.
LEAST_EVENTS = 2 * INTERVALS


@dataclass(frozen=True)
class Dealt:
    """One sample that belongs to a data set: where it is spooled and which split it joins."""

    sample_id: str
    patient: str
    place: Place
    split: Split


def write_dataset(
    folder: Path,
    layout: Layout[Any],
    schema: pa.Schema,
    take: Callable[[Sequence[Place]], pa.Table],
    dealt: Sequence[Dealt],
    *,
    parameters: dict[str, Any],
    fingerprint: str,
) -> Manifest:
    """Write the shards and, last, the manifest.

    Rows are in random order within a split (by a hash of `sample_id`), so that a stream that
    shuffles within a window only mixes patients and classes all the same.

    Args:
        folder: Exists, and is empty.
        layout: Describes the samples.
        schema: The columns of `take`'s tables.
        take: The spooled rows at some places, in that order.
        dealt: Every sample of the data set.
        parameters, fingerprint: For the manifest.
    """
    splits.assert_disjoint((d.patient, d.split) for d in dealt)
    order = {split: _shuffled([d for d in dealt if d.split is split]) for split in Split}
    statistics, classes = _Statistics(layout, schema), _ClassCounts(layout, schema)
    for split, rows in order.items():
        if not rows:
            continue

        def taken(
            start: int, stop: int, rows: list[Dealt] = rows, split: Split = split
        ) -> pa.Table:
            table = take([d.place for d in rows[start:stop]])
            column = pa.array([str(split)] * table.num_rows)
            return table.set_column(table.schema.get_field_index("split"), "split", column)

        for group in write_split(folder, split, schema, len(rows), taken):
            classes.update(split, group)
            if split is Split.TRAIN:
                statistics.update(group)
    counts = {str(split): len(rows) for split, rows in order.items() if rows}
    manifest = Manifest(
        name=layout.name,
        tasks=layout.tasks,
        image_scale=SCALES[parameters["dtype"]],
        classes=layout.classes,
        split_counts=counts,
        stored_bytes={split: count * row_bytes(schema) for split, count in counts.items()},
        columns={field.name: described(field) for field in schema},
        fingerprint=fingerprint,
        preprocessing=parameters,
        regions=layout.regions,
        groups=layout.groups,
        box_classes=layout.box_classes,
        series_hours=layout.series_hours,
        modalities=layout.modalities,
        licence=layout.licence,
        citation=layout.citation,
        **statistics.described(),
        **classes.described(),
    )
    write_atomically(folder / MANIFEST_NAME, manifest.to_json())
    return manifest


class _Statistics:
    """Statistics of the train split for the manifest, without the values of absent modalities."""

    def __init__(self, layout: Layout[Any], schema: pa.Schema) -> None:
        self._layout = layout
        self._schema = schema
        self._images = [n for n in schema.names if n == "image" or n.startswith(MORE)]
        #: Per column and channel, as a channel may be absent on its own.
        self._channels: dict[tuple[str, int], Moments] = defaultdict(Moments)
        self._features = {name: Moments() for name in ("tabular", "series") if name in schema.names}
        #: Patient to the time and event of the longest follow-up.
        self._followed: dict[str, tuple[float, float]] = {}

    def update(self, rows: pa.Table) -> None:
        names = [*self._images, *self._features, "present"]
        values = {name: self._array(rows, name) for name in names if name in rows.schema.names}
        present = values.get("present")
        for name in self._images:
            for channel in range(values[name].shape[1]):
                there = self._there(name, channel, present)
                chosen = values[name][:, channel] if there is None else values[name][there, channel]
                self._channels[name, channel].update(chosen.reshape(-1, 1))
        for name, moments in self._features.items():
            moments.update(values[name].reshape(-1, values[name].shape[-1]))

        if "time" in rows.schema.names:
            columns = (rows[name].to_pylist() for name in ("patient_id", "time", "event"))
            for patient, time, event in zip(*columns, strict=True):
                if not math.isnan(time):
                    longest = self._followed.get(patient, (time, event))
                    self._followed[patient] = max(longest, (time, event))

    def described(self) -> dict[str, Any]:
        """The manifest's fields of shapes and statistics."""
        specs = {name: self._image(name) for name in self._images}
        main = specs.pop("image", ImageSpec(shape=(), mean=(), std=()))
        return {
            "image_shape": main.shape,
            "mean": main.mean,
            "std": main.std,
            "more_images": {name.removeprefix(MORE): spec for name, spec in specs.items()},
            "tabular": self._described("tabular", self._layout.tabular),
            "series": self._described("series", self._layout.series),
            "follow_up": self._follow_up(),
        }

    def _follow_up(self) -> FollowUp | None:
        """The intervals of the train split. Raises `UserError` for too few events to divide it."""
        if not self._layout.time_unit:
            return None
        times = np.array(list(self._followed.values()), dtype=np.float64).reshape(-1, 2)
        died = times[times[:, 1] == 1, 0]
        shares = np.arange(1, INTERVALS) / INTERVALS
        inner = np.unique(np.quantile(died, shares)) if len(died) >= LEAST_EVENTS else np.zeros(0)
        edges = (0.0, *inner.tolist(), float(times[:, 0].max(initial=0)))
        if len(inner) < len(shares) or np.any(np.diff(edges) <= 0):
            raise UserError(
                f"time and event: {len(died)} of {len(times)} train patients with a known time "
                f"have the event; {INTERVALS} intervals of equally many need {LEAST_EVENTS} at "
                "different times. Give more patients, or other ratios."
            )
        return FollowUp(unit=self._layout.time_unit, edges=edges)

    def _array(self, rows: pa.Table, name: str) -> Any:
        return unpacked(rows[name].combine_chunks(), described(self._schema.field(name)))

    def _image(self, name: str) -> ImageSpec:
        dtype, shape = shape_of(described(self._schema.field(name)))
        scale = SCALES[dtype.name]
        both = [self._channels[name, channel].compute(1) for channel in range(shape[0])]
        # At least one grey level: a constant channel must not be divided by zero.
        return ImageSpec(
            shape=shape,
            mean=tuple(float(mean[0]) / scale for mean, _ in both),
            std=tuple(max(float(std[0]) / scale, 1 / SCALES["uint8"]) for _, std in both),
        )

    def _described(self, name: str, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if name not in self._features:
            return features
        mean, std = self._features[name].compute(len(features))
        return tuple(
            feature
            if feature.vocabulary
            else dataclasses.replace(feature, mean=float(m), std=float(s) if s > 0 else 1.0)
            for feature, m, s in zip(features, mean, std, strict=True)
        )

    def _there(self, column: str, channel: int, present: Any) -> Any:
        """Which rows have this channel; None for all."""
        if present is None:
            return None
        for index, modality in enumerate(self._layout.modalities):
            mine = column.removeprefix(MORE) == modality.column and modality.kind is Kind.IMAGE
            if mine and (not modality.indices or channel in modality.indices):
                return present[:, index] == 1
        return None


class _ClassCounts:
    """Samples of each class and pixels of each class or region, per split, for the manifest."""

    def __init__(self, layout: Layout[Any], schema: pa.Schema) -> None:
        self._layout = layout
        self._schema = schema
        self._labels: dict[str, NDArray[np.int64]] = {}
        self._pixels: dict[str, NDArray[np.int64]] = {}
        self._places: Counter[str] = Counter()

    def update(self, split: Split, rows: pa.Table) -> None:
        if "label" in self._schema.names:
            counts = self._of_labels(rows["label"].combine_chunks())
            self._labels[split] = self._labels.get(split, 0) + counts
        if "mask" in self._schema.names:
            masks = unpacked(rows["mask"].combine_chunks(), described(self._schema.field("mask")))
            counts = self._of_masks(masks)
            self._pixels[split] = self._pixels.get(split, 0) + counts
            self._places[split] += masks[:, 0].size

    def described(self) -> dict[str, Any]:
        """The manifest's fields of classes."""
        return {
            "label_counts": {split: tuple(n.tolist()) for split, n in self._labels.items()},
            "mask_shares": {
                split: tuple((pixels / self._places[split]).tolist())
                for split, pixels in self._pixels.items()
            },
        }

    def _of_labels(self, column: pa.Array) -> NDArray[np.int64]:
        field = self._schema.field("label")
        if pa.types.is_fixed_size_binary(field.type):
            return (unpacked(column, described(field)) == 1).sum(axis=0)
        return np.bincount(column.to_numpy(), minlength=len(self._layout.classes))

    def _of_masks(self, masks: NDArray[np.uint8]) -> NDArray[np.int64]:
        if self._layout.regions:
            return masks.reshape(*masks.shape[:2], -1).sum(axis=(0, 2), dtype=np.int64)
        several = TaskName.MULTICLASS_SEGMENTATION in self._layout.tasks
        counts = np.zeros(len(self._layout.classes) if several else 2, np.int64)
        for mask in masks:  # one by one, as bincount widens its input to eight bytes a pixel
            counts += np.bincount(mask.ravel(), minlength=len(counts))
        return counts


def _shuffled(dealt: list[Dealt]) -> list[Dealt]:
    return sorted(dealt, key=lambda d: hashlib.blake2b(d.sample_id.encode()).digest())
