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

from distributed.report.importance import ESTIMATOR, Importances
from distributed.report.panel import Panel
from distributed.report.parallel import Axis, Line
from distributed.report.wording import BETTER, roles
from distributed.run_folder import Evaluation, Run

# Okabe and Ito's palette, told apart by every kind of colour vision; marks differ in shape as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
QUIET = "#9aa3ad"
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
    "hypervolume",
    "parallel",
    "importances",
    "dice_vs_epsilon",
    "reliability",
    "panel",
)


def write_figures(
    run: Run,
    shares: Importances | None,
    coordinates: tuple[list[Axis], list[Line]],
    panels: list[Panel],
) -> list[Path]:
    """Draw what the run has data for into `<run>/figures/`; returns the files written.

    A figure left there by an earlier report is removed if it can no longer be drawn.
    """
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "front": lambda: front(run),
        "hypervolume": lambda: hypervolume(run),
        "parallel": lambda: parallel(run, *coordinates),
        "importances": lambda: importance_bars(shares),
        "dice_vs_epsilon": lambda: dice_curves(run),
        "reliability": lambda: reliability(run.spotlight),
        "panel": lambda: panel_sheet(panels),
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
            across, up, s=34, alpha=0.8, color=PALETTE[i % 6], marker=MARKERS[i % 6],
            label=group or "completed trials", linewidths=0,
        )  # fmt: skip
    best = np.array(sorted([t.metrics[x.name], t.metrics[y.name]] for t in run.front))
    if len(run.objectives) == 2:
        stairs = "steps-pre" if x.direction == "max" else "steps-post"
        axes.plot(*best.T, drawstyle=stairs, color="#30363d", lw=1.2, zorder=1)
    axes.scatter(
        best[:, 0], best[:, 1], s=95, facecolors="none", edgecolors="#30363d", label="on the front"
    )
    axes.set_xlabel(f"{x.name} ({BETTER[x.direction]})")
    axes.set_ylabel(f"{y.name} ({BETTER[y.direction]})")
    axes.legend()
    return figure


def hypervolume(run: Run) -> Figure | None:
    """The volume that the front dominates, after each finished trial."""
    if not run.history:
        return None
    figure, axes = _axes(6.4, 3.2)
    axes.step(
        [s.trial for s in run.history], [s.hypervolume for s in run.history],
        where="post", color=PALETTE[0], marker=".",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials finished")
    axes.set_ylabel("hypervolume (higher is better)")
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
    axes.set_title(f"bright: high {run.objectives[0].name}", loc="right", fontsize=9)
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
        axes.barh(rows, np.array(values)[order], height, color=PALETTE[i % 6], label=name)
    axes.set_yticks(np.arange(len(order)), [shares.parameters[i] for i in order])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"share of variance, {ESTIMATOR.partition(' ')[0]}, {shares.trials} trials")
    axes.legend(loc="lower right")
    return figure


def dice_curves(run: Run) -> Figure | None:
    """Dice of the front's models on the test split against the attack budget."""
    models = [run.evaluations[t.id] for t in run.front if t.id in run.evaluations]
    models = [m for m in models if m.curves.get("epsilon") and m.curves.get("dice")]
    if not models:
        return None
    figure, axes = _axes(6.4, 3.8)
    shown, told = [m.id for m in run.spotlight], roles(run)
    for model in models:
        place = shown.index(model.id) if model.id in shown else None
        axes.plot(
            model.curves["epsilon"], model.curves["dice"],
            color=QUIET if place is None else PALETTE[place],
            marker="." if place is None else MARKERS[place],
            lw=0.9 if place is None else 1.8, zorder=2 if place is None else 3,
            label=None if place is None else f"trial {model.id}, {told[model.id]}",
        )  # fmt: skip
    axes.set_xlabel("attack budget ε on the [0, 1] pixel scale")
    axes.set_ylabel("Dice on the test split")
    axes.legend()
    return figure


def reliability(models: list[Evaluation]) -> Figure | None:
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
            upper.plot(
                confidence, accuracy, color=PALETTE[i % 6], marker=MARKERS[i % 6], ms=4, label=name
            )
            lower.plot(confidence, count, color=PALETTE[i % 6], marker=MARKERS[i % 6], ms=3)
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
    grid = figure.subplots(len(rows), 9, squeeze=False)
    for line, (panel, row) in zip(grid, rows, strict=True):
        for cell, tile in zip(line, (row.truth, *row.clean, *row.attacked), strict=True):
            cell.imshow(tile.pixels, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
        if row is panel.rows[0]:
            line[0].set_ylabel(f"trial {panel.id}")
    clean, attacked = heads, [f"{h}\nattacked, ε = {panels[0].epsilon:g}" for h in heads]
    for cell, title in zip(grid[0], ("truth", *clean, *attacked), strict=True):
        cell.set_title(title, fontsize=8.5)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _filled(bins: dict[str, list[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and count of the bins that hold anything."""
    confidence, accuracy, count = (
        np.array(bins[k], dtype=float) for k in ("confidence", "accuracy", "count")
    )
    kept = count > 0
    return confidence[kept], accuracy[kept], count[kept]
