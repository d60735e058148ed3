"""Hypervolume against cost, a panel for each problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from efficiency.measure import ENOUGH
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
    "foresight-random": ("#F0E442", ":"),
    "foresight": ("#F0E442", "--"),
    "forecast": ("#0072B2", "-"),
}


def draw(problems: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Median and quartiles over runs, both axes as shares of the full-length sweep of the seed.

    `problems` are of `Measured.to_dict`.
    """
    columns = min(3, len(problems))
    rows = -(-len(problems) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for axes, problem in zip(grid.flat, problems, strict=False):
        _panel(axes, problem)
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


def _panel(axes: Axes, problem: Mapping[str, Any]) -> None:
    for way, curve in problem["curves"].items():
        colour, style = STYLES[way]
        label = WAYS[way].label
        axes.plot(curve["cost"], curve["median"], color=colour, linestyle=style, label=label)
        axes.fill_between(
            curve["cost"], curve["low"], curve["high"], color=colour, alpha=0.12, linewidth=0
        )
    axes.axhline(ENOUGH, color="#666666", linewidth=0.6)
    axes.set(title=problem["name"], xlim=(0, 1), ylim=(0, 1.5))
    axes.set_xlabel(f"cost, share of the full sweep's {problem['unit']}")
    axes.set_ylabel("hypervolume, share of its final")
