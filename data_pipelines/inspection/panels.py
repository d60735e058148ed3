"""The parts of a picture of one sample: an image with its findings, a table, a series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from data_pipelines.inspection.columns import IMAGE, Part, image_parts
from data_pipelines.inspection.examples import Case
from data_pipelines.schema import Feature, Manifest

# Okabe and Ito's colours, told apart by every kind of colour vision.
OUTLINE = "#F0E442"
BOXES = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
INK, QUIET, PAPER = "#1f2933", "#7b8794", "#eef1f4"
#: More names than this on one image would hide it; the legend still tells the colours.
_NAMED_BOXES = 6
_CHANNELS = 6
_LANES = 8
#: Inches from a line of a table to the next.
_LINE = 0.14
_SMALL = 6.5
_RIM = [patheffects.withStroke(linewidth=1.8, foreground="#000000")]


@dataclass(frozen=True, kw_only=True)
class Panel(ABC):
    """Something to draw on its own axes; `width` is in units of an image's."""

    width: float = 1.0

    @abstractmethod
    def draw(self, axes: Axes) -> None:
        """Fill the axes, which have neither frame nor ticks."""


@dataclass(frozen=True, kw_only=True)
class ImagePanel(Panel):
    """(H, W) or (H, W, 3) in [0, 1] at its own brightness, findings on top, a note in the corner.

    `boxes` are corners in pixels with the class's name and its colour.
    """

    pixels: NDArray[np.float32]
    note: str = ""
    mask: NDArray[np.bool_] | None = None
    boxes: tuple[tuple[tuple[float, float, float, float], str, str], ...] = ()

    def draw(self, axes: Axes) -> None:
        height, width = self.pixels.shape[:2]
        # Pixel edges, not centres, are whole numbers: the unit of boxes.
        axes.imshow(
            np.nan_to_num(self.pixels), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0)
        )
        if self.mask is not None and self.mask.any():
            # A rim of background closes the outline of what touches the border.
            padded = np.pad(self.mask.astype(float), 1)
            x, y = np.arange(width + 2) - 0.5, np.arange(height + 2) - 0.5
            axes.contour(x, y, padded, levels=[0.5], colors=[OUTLINE], linewidths=1.2)
        for (x0, y0, x1, y1), name, colour in self.boxes:
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.4)
            )
            if len(self.boxes) <= _NAMED_BOXES:
                # Kept on the image: to the left at its right edge, inside the box at its top.
                right, inside = x0 > 0.65 * width, y0 < 0.08 * height
                axes.text(
                    x1 if right else x0,
                    y0 + (0.02 if inside else -0.015) * height,
                    name,
                    ha="right" if right else "left",
                    va="top" if inside else "bottom",
                    color=colour,
                    fontsize=_SMALL,
                    fontweight="bold",
                    path_effects=_RIM,
                    clip_on=True,
                )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        _note(axes, self.note)


@dataclass(frozen=True, kw_only=True)
class AbsentPanel(Panel):
    """A modality that the sample does not have."""

    name: str

    def draw(self, axes: Axes) -> None:
        axes.set_facecolor(PAPER)
        axes.set_box_aspect(1)
        axes.patch.set_visible(True)
        axes.text(
            0.5,
            0.5,
            f"{self.name}\nabsent",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=7.5,
            color=QUIET,
        )


@dataclass(frozen=True, kw_only=True)
class TablePanel(Panel):
    """Names with their values; None where missing."""

    entries: tuple[tuple[str, str | None], ...]
    width: float = 1.15

    def draw(self, axes: Axes) -> None:
        room = int(axes.get_window_extent().height / axes.figure.dpi / _LINE)
        shown = self.entries[: room if len(self.entries) <= room else room - 1]
        lines = [*shown]
        if more := len(self.entries) - len(shown):
            lines.append((f"and {more} more", ""))
        for place, (name, value) in enumerate(lines):
            y = 1 - (place + 0.45) / room
            axes.axhline(1 - (place + 1) / room, color=PAPER, linewidth=0.8)
            axes.text(0.0, y, _short(name, 20), fontsize=7, color=QUIET, va="center")
            axes.text(
                1.0,
                y,
                "missing" if value is None else _short(value, 18),
                fontsize=7,
                color=QUIET if value is None else INK,
                style="italic" if value is None else "normal",
                va="center",
                ha="right",
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)


@dataclass(frozen=True, kw_only=True)
class SeriesPanel(Panel):
    """The channels observed most, each in a lane of its own, over hours.

    `values` are (T, F); a lane spans three standard deviations of the train split either way.
    """

    values: NDArray[np.float32]
    features: tuple[Feature, ...]
    hours: float
    width: float = 2.3

    def draw(self, axes: Axes) -> None:
        counts = np.isfinite(self.values).sum(axis=0)
        order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]][:_LANES]
        hours = np.arange(len(self.values)) * self.hours
        for lane, index in enumerate(order):
            self._lane(axes, _LANES - 1 - lane, hours, index)
        rest = len(self.features) - len(order)
        note = (
            f"h, {rest} more channels" if order and rest else "h" if order else "nothing observed"
        )
        axes.set_xlim(hours[0], max(hours[-1], self.hours) * 1.02)
        axes.set_ylim(-0.9, _LANES - 0.4)
        ends = [hours[0], hours[len(hours) // 2], hours[-1]]
        for place, (hour, side) in enumerate(zip(ends, ("left", "center", "right"), strict=True)):
            text = f"{hour:g} {note}" if place == len(ends) - 1 else f"{hour:g}"
            axes.text(hour, -0.85, text, fontsize=_SMALL, color=QUIET, ha=side, va="bottom")

    def _lane(self, axes: Axes, height: int, hours: NDArray[Any], index: int) -> None:
        feature, values = self.features[index], self.values[:, index]
        seen = np.isfinite(values)
        scaled = np.clip((values[seen] - feature.mean) / (feature.std or 1), -3, 3) / 6 * 0.85
        colour = BOXES[-1]
        axes.axhline(height, color=PAPER, linewidth=0.8, zorder=0)
        axes.plot(
            hours[seen], height + scaled, color=colour, linewidth=0.9, marker=".", markersize=2.2
        )
        low, high = values[seen].min(), values[seen].max()
        span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        axes.text(
            hours[0],
            height + 0.32,
            f"{_short(feature.name, 22)}  {span} {feature.unit}".rstrip(),
            fontsize=5.8,
            color=INK,
            va="center",
        )


@dataclass(frozen=True, kw_only=True)
class HeatPanel(Panel):
    """(F, T) values in standard deviations of the train split, blue to red; what is missing, grey.

    A table is one column. Categories are not standardised.
    """

    values: NDArray[np.float32]
    features: tuple[Feature, ...]
    note: str = ""

    def draw(self, axes: Axes) -> None:
        mean = np.array([feature.mean for feature in self.features])[:, None]
        std = np.array([feature.std or 1.0 for feature in self.features])[:, None]
        field = np.ma.masked_invalid((self.values - mean) / std)
        axes.set_facecolor("#d4d9de")
        axes.patch.set_visible(True)
        axes.imshow(field, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
        _note(axes, self.note)


@dataclass(frozen=True, kw_only=True)
class PresencePanel(Panel):
    """The modalities by name; those that are absent in grey and with a no before."""

    names: tuple[str, ...]
    present: tuple[bool, ...]
    note: str = ""

    def draw(self, axes: Axes) -> None:
        axes.set_facecolor(PAPER)
        axes.patch.set_visible(True)
        for place, (name, there) in enumerate(zip(self.names, self.present, strict=True)):
            y = 1 - (place + 0.7) / (len(self.names) + 1)
            text = _short(name, 16) if there else f"no {_short(name, 13)}"
            axes.text(
                0.06, y, text, fontsize=7.5, va="center", color=INK if there else QUIET,
                fontweight="bold" if there else "normal",
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        _note(axes, self.note)


def colours(manifest: Manifest) -> dict[int, tuple[str, str]]:
    """Class of a box to its name and its colour; six colours, in turn."""
    names = manifest.box_classes or manifest.classes
    return {kind: (name, BOXES[kind % len(BOXES)]) for kind, name in enumerate(names)}


def is_colour(manifest: Manifest, image: str, part: Part) -> bool:
    """Whether three channels are red, green and blue: they are one modality, the whole image."""
    return len(part.channels) == 3 and len(image_parts(manifest, image)) == 1


def panels(case: Case, manifest: Manifest) -> list[Panel]:
    """Everything that a sample holds, images first."""
    found: list[Panel] = []
    for image in case.images:
        found += image_panels(case, manifest, image)
    if case.tabular is not None:
        found.append(table_panel(case.tabular, manifest.tabular))
    if case.series is not None:
        hours = manifest.series_hours or 1.0
        found.append(SeriesPanel(values=case.series, features=manifest.series, hours=hours))
    return found


def image_panels(case: Case, manifest: Manifest, image: str) -> list[Panel]:
    """One panel a channel, or one in colour; the slice with most of the mask, or the middle."""
    main = image == IMAGE
    values, place = _flat(case.images[image], case.mask if main else None)
    depth = case.images[image].shape[1] if case.images[image].ndim == 4 else 0
    mask = None
    if main and case.mask is not None:
        mask = (case.mask[0] if not depth else case.mask[0, place]) > 0
    found: list[Panel] = []
    image_list = image_parts(manifest, image)
    alone = len(image_list) == 1 and len(case.images) == 1
    for part in image_list:
        if part.place is not None and not case.present[part.place]:
            found.append(AbsentPanel(name=part.name))
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
            found.append(
                ImagePanel(
                    pixels=pixels,
                    note="\n".join(words),
                    mask=mask,
                    boxes=_boxes(case, manifest) if main else (),
                )
            )
    return found[:_CHANNELS]


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
        place = int(mask[0].sum(axis=(1, 2), dtype=np.int64).argmax())
    return values[:, place], place


def _boxes(
    case: Case, manifest: Manifest
) -> tuple[tuple[tuple[float, float, float, float], str, str], ...]:
    known = colours(manifest)
    return tuple(
        (
            (box["x0"], box["y0"], box["x1"], box["y1"]),
            *known.get(box["class"], (f"class {box['class']}", BOXES[0])),
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


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _note(axes: Axes, text: str) -> None:
    """In the lower left corner, legible on anything."""
    if not text:
        return
    axes.text(
        0.03,
        0.045,
        text,
        transform=axes.transAxes,
        color="white",
        fontsize=_SMALL,
        clip_on=True,
        bbox={"facecolor": "black", "alpha": 0.7, "linewidth": 0, "pad": 1.2},
    )
