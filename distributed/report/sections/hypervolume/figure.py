"""The hypervolume over trials, time and costs, as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trustsweep.distributed.report.palette import colour
from trustsweep.distributed.report.sections.hypervolume import Growth


def draw(growth: Growth) -> Figure | None:
    """The volume that the front dominates, over trials, time and what the trials cost."""
    if not growth.ids:
        return None
    count = min(3, len(growth.spent))
    figure = Figure(figsize=(3.4 + 3.0 * count, 3.2), layout="constrained")
    grid = figure.subplots(1, count, squeeze=False, sharey=True)
    for axes, (title, spent) in zip(grid[0], growth.spent.items(), strict=False):
        axes.step(spent, growth.hypervolume, where="post", color=colour(0), marker=".")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel(title)
    grid[0, 0].set_ylabel("hypervolume (higher is better)")
    return figure
