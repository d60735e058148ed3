"""Running sums over row groups of what was measured: tables, series, grey values, masks, boxes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trustsweep.data_pipelines.inspection.columns import (
    ChannelGroup,
    array,
    image_columns,
    image_parts,
    mask_findings,
    mask_layer,
)
from trustsweep.data_pipelines.inspection.findings import (
    BoxCount,
    FeatureRange,
    Intensity,
    MaskCount,
    MaskPart,
)
from trustsweep.data_pipelines.schema import Feature, Manifest

PERCENTILES = (1, 5, 50, 95, 99)


class Features:
    """Range and coverage of a table's entries or a series' channels."""

    def __init__(self, column: str, features: tuple[Feature, ...]) -> None:
        width = len(features)
        self._column, self._features = column, features
        self._none = np.zeros(width, np.int64)
        self._observed: dict[str, NDArray[np.int64]] = {}
        self._entries: Counter[str] = Counter()
        self._samples = 0
        self._in_samples, self._infinite = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._sum = np.zeros(width)
        self._categories: list[Counter[float]] = [Counter() for _ in features]

    def add(self, split: str, table: pa.Table) -> None:
        values = array(table, self._column)
        # A table is a series of one step.
        values = values.reshape(len(values), -1, len(self._features)).astype(np.float64)
        observed = ~np.isnan(values)
        finite = np.isfinite(values)
        axes = (0, 1)
        self._samples += len(values)
        self._entries[split] += values.shape[0] * values.shape[1]
        self._observed[split] = self._observed.get(split, self._none) + observed.sum(axes)
        self._in_samples += observed.any(axis=1).sum(axis=0)
        self._infinite += (observed & ~finite).sum(axes)
        self._low = np.minimum(self._low, np.where(finite, values, np.inf).min(axes))
        self._high = np.maximum(self._high, np.where(finite, values, -np.inf).max(axes))
        self._sum += np.where(finite, values, 0).sum(axes)
        for place, feature in enumerate(self._features):
            if feature.vocabulary:
                self._categories[place].update(values[..., place][finite[..., place]].tolist())

    def findings(self) -> Iterator[FeatureRange]:
        observed = sum(self._observed.values(), self._none)
        for place, feature in enumerate(self._features):
            finite = int(observed[place] - self._infinite[place])
            ranged = finite > 0 and not feature.vocabulary
            counted = self._categories[place]
            named = {name: counted[index] for index, name in enumerate(feature.vocabulary)}
            yield FeatureRange(
                column=self._column,
                name=feature.name,
                unit=feature.unit,
                observed={s: float(n[place]) / self._entries[s] for s, n in self._observed.items()},
                in_samples=float(self._in_samples[place]) / self._samples,
                minimum=float(self._low[place]) if ranged else None,
                maximum=float(self._high[place]) if ranged else None,
                mean=float(self._sum[place]) / finite if ranged else None,
                infinite=int(self._infinite[place]),
                categories=named,
                uncategorised=counted.total() - sum(named.values()),
            )


class Intensities:
    """Grey values of each channel, in exact histograms of the stored codes."""

    def __init__(self, manifest: Manifest) -> None:
        self._scale = manifest.image_scale
        self._columns = image_columns(manifest)
        self._parts = {image: image_parts(manifest, image) for image in self._columns}
        self._histograms: dict[tuple[str, str, str], tuple[Any, int, NDArray[np.int64]]] = {}
        self.constant: Counter[str] = Counter()
        self.nan: Counter[str] = Counter()

    def add(self, split: str, table: pa.Table) -> None:
        for image, column in self._columns.items():
            values = array(table, column)
            codes = _codes(values).reshape(*values.shape[:2], -1)
            for part in self._parts[image]:
                rows = np.flatnonzero(part.present(table))
                mine = codes[rows[:, None], list(part.channels)]
                self._flaws(part, mine, values.dtype)
                for place, name in enumerate(part.channel_names()):
                    self._count((split, image, name), mine[:, place], values.dtype)

    def _flaws(self, part: ChannelGroup, codes: NDArray[Any], dtype: np.dtype[Any]) -> None:
        if not len(codes):
            return
        same = (codes == codes[..., :1]).all(axis=(1, 2))
        self.constant[part.name] += int(same.sum())
        if dtype.kind == "f":
            self.nan[part.name] += int(np.isnan(codes.view(np.float16)).any(axis=(1, 2)).sum())

    def _count(self, key: tuple[str, str, str], codes: NDArray[Any], dtype: np.dtype[Any]) -> None:
        _, images, counts = self._histograms.get(
            key, (dtype, 0, np.zeros(2 ** (8 * codes.itemsize), np.int64))
        )
        for row in codes:  # one by one, as bincount widens its input to eight bytes a pixel
            counts += np.bincount(row, minlength=len(counts))
        self._histograms[key] = (dtype, images + len(codes), counts)

    def findings(self) -> Iterator[Intensity]:
        for (split, image, channel), (dtype, images, counts) in self._histograms.items():
            codes = np.arange(
                len(counts), dtype=f"u{dtype.itemsize}" if dtype.kind == "u" else "u2"
            )
            values = (codes if dtype.kind == "u" else codes.view(np.float16)).astype(np.float64)
            occurring = (counts > 0) & np.isfinite(values)
            if not occurring.any():
                continue
            order = np.argsort(values[occurring])
            values, counts = values[occurring][order] / self._scale, counts[occurring][order]
            mean = float(np.average(values, weights=counts))
            spread = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
            yield Intensity(
                split=split,
                image=image,
                channel=channel,
                images=images,
                minimum=float(values[0]),
                maximum=float(values[-1]),
                mean=mean,
                std=spread,
                percentiles={str(p): _percentile(values, counts, p) for p in PERCENTILES},
                outside=int(counts[(values < 0) | (values > 1)].sum()),
            )


def _codes(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers that encode the stored values.

    Finer floats than the shards' own are counted at the resolution of float16.
    """
    values = np.ascontiguousarray(values)
    if values.dtype.kind == "u":
        return values
    return values.astype(np.float16, copy=False).view(np.uint16)


def _percentile(values: NDArray[Any], counts: NDArray[Any], percentage: int) -> float:
    """The smallest of the ascending `values` that the percentage does not exceed."""
    reached = np.cumsum(counts) * 100
    return float(values[np.searchsorted(reached, percentage * counts.sum())])


class MaskTally:
    """The share of foreground and of each of several findings, empty masks, those at the border."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._findings = mask_findings(manifest)
        self._sums: dict[str, NDArray[np.int64]] = {}
        #: Split to (2, K): the masks that hold each finding, and its pixels.
        self._parts: dict[str, NDArray[np.int64]] = {}

    def add(self, split: str, table: pa.Table) -> None:
        values = array(table, "mask")
        self._parts[split] = self._parts.get(split, 0) + self._count_parts(values)
        masks = np.any(values > 0, axis=1)
        filled = masks.reshape(len(masks), -1).sum(axis=1)
        sums = [
            len(masks),
            (filled == 0).sum(),
            _at_border(masks).sum(),
            filled.sum(),
            masks[0].size if len(masks) else 0,
        ]
        total = self._sums.get(split, np.zeros(len(sums), np.int64))
        pixels = max(total[-1], sums[-1])
        self._sums[split] = total + np.array(sums, np.int64)
        self._sums[split][-1] = pixels

    def findings(self) -> Iterator[MaskCount]:
        for split, (masks, empty, border, filled, pixels) in self._sums.items():
            some = masks - empty
            yield MaskCount(
                split=split,
                masks=int(masks),
                empty=int(empty),
                at_border=int(border),
                foreground=float(filled / (masks * pixels)),
                foreground_filled=float(filled / (some * pixels)) if some else None,
            )

    def parts(self) -> Iterator[MaskPart]:
        """Of masks that may hold several findings."""
        for split, counts in self._parts.items() if len(self._findings) > 1 else ():
            masks, _, _, _, pixels = self._sums[split]
            for name, holding, filled in zip(self._findings, *counts.tolist(), strict=True):
                yield MaskPart(
                    split=split,
                    name=name,
                    masks=holding,
                    share=float(filled / (masks * pixels)),
                    share_held=float(filled / (holding * pixels)) if holding else None,
                )

    def _count_parts(self, masks: NDArray[Any]) -> NDArray[np.int64]:
        counts = []
        for index in range(len(self._findings)):
            layer = mask_layer(masks, self._manifest, index).reshape(len(masks), -1)
            counts.append([layer.any(axis=1).sum(), layer.sum()])
        return np.array(counts, np.int64).T


def _at_border(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) from (N, *spatial): whether any face holds foreground; an axis of one has no faces."""
    touched = np.zeros(len(masks), dtype=bool)
    for axis in range(1, masks.ndim):
        if masks.shape[axis] > 1:
            faces = masks.take([0, -1], axis=axis)
            touched |= faces.reshape(len(masks), -1).any(axis=1)
    return touched


class BoxTally:
    """Boxes by class, and the invalid ones."""

    def __init__(self, manifest: Manifest) -> None:
        self._classes = manifest.box_classes or manifest.classes
        self._size = manifest.image_shape[-1:-3:-1]  # width, height
        self._boxes: dict[int, Counter[str]] = defaultdict(Counter)
        self._samples: Counter[int] = Counter()
        self.odd = 0

    def add(self, split: str, table: pa.Table) -> None:
        for boxes in table["boxes"].to_pylist():
            for kind in {box["class"] for box in boxes or ()}:
                self._samples[kind] += 1
            for box in boxes or ():
                self._boxes[box["class"]][split] += 1
                self.odd += not self._sound(box)

    def findings(self) -> Iterator[BoxCount]:
        for kind, splits in sorted(self._boxes.items()):
            known = 0 <= kind < len(self._classes)
            yield BoxCount(
                name=self._classes[kind] if known else f"class {kind}",
                boxes=splits.total(),
                samples=self._samples[kind],
                splits=dict(splits),
            )

    def _sound(self, box: dict[str, float]) -> bool:
        width, height = self._size
        inside = 0 <= box["x0"] < box["x1"] <= width and 0 <= box["y0"] < box["y1"] <= height
        return inside and 0 <= box["class"] < len(self._classes)
