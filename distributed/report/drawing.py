"""Helpers for the PNG figures of several sections. Loads matplotlib, so only figures import it."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trustsweep.distributed.report.wording import BETTER
from trustsweep.distributed.run.folder import COST_PREFIX
from trustsweep.distributed.statistics.front import Objective

STYLE: Any = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6570",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "legend.frameon": False,
    # A "$" in a name is no formula.
    "text.parse_math": False,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
}


def single_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one pair of axes; inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def axis_title(objective: Objective, split: str) -> str:
    """A title that says on which split the figures are; costs are of none."""
    where = f" on {split}" if split and not objective.name.startswith(COST_PREFIX) else ""
    return f"{objective.name}{where} ({BETTER[objective.direction]})"
