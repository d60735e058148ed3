"""Figures as PNG: what models are right about where they may abstain, and what classifiers lose."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distributed.report.abstention import Abstention
from distributed.report.palette import QUIET, colour, mark
from distributed.report.severities import Worsening
from distributed.report.wording import roles
from distributed.run.folder import Run

#: Corruptions beside each other.
_COLUMNS = 3


def risk_coverage(run: Run, models: list[Abstention]) -> Figure | None:
    """The error among the images that are answered against their share, by condition."""
    names = list(dict.fromkeys(name for model in models for name in model.curves))
    if not names:
        return None
    shown, told = [e.id for e in run.spotlight], roles(run)
    segmented = any(model.segmented for model in models)
    figure = Figure(figsize=(1.0 + 3.6 * len(names), 3.8), layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axes, name in zip(grid[0], names, strict=True):
        for model in (m for m in models if name in m.curves):
            place = shown.index(model.id) if model.id in shown else None
            curve = model.curves[name]
            axes.plot(
                curve["coverage"], curve["risk"], color=QUIET if place is None else colour(place),
                lw=0.9 if place is None else 1.8, zorder=2 if place is None else 3,
                label=None if place is None else f"trial {model.id}, {told[model.id]}",
            )  # fmt: skip
        axes.set_title(name, fontsize=10)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if not segmented:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the images that are answered")
    grid[0, 0].set_ylabel("mean of 1 - Dice among them" if segmented else "error rate among them")
    grid[0, 0].set_ylim(bottom=0)  # of all: they share it
    grid[0, 0].legend(fontsize=8)
    return figure


def corruption_curves(worsenings: list[Worsening]) -> Figure | None:
    """AUROC and calibration error against severity, a line for the best trial of each method."""
    if not worsenings:
        return None
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
                axes.plot(worsening.severities, heights, label=loss.trainable, **look)
        upper.set_title(worsening.corruption, fontsize=10)
        for axes in (upper, lower):
            axes.set_xticks(worsening.severities, worsening.labels, fontsize=8)
        lower.set_xlabel(worsening.parameter)
    for row, axes in enumerate(grid[:, 0]):
        axes.set_ylabel("ECE" if row % 2 else "AUROC")
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=4, fontsize=8)
    return figure
