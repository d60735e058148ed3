"""The front over its first two objectives, as PNG."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trustsweep.distributed.report.drawing import axis_title, single_axes
from trustsweep.distributed.report.palette import QUIET, WARNING, colour, mark
from trustsweep.distributed.report.sections.front import FrontData
from trustsweep.distributed.run.folder import MASKED, Run
from trustsweep.distributed.run.optimism import FrontEstimate
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.statistics.inference import Estimate


def draw(run: Run, data: FrontData) -> Figure | None:
    """Completed trials over the first two objectives; the front joined as the stairs it reaches."""
    if len(run.objectives) < 2 or not run.front:
        return None
    x, y = run.objectives[:2]
    trials = [t for t in run.completed if x.name in t.metrics and y.name in t.metrics]
    key = "method" if "method" in run.config_keys else None
    groups = sorted({str(t.config.get(key, "")) for t in trials}) if key else [""]
    figure, axes = single_axes(6.4, 4.4)
    for i, group in enumerate(groups):
        members = [t for t in trials if not key or str(t.config.get(key, "")) == group]
        across, up = ([t.metrics[m.name] for t in members] for m in (x, y))
        axes.scatter(
            across, up, s=34, alpha=0.8, color=colour(i), marker=mark(i),
            label=group or "completed trials", linewidths=0,
        )  # fmt: skip
    cut = [t.metrics for t in run.stopped if x.name in t.metrics and y.name in t.metrics]
    if cut:
        axes.scatter(
            [m[x.name] for m in cut], [m[y.name] for m in cut], s=20, alpha=0.35, color=QUIET,
            marker="x", linewidths=0.9, label="stopped early (figures so far)", zorder=0,
        )  # fmt: skip
    best = np.array(sorted([t.metrics[x.name], t.metrics[y.name]] for t in run.front))
    if len(run.objectives) == 2:
        stairs = "steps-pre" if x.direction == "max" else "steps-post"
        axes.plot(*best.T, drawstyle=stairs, color="#30363d", lw=1.2, zorder=1)
    _on_test(axes, data.estimates, x, y)
    axes.scatter(
        best[:, 0], best[:, 1], s=95, facecolors="none", edgecolors="#30363d", label="on the front"
    )
    blind = [t.metrics for t in trials if t.id in run.remarks]
    if blind:
        axes.scatter(
            [m[x.name] for m in blind], [m[y.name] for m in blind], s=80, color="#30363d",
            marker="x", linewidths=1.2, label="trivial: one answer for all, or no better",
        )  # fmt: skip
    masked = [t.metrics for t in trials if t.id in run.masked]
    if masked:
        axes.scatter(
            [m[x.name] for m in masked], [m[y.name] for m in masked], s=200, marker="^",
            facecolors="none", edgecolors=WARNING, linewidths=1.2, label=MASKED,
        )  # fmt: skip
    axes.set_xlabel(axis_title(x, "validation"))
    axes.set_ylabel(axis_title(y, "validation"))
    axes.legend(fontsize=8, labelspacing=0.9)
    return figure


def _on_test(axes: Axes, estimates: list[FrontEstimate], x: Objective, y: Objective) -> None:
    """The front's models on the test split with their intervals, joined with their places."""
    by_model: dict[str, dict[str, FrontEstimate]] = {}
    for estimate in estimates:
        by_model.setdefault(estimate.model, {})[estimate.objective.name] = estimate
    label: str | None = "the same on test, 95 %"
    for by_objective in by_model.values():
        if x.name not in by_objective or y.name not in by_objective:
            continue
        across, up = by_objective[x.name], by_objective[y.name]
        if not np.isfinite([across.quoted.value, up.quoted.value]).all():
            continue
        axes.plot(
            [across.validation.value, across.quoted.value],
            [up.validation.value, up.quoted.value],
            color=QUIET, lw=0.9, ls=":", zorder=1,
        )  # fmt: skip
        reach = [[[_end(c.quoted, "low")], [_end(c.quoted, "high")]] for c in (across, up)]
        axes.errorbar(
            across.quoted.value, up.quoted.value, xerr=reach[0], yerr=reach[1], marker="D", ms=5,
            mfc="white", mec="#30363d", ecolor=QUIET, elinewidth=0.8, ls="", label=label, zorder=3,
        )  # fmt: skip
        label = None


def _end(estimate: Estimate, name: str) -> float:
    """How far an interval reaches to one side of its figure."""
    reach = estimate.value - estimate.low if name == "low" else estimate.high - estimate.value
    return max(0.0, float(np.nan_to_num(reach)))
