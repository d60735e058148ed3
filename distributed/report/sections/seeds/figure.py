"""The attainment surfaces of the front's repeats, as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure

from trustsweep.distributed.report.drawing import axis_title, single_axes
from trustsweep.distributed.report.palette import PALETTE, QUIET, colour, mark
from trustsweep.distributed.report.sections.seeds import Seeds, middle
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import SPLITS


def draw(run: Run, data: Seeds) -> Figure | None:
    """The attainment surfaces of the front's repeats, and the models of each seed."""
    if not data.stairs:
        return None
    x, y = run.objectives
    total = len(data.repeats.surfaces)
    figure, axes = single_axes(6.4, 4.4)
    for stairs in data.stairs:
        name = _surface_names(total).get(stairs.seeds)
        axes.plot(
            stairs.x, stairs.y, label=name, color="#30363d" if name else QUIET,
            lw=2.0 if stairs.seeds == middle(total) else 1.0 if name else 0.7,
            ls="--" if name and stairs.seeds != middle(total) else "-",
        )  # fmt: skip
    for i, seed in enumerate(data.points):
        axes.scatter(
            seed.x, seed.y, s=26, alpha=0.8, color=colour(i), marker=mark(i),
            linewidths=0, label=f"seed {seed.seed}" if i < len(PALETTE) else None,
        )  # fmt: skip
    splits = [SPLITS.get(data.repeats.split(o.name), "") for o in (x, y)]
    axes.set_xlabel(axis_title(x, splits[0]))
    axes.set_ylabel(axis_title(y, splits[1]))
    axes.legend(fontsize=8)
    return figure


def _surface_names(total: int) -> dict[int, str]:
    """The staircases that the legend names, by the number of seeds that attain them."""
    named = {1: "attained by at least one seed", total: f"by all {total}"}
    return named | {middle(total): f"by half of them ({middle(total)})"} if total > 2 else named
