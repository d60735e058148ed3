"""Metrics against the attack's budget, as PNG."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trustsweep.distributed.report.evaluated import search_curves
from trustsweep.distributed.report.palette import QUIET, colour, mark
from trustsweep.distributed.report.sections.under_attack import UnderAttack
from trustsweep.distributed.report.wording import roles
from trustsweep.distributed.run.folder import Run


def draw(run: Run, data: UnderAttack) -> Figure | None:
    """Test metrics of the front's models against the attack budget, beside the best predictor
    that ignores the image."""
    models, trivial = data.models, data.trivial or {}
    names = list(dict.fromkeys(n for m in models for n in m.curves if n != "epsilon"))
    if not names:
        return None
    shown, role_of = [m.id for m in run.spotlight], roles(run)
    figure = Figure(figsize=(2.2 + 4.2 * len(names), 3.8), layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False)
    for axes, name in zip(grid[0], names, strict=True):
        for model in models:
            place = shown.index(model.id) if model.id in shown else None
            axes.plot(
                model.curves["epsilon"], model.curves[name],
                color=QUIET if place is None else colour(place),
                marker="." if place is None else mark(place),
                lw=0.9 if place is None else 1.8, zorder=2 if place is None else 3,
                label=None if place is None else f"trial {model.id}, {role_of[model.id]}",
            )  # fmt: skip
            if place is not None and name in (searched := search_curves(model)):
                axes.plot(
                    model.curves["epsilon"], searched[name], color=colour(place), lw=1.0, ls="--",
                    label="attack of the search" if not place else None,
                )  # fmt: skip
        if name in trivial:
            axes.axhline(trivial[name], color=QUIET, lw=1.2, ls=":", label="ignores the image")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel("attack budget ε on the [0, 1] pixel scale")
        axes.set_ylabel(f"{name} on the test split")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure
