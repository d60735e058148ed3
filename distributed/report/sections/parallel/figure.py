"""Parallel coordinates as PNG."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from trustsweep.distributed.report.drawing import single_axes
from trustsweep.distributed.report.sections.parallel import Coordinates
from trustsweep.distributed.run.folder import Run

#: The part of cividis that shows on white: its yellow end does not.
BRIGHTEST = 0.88


def draw(run: Run, data: Coordinates) -> Figure | None:
    """Each completed trial a line across parameters and objectives, coloured by the first one."""
    axes_drawn, lines = data
    if not lines:
        return None
    figure, axes = single_axes(max(6.4, 1.05 * len(axes_drawn)), 4.2)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    colours = matplotlib.colormaps["cividis"]
    shade = len(axes_drawn) - len(run.objectives)
    places = range(len(axes_drawn))
    for line in lines:
        level = line.positions[shade]
        # None becomes NaN, which interrupts the line where a parameter does not apply.
        heights = np.array(line.positions, dtype=float)
        axes.plot(
            places,
            heights,
            color=colours(np.nan if level is None else BRIGHTEST * level),
            alpha=0.75,
            lw=1.2,
            marker=".",
            ms=4,
        )
    for place, axis in zip(places, axes_drawn, strict=True):
        axes.axvline(place, color="#5b6570", lw=0.8, zorder=0)
        for height, label in axis.ticks:
            axes.annotate(label, (place, height), (3, 0), textcoords="offset points", fontsize=7)
    axes.set_xticks(places, [a.name for a in axes_drawn], rotation=35, ha="right")
    axes.set_yticks([])
    axes.set_title(f"bright: high {run.objectives[0].name} on validation", loc="right", fontsize=9)
    return figure
