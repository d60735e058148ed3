"""Hypervolume against cost, a panel for each problem."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from efficiency.measure import ENOUGH, Measured
from efficiency.ways import WAYS

#: Okabe and Ito's colours, which the colour-blind can tell apart, and line styles beside them.
STYLES = {
    "optuna": ("#000000", "-"),
    "random": ("#999999", "-"),
    "asha": ("#E69F00", "--"),
    "halving": ("#009E73", "-."),
    "tpe": ("#CC79A7", ":"),
    "forecast-random": ("#56B4E9", ":"),
    "forecast-gp": ("#D55E00", "-"),
    "foresight": ("#F0E442", "--"),
    "forecast": ("#0072B2", "-"),
}
_POINTS = 200


def draw(problems: Sequence[Measured], path: Path) -> None:
    """Median and quartiles over runs, both axes as shares of the full-length sweep of the seed."""
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for axes, measured in zip(grid.flat, problems, strict=False):
        _panel(axes, measured)
    for axes in grid.flat[len(problems) :]:
        axes.set_axis_off()
    handles = {
        label: line
        for axes in grid.flat
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, measured: Measured) -> None:
    share = np.linspace(0, 1, _POINTS)
    full = measured.full
    for way, traces in measured.traces.items():
        lines = [
            trace.at(share * full[seed].total) / full[seed].final for seed, trace in traces.items()
        ]
        low, middle, high = np.quantile(lines, [0.25, 0.5, 0.75], axis=0)
        colour, style = STYLES[way]
        # A way that spent less stands still from there on; its line ends where the last run did.
        until = share <= max(t.total / full[seed].total for seed, t in traces.items())
        label = WAYS[way].label
        axes.plot(share[until], middle[until], color=colour, linestyle=style, label=label)
        axes.fill_between(share[until], low[until], high[until], color=colour, alpha=0.12, lw=0)
    axes.axhline(ENOUGH, color="#666666", linewidth=0.6)
    axes.set(title=measured.problem.name, xlim=(0, 1), ylim=(0, 1.3))
    axes.set_xlabel(f"cost, share of the full sweep's {measured.problem.unit}")
    axes.set_ylabel("hypervolume, share of its final")
