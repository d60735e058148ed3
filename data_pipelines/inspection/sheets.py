"""The contact sheet: a few samples of a data set on one page, with what is marked in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from data_pipelines.inspection.examples import Example, choose
from data_pipelines.inspection.panels import INK, OUTLINE, QUIET, Panel, colours, panels
from data_pipelines.schema import Manifest
from data_pipelines.storage import Folder

STYLE: Any = {
    # A "$" in a name is no formula.
    "text.parse_math": False,
    "text.color": INK,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
}
#: Inches.
WIDTH, TILE, GAP, MARGIN = 11.0, 1.78, 0.1, 0.3
_HEADING, _TITLE, _LEGEND = 0.36, 0.72, 0.4
_APART = 0.16
_LEGEND_ENTRIES = 12
#: Samples shown, unless asked otherwise: by how many find room beside each other.
_ROWS = {1: 6, 2: 5}
_ROWS_OF_SMALL = 4


@dataclass(frozen=True)
class Page:
    """A figure whose axes are placed in inches from the top left corner."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def blank(cls, width: float, height: float) -> Page:
        return cls(Figure(figsize=(width, height)), width, height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without frame and ticks; pictures keep to their top left corner."""
        place = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(place)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.patch.set_visible(False)
        axes.set_anchor("NW")
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        x, y = left / self.width, 1 - top / self.height
        self.figure.text(x, y, text, **{"va": "top", "ha": "left", **style})

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path)
        return path


def contact_sheet(location: str | Path | Folder, out: Path, *, samples: int | None = None) -> Path:
    """Draw samples of every label, site and split, masks outlined and boxes named, into a PNG.

    Volumes are shown at the slice with most of the mask, or in the middle; a channel that is a
    modality of its own has a picture of its own; tables and series stand beside the images. The
    same data give the same sheet. No sample or patient is named in it.

    Args:
        location: A prepared data set.
        out: The file to write; its folder is made.
        samples: How many; None for as many as fit well.

    Raises:
        UserError: if there is no data set, or if a file of it is missing or damaged.
    """
    folder = Folder(location)
    manifest = Manifest.load(folder)
    first = choose(folder, manifest, 1)
    across = _across(panels(first[0].case, manifest))
    count = samples or across * _ROWS.get(across, _ROWS_OF_SMALL)
    with matplotlib.rc_context(STYLE):
        return _draw(choose(folder, manifest, count), manifest, across).save(out)


def _across(shown: list[Panel]) -> int:
    """How many samples of such panels stand beside each other."""
    return max(1, int((WIDTH - 2 * MARGIN + _APART) // (_breadth(shown) + _APART)))


def _breadth(shown: list[Panel]) -> float:
    """Inches of a sample's panels."""
    return sum(panel.width * TILE for panel in shown) + GAP * (len(shown) - 1)


def _draw(examples: list[Example], manifest: Manifest, across: int) -> Page:
    drawn = [panels(example.case, manifest) for example in examples]
    breadth = max(_breadth(shown) for shown in drawn)
    lines = -(-len(examples) // across)
    line = _HEADING + TILE + _APART
    width = max(2 * MARGIN + across * (breadth + _APART) - _APART, WIDTH)
    page = Page.blank(width, _TITLE + lines * line + _LEGEND + MARGIN / 2)
    _title(page, manifest, len(examples))
    for place, (example, shown) in enumerate(zip(examples, drawn, strict=True)):
        left = MARGIN + (place % across) * (breadth + _APART)
        top = _TITLE + (place // across) * line
        _heading(page, left, top, breadth, example)
        for panel in shown:
            panel.draw(page.axes(left, top + _HEADING, panel.width * TILE, TILE))
            left += panel.width * TILE + GAP
    _legend(page, manifest, examples)
    return page


def _title(page: Page, manifest: Manifest, shown: int) -> None:
    total = sum(manifest.split_counts.values())
    counts = ", ".join(f"{n:,} {split}" for split, n in manifest.split_counts.items())
    shape = " × ".join(str(side) for side in manifest.image_shape)
    words = [f"{shown} of {total:,} samples ({counts})"]
    words += [f"images of {shape}, black is 0 and white is 1"] if shape else []
    page.text(MARGIN, 0.18, manifest.name, fontsize=14, fontweight="bold")
    page.text(MARGIN, 0.44, "; ".join(words), fontsize=8, color=QUIET)


def _heading(page: Page, left: float, top: float, breadth: float, example: Example) -> None:
    """What it is in bold, where it is from below."""
    origin = f"{example.split}, {example.site}" if example.site else example.split
    if example.label:
        page.text(left, top, _fit(example.label, breadth, 8.5), fontsize=8.5, fontweight="bold")
    page.text(left, top + 0.165, _fit(origin, breadth, 7.5), fontsize=7.5, color=QUIET)


def _fit(text: str, inches: float, size: float) -> str:
    """As much as has room: a letter is about 0.58 of the font size wide."""
    most = int(inches * 72 / (0.58 * size))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _legend(page: Page, manifest: Manifest, examples: list[Example]) -> None:
    entries = []
    if any(example.case.mask is not None for example in examples):
        finding = manifest.classes[-1] if len(manifest.classes) == 2 else "mask"
        entries.append((f"outline of the mask ({finding})", OUTLINE))
    known = colours(manifest)
    seen = sorted({box["class"] for example in examples for box in example.case.boxes})
    entries += [(f"box: {known[kind][0]}", known[kind][1]) for kind in seen if kind in known]
    if not entries:
        return
    page.figure.legend(
        handles=[
            Line2D([], [], color=colour, linewidth=2.2, label=text)
            for text, colour in entries[:_LEGEND_ENTRIES]
        ],
        loc="lower left",
        bbox_to_anchor=(MARGIN / page.width, 0.05 / page.height),
        ncols=6,
        fontsize=7.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.4,
        columnspacing=1.4,
    )
