"""The samples that represent a data set in its pictures, and their values."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trustsweep.data_pipelines.building.shards import opened, parts, row_groups
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.columns import array, held, image_columns, mask_classes
from trustsweep.data_pipelines.inspection.counted import EVENTS, SOURCES
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.tensors import shaped

#: Class names in a heading; the rest are counted.
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class SampleValues:
    """The values of one sample. What the data do not offer is None or empty.

    Attributes:
        images: Image, as `Modality.column` names it, to (C, *spatial) float32 in [0, 1].
        mask: (1 or R, *spatial), of the main image.
        boxes: Of the main image, as the shards keep them.
        tabular, series: (F,) and (T, F) float32, NaN where missing.
        present: (M,) of the manifest's modalities.
    """

    images: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    mask: NDArray[Any] | None = None
    boxes: tuple[dict[str, Any], ...] = ()
    tabular: NDArray[np.float32] | None = None
    series: NDArray[np.float32] | None = None
    present: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample to show. `sample_id` seeds its draws and is never shown."""

    sample_id: str
    split: str
    site: str
    label: str
    case: SampleValues


@dataclass(frozen=True)
class _Place:
    """Where a candidate lies: row `row` of the row group `group`, counted over the split's parts.

    `rank` is the hash of the sample's identifier, so that the choice is the same every time.
    """

    rank: bytes
    split: str
    site: str
    label: int
    boxed: bool
    group: int
    row: int


def choose(location: Folder, manifest: Manifest, count: int) -> list[Example]:
    """Up to `count` samples that show as many labels, sites and splits as so few can.

    One after the other, each the sample whose label was shown least; among equals, whether it has
    boxes, its site and its split decide in the same way, then the smallest hash of the identifier.
    Raises `UserError` as `row_groups`.
    """
    left = _candidates(location, manifest, count)
    shown: Counter[tuple[str, object]] = Counter()
    chosen: list[_Place] = []
    while left and len(chosen) < count:
        best = min(
            left,
            key=lambda p: (
                shown["label", p.label],
                shown["boxed", p.boxed],
                shown["site", p.site],
                shown["split", p.split],
                p.rank,
            ),
        )
        left.remove(best)
        chosen.append(best)
        shown.update((name, getattr(best, name)) for name in ("label", "boxed", "site", "split"))
    return [_example(location, manifest, place) for place in chosen]


def _candidates(location: Folder, manifest: Manifest, count: int) -> list[_Place]:
    """The `count` first by hash of those alike in split, site, label and having boxes."""
    label = next((name for name in SOURCES if name in manifest.columns), None)
    boxes = "boxes" in manifest.columns
    columns = ["sample_id", "site", *([label] if label else []), *(["boxes"] if boxes else [])]
    best: dict[tuple[str, str, int, bool], list[_Place]] = defaultdict(list)
    for split in manifest.splits:
        for group, table in enumerate(row_groups(location, split, columns)):
            ranks = [
                hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
                for sample_id in table["sample_id"].to_pylist()
            ]
            labels = _strata(table, label, ranks, manifest)
            for row, site in enumerate(table["site"].to_pylist()):
                boxed = boxes and bool(table["boxes"][row].as_py())
                place = _Place(ranks[row], str(split), str(site), labels[row], boxed, group, row)
                kept = best[place.split, place.site, place.label, boxed]
                kept.append(place)
                kept.sort(key=lambda p: p.rank)
                del kept[count:]
    return [place for places in best.values() for place in places]


def _strata(
    table: pa.Table, label: str | None, ranks: list[bytes], manifest: Manifest
) -> list[int]:
    """What samples are chosen by: the class, one of several classes, or whether a mask is filled.

    Of several positive classes the hash picks one, so that rare classes come beside common ones.
    """
    if label is None:
        return [0] * table.num_rows
    if not isinstance(table.schema.field(label).type, pa.FixedShapeTensorType):
        values = table[label].to_pylist()
        return [-1 if value is None or math.isnan(value) else int(value) for value in values]
    arrays = array(table, label)
    if label == "mask":
        arrays = held(arrays, manifest)
    positive = [np.flatnonzero(row == 1) for row in arrays]
    return [
        int(classes[rank[0] % len(classes)]) if len(classes) else -1
        for classes, rank in zip(positive, ranks, strict=True)
    ]


def _example(location: Folder, manifest: Manifest, place: _Place) -> Example:
    table = _row_group(location, place.split, place.group).slice(place.row, 1)
    names = set(table.schema.names)

    def values(name: str) -> Any:
        return array(table, name)[0] if name in names else None

    present = values("present")
    if present is None:
        present = np.ones(len(manifest.modalities))
    return Example(
        sample_id=table["sample_id"][0].as_py(),
        split=place.split,
        site=place.site,
        label=_label(table, manifest),
        case=SampleValues(
            images={
                image: values(column).astype(np.float32) / manifest.image_scale
                for image, column in image_columns(manifest).items()
            },
            mask=values("mask"),
            boxes=tuple(table["boxes"][0].as_py() or ()) if "boxes" in names else (),
            tabular=values("tabular"),
            series=values("series"),
            present=present.astype(bool),
        ),
    )


def _label(table: pa.Table, manifest: Manifest) -> str:
    """The sample's class or classes in words; "" for data without labels and masks."""
    if "label" not in table.schema.names and manifest.follow_up is not None:
        return follow_up_text(table["time"][0].as_py(), table["event"][0].as_py(), manifest)
    if "label" not in table.schema.names:
        return _held_in_words(table, manifest) if "mask" in table.schema.names else ""
    if not isinstance(table.schema.field("label").type, pa.FixedShapeTensorType):
        index = table["label"][0].as_py()
        known = index is not None and 0 <= index < len(manifest.classes)
        return manifest.classes[index] if known else "no label"
    values = array(table, "label")[0]
    names = [manifest.classes[index] for index in np.flatnonzero(values == 1)]
    if not names:
        return "label unknown" if np.isnan(values).all() else "none of the classes"
    return _first_of(names)


def _held_in_words(table: pa.Table, manifest: Manifest) -> str:
    classes, found = mask_classes(manifest), held(array(table, "mask"), manifest)[0]
    if len(found) == 1:
        return classes[int(found[0])]
    return _first_of([classes[index] for index in np.flatnonzero(found)]) or "empty mask"


def _first_of(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def follow_up_text(time: float, event: float, manifest: Manifest) -> str:
    """A time to an event in words: "event at 310 days", "censored at 310 days"."""
    if math.isnan(time) or manifest.follow_up is None:
        return "time unknown"
    return f"{EVENTS[int(event)]} at {time:.4g} {manifest.follow_up.unit}"


def _row_group(location: Folder, split: str, group: int) -> pa.Table:
    for part in parts(location, Split(split)):
        if group < len(part.rows):
            with opened(location, part.name) as file:
                return shaped(file.read_row_group(group))
        group -= len(part.rows)
    raise UserError(f"{location}/{split}: changed while it was read. Try again.")
