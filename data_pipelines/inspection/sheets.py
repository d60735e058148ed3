"""The contact sheet: a few samples of a data set on one page, with their marks."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import matplotlib
from matplotlib.lines import Line2D

from trustsweep.data_pipelines.inspection.composition import marks, mask_marks, panels
from trustsweep.data_pipelines.inspection.examples import Example, choose
from trustsweep.data_pipelines.inspection.pages import GAP, MARGIN, STYLE, WIDTH, Grid, Page, fit
from trustsweep.data_pipelines.inspection.panels import QUIET, Mark, SheetPanel
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder

#: Inches.
_TITLE, _HEADING, _BELOW, _LEGEND = 0.72, 0.36, 0.2, 0.5
_LEGEND_ENTRIES = 18
#: Default rows of samples by the number of samples in a row.
_ROWS = {1: 6, 2: 5}
_ROWS_OF_SMALL = 4


def contact_sheet(location: str | Path | Folder, out: Path, *, samples: int | None = None) -> Path:
    """Draw samples of every label, site and split, masks outlined and boxes named, into a PNG.

    Volumes are shown at the slice with most of the mask, or in the middle; a channel that is a
    modality of its own has a picture of its own; tables and series stand beside the images. The
    same data give the same sheet. No sample or patient is named in it.

    Args:
        location: A prepared data set.
        out: The file to write; its folder is made.
        samples: How many, at least 1; None for as many as fit well.

    Raises:
        UserError: if there is no data set, or if a file of it is missing or damaged.
    """
    folder = Folder(location)
    manifest = Manifest.load(folder)
    most = samples or max(n * _ROWS.get(n, _ROWS_OF_SMALL) for n in range(1, 7))
    examples = choose(folder, manifest, most)
    grid = _grid([panels(example.case, manifest) for example in examples])
    count = samples or grid.across * _ROWS.get(grid.across, _ROWS_OF_SMALL)
    with matplotlib.rc_context(STYLE):
        return _draw(examples[:count], manifest, grid).save(out)


def _grid(drawn: list[list[SheetPanel]]) -> Grid:
    """With room for the widest of the samples."""
    return Grid.fitting(
        max(sum(panel.width for panel in shown) for shown in drawn),
        max(len(shown) for shown in drawn) - 1,
    )


def _draw(examples: list[Example], manifest: Manifest, grid: Grid) -> Page:
    lines = -(-len(examples) // grid.across)
    drawn = [panels(example.case, manifest) for example in examples]
    line = _HEADING + max(p.height(grid.tile) for shown in drawn for p in shown) + _BELOW
    entries = _entries(examples, manifest)
    page = Page.blank(WIDTH, _TITLE + lines * line + (_LEGEND if entries else MARGIN / 2))
    _title(page, manifest, len(examples))
    for place, (example, shown) in enumerate(zip(examples, drawn, strict=True)):
        left = MARGIN + (place % grid.across) * grid.step
        top = _TITLE + (place // grid.across) * line
        _heading(page, left, top, grid.breadth, example)
        for panel in shown:
            width = panel.width * grid.tile
            panel.draw(page.axes(left, top + _HEADING, width, panel.height(grid.tile)))
            left += width + GAP
    if entries:
        _legend(page, entries)
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
        page.text(left, top, fit(example.label, breadth, 8.5), fontsize=8.5, fontweight="bold")
    page.text(left, top + 0.165, fit(origin, breadth, 7.5), fontsize=7.5, color=QUIET)


def _entries(examples: list[Example], manifest: Manifest) -> list[Mark]:
    """What is marked in the samples, and how."""
    entries = []
    if any(example.case.mask is not None for example in examples):
        outlined = mask_marks(manifest)
        shares = manifest.mask_shares.get(Split.TRAIN, ())[-len(outlined) :]
        for mark, share in zip_longest(outlined, shares):
            part = "" if share is None else f", {100 * share:.2g} % of train pixels"
            one = len(outlined) == 1
            text = f"outline of the mask ({mark.name}{part})" if one else f"{mark.name}{part}"
            entries.append(replace(mark, name=text))
    known = marks(manifest)
    classes = sorted({box["class"] for example in examples for box in example.case.boxes})
    return entries + [
        replace(known[k], name=f"box: {known[k].name}") for k in classes if k in known
    ]


def _legend(page: Page, entries: list[Mark]) -> None:
    page.figure.legend(
        handles=[
            Line2D([], [], color=mark.colour, linestyle=mark.style, linewidth=2, label=mark.name)
            for mark in entries[:_LEGEND_ENTRIES]
        ],
        loc="upper left",
        bbox_to_anchor=(MARGIN / page.width, _LEGEND / page.height),
        ncols=5,
        fontsize=7.5,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.2,
        columnspacing=1.4,
    )
