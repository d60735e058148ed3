"""The rules that samples of every layout must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Kind, Modality, TaskName

EMPTY_MASK = "masks are all background; kept"
CONSTANT = "images are constant (one value everywhere); kept"


class Validator:
    """Checks samples against the layout's description and against the first of them.

    Args:
        layout: Says what classes, features and modalities there are.
        first: The sample whose fields and shapes the others must share.
    """

    def __init__(self, layout: Layout[Any], first: Sample) -> None:
        self._layout = layout
        self._shapes = _shapes(first)

    def notes(self, sample: Sample) -> tuple[str, ...]:
        """Notes on a sample that is unusual but usable. Raises `BadFile` for one that is not."""
        try:
            self._check(sample)
        except ValueError as problem:
            raise BadFile(sample.source or Path(sample.sample_id), str(problem)) from None
        notes = []
        if sample.mask is not None and not sample.mask.any():
            notes.append(EMPTY_MASK)
        if any(
            is_constant(image)
            for name, image in images(sample).items()
            if self._there(sample, name)
        ):
            notes.append(CONSTANT)
        return (*sample.notes, *notes)

    def _check(self, sample: Sample) -> None:
        shapes = _shapes(sample)
        for name in sorted({*shapes, *self._shapes}):
            mine, others = shapes.get(name), self._shapes.get(name)
            if mine != others:
                raise ValueError(
                    f"{name} is {_shape_text(mine)}, in the other samples {_shape_text(others)}. "
                    "Take it away, or bring all to one form."
                )
        for name, image in images(sample).items():
            _check_image(name, image)
        self._check_mask(sample)
        self._check_label(sample)
        self._check_follow_up(sample)
        self._check_boxes(sample)
        self._check_numbers(sample)
        self._check_presence(sample)
        if {"site", *sample.groups} != {"site", *self._layout.groups}:
            raise ValueError(f"groups {sorted(sample.groups)}, not {sorted(self._layout.groups)}")

    def _check_mask(self, sample: Sample) -> None:
        if sample.mask is None:
            return
        layers = len(self._layout.regions) or 1
        if sample.image is None or sample.mask.shape != (layers, *sample.image.shape[1:]):
            raise ValueError(f"a mask of {_shape_text(sample.mask.shape)} beside the image")
        several = TaskName.MULTICLASS_SEGMENTATION in self._layout.tasks
        values = len(self._layout.classes) if several else 2
        if (highest := int(sample.mask.max(initial=0))) >= values:
            raise ValueError(
                f"a mask holds 0 to {values - 1} ({', '.join(self._layout.classes)}), this one "
                f"{highest} as well. Correct it, or take it away."
                if several
                else f"a mask holds 0 and 1, this one {highest} as well"
            )

    def _check_label(self, sample: Sample) -> None:
        classes, label = self._layout.classes, sample.label
        if isinstance(label, np.ndarray):
            if not np.isin(label[~np.isnan(label)], (0, 1)).all():
                raise ValueError("labels are 0, 1 or unknown (NaN), these are not")
        elif label is not None and not 0 <= label < len(classes):
            raise ValueError(f"label {label}, but there are {len(classes)} classes, from 0")

    def _check_follow_up(self, sample: Sample) -> None:
        time, event = sample.time, sample.event
        if time is None or event is None:
            if time is not event:
                raise ValueError("a time without an event, or an event without a time")
            return
        if np.isnan(time) != np.isnan(event):
            raise ValueError("time and event are both known or both unknown (NaN)")
        if np.isnan(time):
            return
        if not (np.isfinite(time) and time >= 0):
            raise ValueError(f"a time of {time:g}; it is finite and not below 0")
        if event not in (0, 1):
            raise ValueError(f"an event is 0 (censored) or 1 (observed), not {event:g}")

    def _check_boxes(self, sample: Sample) -> None:
        if sample.boxes is None or sample.image is None or not len(sample.boxes.xyxy):
            return
        height, width = sample.image.shape[-2:]
        x0, y0, x1, y1 = sample.boxes.xyxy.T
        inside = (x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
        if not inside.all():
            box = sample.boxes.xyxy[~inside][0].round(1).tolist()
            raise ValueError(f"box {box} is empty or outside the {width} x {height} image")
        kinds = sample.boxes.classes
        if kinds.min() < 0 or kinds.max() >= len(self._layout.box_classes):
            raise ValueError(f"a box of class {int(kinds.max())}, which is not in the list")

    def _check_numbers(self, sample: Sample) -> None:
        tables = {"tabular": (sample.tabular, self._layout.tabular)}
        if sample.series is not None:
            tables["series"] = (sample.series.value, self._layout.series)
            if not np.isfinite(sample.series.delta).all() or sample.series.delta.min() < 0:
                raise ValueError("series: a time since the last observation below 0, or not finite")
        for name, (values, features) in tables.items():
            if values is None:
                continue
            if values.shape[-1] != len(features):
                raise ValueError(f"{name}: {values.shape[-1]} values for {len(features)} features")
            columns = values.reshape(-1, len(features)).T
            for feature, column in zip(features, columns, strict=True):
                known = column[~np.isnan(column)]
                if not np.isfinite(known).all():
                    raise ValueError(f"{name}: {feature.name} is infinite")
                categories = len(feature.vocabulary)
                if categories and not np.isin(known, np.arange(categories)).all():
                    raise ValueError(
                        f"{name}: {feature.name} is none of its {categories} categories"
                    )

    def _check_presence(self, sample: Sample) -> None:
        """What is absent must read as absent to those who do not look at `present`, too."""
        if sample.present is None:
            return
        if len(sample.present) != len(self._layout.modalities):
            raise ValueError(
                f"{len(sample.present)} presence flags, {len(self._layout.modalities)} modalities"
            )
        for modality, there in zip(self._layout.modalities, sample.present, strict=True):
            if not there and not _is_blank(sample, modality):
                raise ValueError(f"{modality.name} is marked absent and holds values")

    def _there(self, sample: Sample, column: str) -> bool:
        """Whether any modality that lives in this image is present."""
        if sample.present is None:
            return True
        pairs = zip(self._layout.modalities, sample.present, strict=True)
        mine = [there for modality, there in pairs if modality.column == column]
        return any(mine) or not mine


def images(sample: Sample) -> dict[str, NDArray[Any]]:
    """Every image of a sample by the name of its modality's column."""
    main = {} if sample.image is None else {"image": sample.image}
    return {**main, **sample.more_images}


def is_constant(image: NDArray[Any]) -> bool:
    """Whether all channels and pixels have one value."""
    return bool((image == image.flat[0]).all())


def _is_blank(sample: Sample, modality: Modality) -> bool:
    chosen: Any = list(modality.indices) or slice(None)
    if modality.kind is Kind.IMAGE:
        return not images(sample)[modality.column][chosen].any()
    values = sample.tabular
    if modality.kind is Kind.SERIES:
        values = None if sample.series is None else sample.series.value
    return values is None or bool(np.isnan(values[..., chosen]).all())


def _check_image(name: str, image: NDArray[Any]) -> None:
    if image.dtype == np.uint8:
        return
    if image.dtype != np.float32:
        raise ValueError(f"{name} of type {image.dtype}; uint8 or float32 is expected")
    if bad := int((~np.isfinite(image)).sum()):
        raise ValueError(f"{name}: {bad} of {image.size} values are NaN or infinite")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"{name}: values from {image.min():g} to {image.max():g}, outside [0, 1]")


def _shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    """Every field that the sample has, and its shape; () for what has none."""
    shapes = {name: image.shape for name, image in images(sample).items()}
    arrays = {"mask": sample.mask, "tabular": sample.tabular, "label": sample.label}
    if sample.series is not None:
        arrays |= {"series": sample.series.value, "series_delta": sample.series.delta}
    shapes |= {name: np.shape(value) for name, value in arrays.items() if value is not None}
    single = {"boxes": sample.boxes, "time": sample.time, "event": sample.event}
    return shapes | {name: () for name, value in single.items() if value is not None}


def _shape_text(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "absent"
    return " x ".join(map(str, shape)) if shape else "a single value"
