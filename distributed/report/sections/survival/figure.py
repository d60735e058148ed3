"""Survival by predicted risk as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure

from trustsweep.distributed.report.palette import colour, mark
from trustsweep.distributed.report.sections.survival import RiskCurves


def draw(data: list[RiskCurves]) -> Figure | None:
    """Kaplan and Meier's estimate of each third of the patients, and the mean prediction."""
    if not data:
        return None
    figure = Figure(figsize=(3.6 * len(data), 3.6), layout="constrained")
    grid = figure.subplots(1, len(data), squeeze=False, sharey=True)
    for axes, curves in zip(grid[0], data, strict=True):
        edges = curves.survival.edges
        for i, group in enumerate(curves.survival.groups[curves.condition]):
            label = f"{group.name}: {group.events} of {group.patients}"
            axes.step(group.time, group.alive, where="post", color=colour(i), label=label)
            points = [1.0, *group.predicted]
            axes.plot(edges, points, color=colour(i), marker=mark(i), ms=4, lw=0.8, ls="--")
        axes.set_title(f"trial {curves.id}, {curves.condition}", fontsize=10)
        axes.set_xlabel(curves.survival.unit)
        axes.legend(fontsize=7)
    grid[0, 0].set_ylabel("share without the event")
    grid[0, 0].set_ylim(0, 1.02)
    return figure
