"""Classifier performance against corruption severity, as PNG."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from trustsweep.distributed.report.palette import colour, mark
from trustsweep.distributed.report.sections.corruptions import Worsening

#: Corruptions beside each other.
_COLUMNS = 3


def draw(worsenings: list[Worsening]) -> Figure:
    """AUROC and calibration error against severity, a line for the best trial of each method."""
    columns = min(_COLUMNS, len(worsenings))
    blocks = math.ceil(len(worsenings) / columns)
    figure = Figure(figsize=(1.0 + 3.4 * columns, 4.6 * blocks + 0.6), layout="constrained")
    grid = figure.subplots(2 * blocks, columns, squeeze=False, sharey="row")
    # Each block of rows has AUROC above and ECE beneath.
    pairs = grid.reshape(blocks, 2, columns).swapaxes(1, 2).reshape(-1, 2)
    for axes in pairs[len(worsenings) :].flat:
        axes.set_visible(False)
    for (upper, lower), worsening in zip(pairs, worsenings, strict=False):
        for loss in worsening.losses:
            look = {"color": colour(loss.place), "marker": mark(loss.place), "ms": 5}
            # None becomes NaN, which interrupts the line.
            for axes, values in ((upper, loss.auroc), (lower, loss.ece)):
                heights = np.array(values, dtype=float)
                axes.plot(worsening.severities, heights, label=loss.method, **look)
        upper.set_title(worsening.corruption, fontsize=10)
        for axes in (upper, lower):
            axes.set_xticks(worsening.severities, worsening.labels, fontsize=8)
        lower.set_xlabel(worsening.parameter)
    for row, axes in enumerate(grid[:, 0]):
        axes.set_ylabel("ECE" if row % 2 else "AUROC")
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=4, fontsize=8)
    return figure
