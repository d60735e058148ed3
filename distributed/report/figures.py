"""The report's figures as PNG files, for papers and slides. No browser and no display needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from distributed.report.attacks import search_curves
from distributed.report.class_figures import corruption_curves, risk_coverage
from distributed.report.class_panel import Answer, ClassPanel
from distributed.report.contents import Contents
from distributed.report.costs import Growth
from distributed.report.importance import ESTIMATOR, Importances
from distributed.report.palette import PALETTE, QUIET, WARNING, colour, mark
from distributed.report.panel import Panel
from distributed.report.parallel import Axis, Line
from distributed.report.seeds import middle
from distributed.report.wording import BETTER, roles
from distributed.run.evaluation_card import Bins, EvaluationCard
from distributed.run.folder import COST_PREFIX, MASKED, Run
from distributed.run.optimism import SPLITS, Choice, choices
from distributed.statistics.front import Objective
from distributed.statistics.inference import Estimate

#: The part of cividis that shows on white: its yellow end does not.
BRIGHTEST = 0.88
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
NAMES = (
    "front",
    "front_over_seeds",
    "hypervolume",
    "parallel",
    "importances",
    "under_attack",
    "reliability",
    "risk_coverage",
    "corruptions",
    "panel",
)


def write_figures(contents: Contents) -> list[Path]:
    """Draw what the run has data for into `<run>/figures/`; returns the files written.

    A figure left there by an earlier report is removed if it can no longer be drawn.
    """
    run = contents.run
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "front": lambda: front(run),
        "front_over_seeds": lambda: front_over_seeds(contents),
        "hypervolume": lambda: hypervolume(contents.growth),
        "parallel": lambda: parallel(run, contents.axes, contents.lines),
        "importances": lambda: importance_bars(contents.shares),
        "under_attack": lambda: attack_curves(contents),
        "reliability": lambda: reliability(run.spotlight),
        "risk_coverage": lambda: risk_coverage(run, contents.abstentions),
        "corruptions": lambda: corruption_curves(contents.worsenings),
        "panel": lambda: panel_sheet(contents.panels) or class_sheet(contents.class_panels),
    }
    written = []
    with matplotlib.rc_context(STYLE):
        for name in NAMES:
            path = folder / f"{name}.png"
            figure = drawings[name]()
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                figure.savefig(path)
                written.append(path)
    return written


def front(run: Run) -> Figure | None:
    """Completed trials over the first two objectives; the front joined as the stairs it reaches."""
    if len(run.objectives) < 2 or not run.front:
        return None
    x, y = run.objectives[:2]
    trials = [t for t in run.completed if x.name in t.metrics and y.name in t.metrics]
    key = "trainable" if "trainable" in run.config_keys else None
    groups = sorted({str(t.config.get(key, "")) for t in trials}) if key else [""]
    figure, axes = _axes(6.4, 4.4)
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
    _on_test(axes, run, x, y)
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
    axes.set_xlabel(_axis(x, "validation"))
    axes.set_ylabel(_axis(y, "validation"))
    axes.legend(fontsize=8, labelspacing=0.9)
    return figure


def _axis(objective: Objective, split: str) -> str:
    """A title that says on which split the figures are; costs are of none."""
    where = f" on {split}" if split and not objective.name.startswith(COST_PREFIX) else ""
    return f"{objective.name}{where} ({BETTER[objective.direction]})"


def _on_test(axes: Axes, run: Run, x: Objective, y: Objective) -> None:
    """The front's models on the test split with their intervals, joined with their places."""
    by_model: dict[str, dict[str, Choice]] = {}
    for choice in choices(run):
        by_model.setdefault(choice.model, {})[choice.objective.name] = choice
    label: str | None = "the same on test, 95 %"
    for found in by_model.values():
        if x.name not in found or y.name not in found:
            continue
        across, up = found[x.name], found[y.name]
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


def _end(found: Estimate, name: str) -> float:
    """How far an interval reaches to one side of its figure."""
    reach = found.value - found.low if name == "low" else found.high - found.value
    return max(0.0, float(np.nan_to_num(reach)))


def front_over_seeds(contents: Contents) -> Figure | None:
    """The attainment surfaces of the front's repeats, and the models of each seed."""
    if not contents.stairs:
        return None
    x, y = contents.run.objectives
    total = len(contents.repeats.surfaces)
    figure, axes = _axes(6.4, 4.4)
    for stairs in contents.stairs:
        told = _surface_names(total).get(stairs.seeds)
        axes.plot(
            stairs.x, stairs.y, label=told, color="#30363d" if told else QUIET,
            lw=2.0 if stairs.seeds == middle(total) else 1.0 if told else 0.7,
            ls="--" if told and stairs.seeds != middle(total) else "-",
        )  # fmt: skip
    for i, seed in enumerate(contents.points):
        axes.scatter(
            seed.x, seed.y, s=26, alpha=0.8, color=colour(i), marker=mark(i),
            linewidths=0, label=f"seed {seed.seed}" if i < len(PALETTE) else None,
        )  # fmt: skip
    splits = [SPLITS.get(contents.repeats.split(o.name), "") for o in (x, y)]
    axes.set_xlabel(_axis(x, splits[0]))
    axes.set_ylabel(_axis(y, splits[1]))
    axes.legend(fontsize=8)
    return figure


def _surface_names(total: int) -> dict[int, str]:
    """The staircases that the legend names, by the number of seeds that attain them."""
    named = {1: "attained by at least one seed", total: f"by all {total}"}
    return named | {middle(total): f"by half of them ({middle(total)})"} if total > 2 else named


def hypervolume(growth: Growth) -> Figure | None:
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


def parallel(run: Run, axes_drawn: list[Axis], lines: list[Line]) -> Figure | None:
    """Each completed trial a line across parameters and objectives, coloured by the first one."""
    if not lines:
        return None
    figure, axes = _axes(max(6.4, 1.05 * len(axes_drawn)), 4.2)
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


def importance_bars(shares: Importances | None) -> Figure | None:
    """Share of each objective's variance per parameter."""
    told = {n: s for n, s in shares.shares.items() if s is not None} if shares else {}
    if shares is None or not told:
        return None
    figure, axes = _axes(6.4, 1.2 + 0.26 * len(shares.parameters) * len(told))
    order = np.argsort([max(column) for column in zip(*told.values(), strict=True)])
    height = 0.8 / len(told)
    for i, (name, values) in enumerate(told.items()):
        rows = np.arange(len(order)) + (len(told) - 1 - 2 * i) * height / 2
        axes.barh(rows, np.array(values)[order], height, color=colour(i), label=name)
    axes.set_yticks(np.arange(len(order)), [shares.parameters[i] for i in order])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"share of variance, {ESTIMATOR.partition(' ')[0]}, {shares.trials} trials")
    axes.legend(loc="lower right")
    return figure


def attack_curves(contents: Contents) -> Figure | None:
    """What the front's models reach on the test split against the attack budget, and the best
    predictor that ignores the image beside them."""
    run, trivial = contents.run, contents.beside.reached if contents.beside else {}
    models = [card for card in run.judged if card.curves.get("epsilon")]
    names = list(dict.fromkeys(n for m in models for n in m.curves if n != "epsilon"))
    if not names:
        return None
    shown, told = [m.id for m in run.spotlight], roles(run)
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
                label=None if place is None else f"trial {model.id}, {told[model.id]}",
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


def reliability(models: list[EvaluationCard]) -> Figure | None:
    """Accuracy against confidence, clean and attacked, with the counts beneath."""
    models = [m for m in models if m.reliability]
    if not models:
        return None
    figure = Figure(figsize=(3.3 * len(models), 4.4), layout="constrained")
    grid = figure.subplots(
        2, len(models), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (upper, lower), model in zip(grid.T, models, strict=True):
        upper.plot([0, 1], [0, 1], color=QUIET, lw=1, ls="--")
        for i, (name, bins) in enumerate(model.reliability.items()):
            confidence, accuracy, count = _filled(bins)
            upper.plot(confidence, accuracy, color=colour(i), marker=mark(i), ms=4, label=name)
            lower.plot(confidence, count, color=colour(i), marker=mark(i), ms=3)
        upper.set_title(f"trial {model.id}", fontsize=10)
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(EngFormatter(sep=""))
        lower.set_xlabel("confidence")
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("count")
    grid[0, 0].legend()
    return figure


def panel_sheet(panels: list[Panel]) -> Figure | None:
    """Test images: truth, then image, prediction, uncertainty and error, clean and attacked."""
    rows = [(panel, row) for panel in panels for row in panel.rows]
    if not rows:
        return None
    heads = ("image", "prediction", "uncertainty", "error")
    figure = Figure(figsize=(10.8, 1.16 * len(rows) + 0.6), layout="constrained")
    columns = 1 + len(rows[0][1].clean) + len(rows[0][1].attacked)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (panel, row) in zip(grid, rows, strict=True):
        for cell, tile in zip(line, (row.truth, *row.clean, *row.attacked), strict=True):
            cell.imshow(tile.pixels, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
        if row is panel.rows[0]:
            line[0].set_ylabel(f"trial {panel.id}")
    clean, attacked = heads, [f"{h}\nattacked, ε = {panels[0].epsilon:g}" for h in heads]
    for cell, title in zip(grid[0], ("truth", *clean, *attacked)[:columns], strict=True):
        cell.set_title(title, fontsize=8.5)
    return figure


def class_sheet(panels: list[ClassPanel]) -> Figure | None:
    """Test images and the class that each model gives them, clean and attacked."""
    rows = [(panel, row) for panel in panels for row in panel.rows]
    if not rows:
        return None
    columns = 3 if rows[0][1].attacked else 1
    figure = Figure(figsize=(0.4 + 2.4 * columns, 1.9 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (panel, row) in zip(grid, rows, strict=True):
        shown = [(row.clean, _told(row.answer, row.truth))]
        if worse := row.attacked:
            shown += [
                (worse.image, _told(worse.answer, row.truth)),
                (worse.moved, f"moved, within ε = {panel.epsilon:g}"),
            ]
        for cell, (tile, title) in zip(line, shown, strict=True):
            cell.imshow(tile.pixels, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
            cell.set_title(title, fontsize=8.5)
        line[0].set_ylabel(f"trial {panel.id}", fontsize=8.5)
    return figure


def _told(answer: Answer, truth: str) -> str:
    verdict = "right" if answer.right else f"is {truth}"
    return f"{answer.name} {answer.probability:.2f} ({verdict})"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _filled(bins: Bins) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and count of the bins that hold anything."""
    confidence, accuracy, count = (
        np.array(values, dtype=float) for values in (bins.confidence, bins.accuracy, bins.count)
    )
    kept = count > 0
    return confidence[kept], accuracy[kept], count[kept]
