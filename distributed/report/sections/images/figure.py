"""Test images as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from trustsweep.distributed.report.evaluated import ModelAnswer
from trustsweep.distributed.report.sections.images.class_panel import ClassPanel
from trustsweep.distributed.report.sections.images.panel import SegmentationPanel


def panel_sheet(panels: list[SegmentationPanel]) -> Figure | None:
    """Test images: truth, then image, prediction, uncertainty and error, clean and attacked."""
    rows = [(panel, row) for panel in panels for row in panel.rows]
    if not rows:
        return None
    heads = ("image", "prediction", "uncertainty", "error")
    figure = Figure(figsize=(10.8, 1.16 * len(rows) + 0.6), layout="constrained")
    columns = 1 + len(rows[0][1].clean) + len(rows[0][1].attacked)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (panel, row) in zip(grid, rows, strict=True):
        for cell, tile in zip(line, (row.truth, *row.clean, *row.attacked), strict=True):
            cell.imshow(tile.pixels, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
        if row is panel.rows[0]:
            line[0].set_ylabel(f"trial {panel.id}")
    clean, attacked = heads, [f"{h}\nattacked, ε = {panels[0].epsilon:g}" for h in heads]
    for cell, title in zip(grid[0], ("truth", *clean, *attacked)[:columns], strict=True):
        cell.set_title(title, fontsize=8.5)
    if legend := panels[0].legend:
        handles = [Patch(color=[c / 255 for c in tint], label=name) for name, tint in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5)
    return figure


def class_sheet(panels: list[ClassPanel]) -> Figure | None:
    """Test images and the class that each model gives them, clean and attacked."""
    rows = [(panel, row) for panel in panels for row in panel.rows]
    if not rows:
        return None
    columns = 3 if rows[0][1].attacked else 1
    figure = Figure(figsize=(0.4 + 2.4 * columns, 1.9 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (panel, row) in zip(grid, rows, strict=True):
        shown = [(row.clean, _caption(row.answer, row.truth))]
        if attacked := row.attacked:
            shown += [
                (attacked.image, _caption(attacked.answer, row.truth)),
                (attacked.moved, f"moved, within ε = {panel.epsilon:g}"),
            ]
        for cell, (tile, title) in zip(line, shown, strict=True):
            cell.imshow(tile.pixels, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
            cell.set_title(title, fontsize=8.5)
        line[0].set_ylabel(f"trial {panel.id}", fontsize=8.5)
    return figure


def _caption(answer: ModelAnswer, truth: str) -> str:
    verdict = "right" if answer.right else f"is {truth}"
    return f"{answer.name} {answer.probability:.2f} ({verdict})"
