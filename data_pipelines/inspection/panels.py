"""The parts of a picture of one sample: an image with its findings, a table, a series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from trustsweep.data_pipelines.schema import Feature

Style = Literal["solid", "dashed", "dotted"]
# Okabe and Ito's colours, distinct for every kind of colour vision.
OUTLINE = "#F0E442"
BOXES = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
LINE = BOXES[-1]
#: Six classes of boxes for each of these.
STYLES: tuple[Style, ...] = ("solid", "dashed", "dotted")
INK, QUIET, PAPER = "#1f2933", "#7b8794", "#eef1f4"
#: More names than this on one image would hide it; the legend still names the colours.
_NAMED_BOXES = 3
_LANES = 8
#: Inches from a line of a table to the next, and how many lines a table has at most.
_LINE, _LINES = 0.14, 20
_SMALL = 6.5
#: Width of the names of a series' channels, in shares of its hours' width.
_NAMES = 0.78
_TICK: Any = {"fontsize": _SMALL, "color": QUIET, "va": "bottom"}
_RIM = [patheffects.withStroke(linewidth=1.8, foreground="#000000")]
_HALO = [patheffects.withStroke(linewidth=1.5, foreground="#ffffff")]


@dataclass(frozen=True)
class Mark:
    """How a class of masks or boxes is drawn."""

    name: str
    colour: str
    style: Style


@dataclass(frozen=True, kw_only=True)
class SheetPanel(ABC):
    """Something to draw on its own axes; `width` is in units of an image's."""

    width: float = 1.0

    def height(self, tile: float) -> float:
        """Inches that it needs, beside images with a side of `tile`."""
        return tile

    @abstractmethod
    def draw(self, axes: Axes) -> None:
        """Fill the axes, which have neither frame nor ticks."""


@dataclass(frozen=True, kw_only=True)
class ImagePanel(SheetPanel):
    """(H, W) or (H, W, 3) in [0, 1] at its own brightness, findings on top, a note in the corner.

    `name` is not drawn.

    `outlines` are (H, W) masks and `boxes` corners in pixels, x0, y0, x1, y1, each with its class.
    """

    pixels: NDArray[np.float32]
    note: str = ""
    name: str = ""
    outlines: tuple[tuple[NDArray[np.bool_], Mark], ...] = ()
    boxes: tuple[tuple[tuple[float, float, float, float], Mark], ...] = ()

    def draw(self, axes: Axes) -> None:
        height, width = self.pixels.shape[:2]
        # Pixel edges, not centres, are whole numbers: the unit of boxes.
        axes.imshow(
            np.nan_to_num(self.pixels), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0)
        )
        for mask, mark in self.outlines:
            if not mask.any():
                continue
            # A rim of background closes the outline of what touches the border.
            padded = np.pad(mask.astype(float), 1)
            x, y = np.arange(width + 2) - 0.5, np.arange(height + 2) - 0.5
            style: Any = {"colors": [mark.colour], "linestyles": [mark.style], "linewidths": 1.2}
            axes.contour(x, y, padded, levels=[0.5], **style)
        for (x0, y0, x1, y1), mark in self.boxes:
            axes.add_patch(
                Rectangle(
                    (x0, y0),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    edgecolor=mark.colour,
                    linestyle=mark.style,
                    linewidth=1.4,
                )
            )
            if len(self.boxes) <= _NAMED_BOXES:
                # Kept on the image: to the left at its right edge, inside the box at its top.
                right, inside = x0 > 0.65 * width, y0 < 0.08 * height
                axes.text(
                    x1 if right else x0,
                    y0 + (0.02 if inside else -0.015) * height,
                    mark.name,
                    ha="right" if right else "left",
                    va="top" if inside else "bottom",
                    color=mark.colour,
                    fontsize=_SMALL,
                    fontweight="bold",
                    path_effects=_RIM,
                    clip_on=True,
                )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        _note(axes, self.note)


@dataclass(frozen=True, kw_only=True)
class AbsentPanel(SheetPanel):
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
class TablePanel(SheetPanel):
    """Names with their values; None where missing."""

    entries: tuple[tuple[str, str | None], ...]
    width: float = 1.15

    def height(self, tile: float) -> float:
        return _LINE * min(len(self.entries), _LINES)

    def draw(self, axes: Axes) -> None:
        extent, dpi = axes.get_window_extent(), axes.figure.dpi
        room = round(extent.height / dpi / _LINE)
        # A letter is about 0.58 of the font size wide.
        letters = int(extent.width / dpi * 72 / (0.58 * 7))
        shown = self.entries[: room if len(self.entries) <= room else room - 1]
        lines = [*shown]
        if more := len(self.entries) - len(shown):
            lines.append((f"and {more} more", ""))
        for place, (name, value) in enumerate(lines):
            y = 1 - (place + 0.5) / room
            name = short(name, letters // 2)
            axes.axhline(1 - (place + 1) / room, color=PAPER, linewidth=0.8)
            axes.text(0.0, y, name, fontsize=7, color=QUIET, va="center_baseline")
            axes.text(
                1.0,
                y,
                "missing" if value is None else short(value, letters - len(name) - 1),
                fontsize=7,
                color=QUIET if value is None else INK,
                style="italic" if value is None else "normal",
                va="center_baseline",
                ha="right",
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)


@dataclass(frozen=True, kw_only=True)
class SeriesPanel(SheetPanel):
    """The channels observed most, each in a lane of its own, over hours.

    `values` are (T, F); a lane spans two standard deviations of the train split either way.
    """

    values: NDArray[np.float32]
    features: tuple[Feature, ...]
    hours: float
    width: float = 2.4

    def draw(self, axes: Axes) -> None:
        counts = np.isfinite(self.values).sum(axis=0)
        order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]][:_LANES]
        hours = np.arange(len(self.values)) * self.hours
        span = max(float(hours[-1]), self.hours)
        for lane, index in enumerate(order):
            self._lane(axes, _LANES - 1 - lane, hours, index, span)
        rest = len(self.features) - len(order)
        more = f"{rest} more channels" if order else "nothing observed"
        axes.text(-_NAMES * span, -1.2, more if rest else "", **_TICK, ha="left")
        axes.text(0, -1.2, "0", **_TICK, ha="left")
        axes.text(span, -1.2, f"{hours[-1]:g} h", **_TICK, ha="right")
        axes.set_xlim(-_NAMES * span, 1.01 * span)
        axes.set_ylim(-1.2, _LANES - 0.45)

    def _lane(self, axes: Axes, height: int, hours: NDArray[Any], index: int, span: float) -> None:
        feature, values = self.features[index], self.values[:, index]
        observed = np.isfinite(values)
        scaled = np.clip((values[observed] - feature.mean) / (feature.std or 1), -2, 2) / 4 * 0.85
        axes.plot([0, span], [height, height], color=PAPER, linewidth=0.8, zorder=0)
        axes.plot(
            hours[observed], height + scaled, color=LINE, linewidth=0.9, marker=".", markersize=2.2
        )
        low, high = values[observed].min(), values[observed].max()
        text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        words: Any = {"fontsize": 6.2, "va": "center"}
        axes.text(-_NAMES * span, height, short(feature.name, 14), color=INK, **words)
        text = short(f"{text} {feature.unit}".rstrip(), 21)
        axes.text(-0.03 * span, height, text, color=QUIET, ha="right", **words)


@dataclass(frozen=True, kw_only=True)
class HeatPanel(SheetPanel):
    """(F, T) values in standard deviations of the train split, blue to red; missing values grey.

    A table is one column. Categories are not standardised. Rows are `named` where they have room.
    """

    values: NDArray[np.float32]
    features: tuple[Feature, ...]
    named: bool = False
    note: str = ""

    def draw(self, axes: Axes) -> None:
        mean = np.array([feature.mean for feature in self.features])[:, None]
        std = np.array([feature.std or 1.0 for feature in self.features])[:, None]
        field = np.ma.masked_invalid((self.values - mean) / std)
        axes.set_facecolor("#d4d9de")
        axes.patch.set_visible(True)
        axes.imshow(field, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
        for row, feature in enumerate(self.features if self.named else ()):
            left = axes.get_xlim()[0]
            text = f" {short(feature.name, 24)}"
            axes.text(left, row, text, fontsize=5.5, va="center", path_effects=_HALO)
        _note(axes, self.note)


@dataclass(frozen=True, kw_only=True)
class PresencePanel(SheetPanel):
    """The modalities by name; those that are absent in grey and with a no before."""

    names: tuple[str, ...]
    present: tuple[bool, ...]
    note: str = ""

    def draw(self, axes: Axes) -> None:
        axes.set_facecolor(PAPER)
        axes.patch.set_visible(True)
        for place, (name, present) in enumerate(zip(self.names, self.present, strict=True)):
            y = 1 - (place + 0.7) / (len(self.names) + 1)
            text = short(name, 16) if present else f"no {short(name, 13)}"
            axes.text(
                0.06, y, text, fontsize=7.5, va="center", color=INK if present else QUIET,
                fontweight="bold" if present else "normal",
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        _note(axes, self.note)


def short(text: str, most: int) -> str:
    """At most so many letters."""
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
