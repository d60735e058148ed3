"""Risk-coverage curves as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from trustsweep.distributed.report.palette import QUIET, colour
from trustsweep.distributed.report.sections.referral import ERRORS, Abstention
from trustsweep.distributed.report.wording import roles
from trustsweep.distributed.run.folder import Run


def draw(run: Run, models: list[Abstention]) -> Figure | None:
    """The error among the images that are answered against their share, by condition."""
    names = list(dict.fromkeys(name for model in models for name in model.curves))
    if not names:
        return None
    shown, role_of = [e.id for e in run.spotlight], roles(run)
    error = models[0].error
    figure = Figure(figsize=(1.0 + 3.6 * len(names), 3.8), layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axes, name in zip(grid[0], names, strict=True):
        for model in (m for m in models if name in m.curves):
            place = shown.index(model.id) if model.id in shown else None
            curve = model.curves[name]
            axes.plot(
                curve["coverage"], curve["risk"], color=QUIET if place is None else colour(place),
                lw=0.9 if place is None else 1.8, zorder=2 if place is None else 3,
                label=None if place is None else f"trial {model.id}, {role_of[model.id]}",
            )  # fmt: skip
        axes.set_title(name, fontsize=10)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if error == "class":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the images that are answered")
    grid[0, 0].set_ylabel(f"{ERRORS[error]} among them")
    grid[0, 0].set_ylim(bottom=0)  # of all: they share it
    grid[0, 0].legend(fontsize=8)
    return figure
