"""The panels that show a sample: its data, and the marks in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.inspection.columns import (
    IMAGE,
    ChannelGroup,
    image_parts,
    mask_findings,
    mask_layer,
)
from trustsweep.data_pipelines.inspection.examples import SampleValues
from trustsweep.data_pipelines.inspection.panels import (
    BOXES,
    OUTLINE,
    STYLES,
    AbsentPanel,
    ImagePanel,
    Mark,
    SeriesPanel,
    SheetPanel,
    TablePanel,
)
from trustsweep.data_pipelines.schema import Feature, Manifest

#: Panels of one image; the channels beyond are not shown.
_CHANNELS = 6


def marks(manifest: Manifest) -> dict[int, Mark]:
    """Class of a box to how it is drawn: six colours, each solid, dashed and dotted, in turn."""
    names = manifest.box_classes or manifest.classes
    return {kind: _mark(kind, name) for kind, name in enumerate(names)}


def _mark(kind: int, name: str) -> Mark:
    turn, place = divmod(kind, len(BOXES))
    return Mark(name, BOXES[place], STYLES[turn % len(STYLES)])


def mask_marks(manifest: Manifest) -> tuple[Mark, ...]:
    """How each of `mask_findings` is outlined: one in yellow; several as boxes of that name are."""
    findings = mask_findings(manifest)
    if len(findings) == 1:
        return (Mark(findings[0], OUTLINE, STYLES[0]),)
    boxed = manifest.box_classes if "boxes" in manifest.columns else ()
    order = list(dict.fromkeys([*boxed, *findings]))
    return tuple(_mark(order.index(name), name) for name in findings)


def is_colour(manifest: Manifest, image: str, part: ChannelGroup) -> bool:
    """Whether three channels are red, green and blue: they are one modality, the whole image."""
    return len(part.channels) == 3 and len(image_parts(manifest, image)) == 1


def panels(case: SampleValues, manifest: Manifest) -> list[SheetPanel]:
    """Everything that a sample holds, images first."""
    panels: list[SheetPanel] = []
    for image in case.images:
        panels += image_panels(case, manifest, image)
    if case.tabular is not None:
        panels.append(table_panel(case.tabular, manifest.tabular))
    if case.series is not None:
        hours = manifest.series_hours or 1.0
        panels.append(SeriesPanel(values=case.series, features=manifest.series, hours=hours))
    return panels


def image_panels(case: SampleValues, manifest: Manifest, image: str) -> list[SheetPanel]:
    """One panel a channel, or one in colour; the slice with most of the mask, or the middle."""
    main = image == IMAGE
    values, place = _flat(case.images[image], case.mask if main else None)
    depth = case.images[image].shape[1] if case.images[image].ndim == 4 else 0
    outlines: tuple[tuple[NDArray[np.bool_], Mark], ...] = ()
    if main and case.mask is not None:
        shown = case.mask[:, place] if depth else case.mask
        outlines = tuple(
            (mask_layer(shown[None], manifest, index)[0], mark)
            for index, mark in enumerate(mask_marks(manifest))
        )
    panels: list[SheetPanel] = []
    image_list = image_parts(manifest, image)
    alone = len(image_list) == 1 and len(case.images) == 1
    for part in image_list:
        if part.place is not None and not case.present[part.place]:
            panels.append(AbsentPanel(name=part.name))
            continue
        pictures = (
            [(part.name, np.moveaxis(values, 0, -1))]
            if is_colour(manifest, image, part)
            else [
                (name, values[channel])
                for name, channel in zip(part.channel_names(), part.channels, strict=True)
            ]
        )
        for name, pixels in pictures:
            words = [] if alone and len(pictures) == 1 else [name]
            words += [f"slice {place + 1} of {depth}"] if depth else []
            panels.append(
                ImagePanel(
                    pixels=pixels,
                    note="\n".join(words),
                    outlines=outlines,
                    boxes=_boxes(case, manifest) if main else (),
                )
            )
    return panels[:_CHANNELS]


def table_panel(values: NDArray[np.float32], features: tuple[Feature, ...]) -> TablePanel:
    """A table's entries with their units."""
    return TablePanel(
        entries=tuple(
            (feature.name, _value(float(value), feature))
            for value, feature in zip(values, features, strict=True)
        )
    )


def _flat(
    values: NDArray[np.float32], mask: NDArray[Any] | None
) -> tuple[NDArray[np.float32], int]:
    """(C, H, W) and the slice that was taken; 0 for flat images."""
    if values.ndim < 4:
        return values, 0
    place = values.shape[1] // 2
    if mask is not None and mask.any():
        place = int((mask > 0).any(axis=0).sum(axis=(1, 2)).argmax())
    return values[:, place], place


def _boxes(
    case: SampleValues, manifest: Manifest
) -> tuple[tuple[tuple[float, float, float, float], Mark], ...]:
    known = marks(manifest)
    return tuple(
        (
            (box["x0"], box["y0"], box["x1"], box["y1"]),
            known.get(box["class"]) or _mark(abs(box["class"]), f"class {box['class']}"),
        )
        for box in case.boxes
    )


def _value(value: float, feature: Feature) -> str | None:
    if np.isnan(value):
        return None
    if feature.vocabulary:
        known = value.is_integer() and 0 <= value < len(feature.vocabulary)
        return feature.vocabulary[int(value)] if known else f"no category: {value:g}"
    return f"{value:.4g} {feature.unit}".rstrip()
