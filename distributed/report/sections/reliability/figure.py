"""Reliability diagrams as PNG."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trustsweep.distributed.report.palette import QUIET, colour, mark
from trustsweep.distributed.run.evaluation_card import Bins, EvaluationCard


def draw(models: list[EvaluationCard], axes: tuple[str, str]) -> Figure | None:
    """Accuracy against confidence (or what else the axes are called), clean and attacked, with the
    counts beneath."""
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
        lower.set_xlabel(axes[0])
    grid[0, 0].set_ylabel(axes[1])
    grid[1, 0].set_ylabel("count")
    grid[0, 0].legend()
    return figure


def _filled(bins: Bins) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and count of the bins that hold anything."""
    confidence, accuracy, count = (
        np.array(values, dtype=float) for values in (bins.confidence, bins.accuracy, bins.count)
    )
    kept = count > 0
    return confidence[kept], accuracy[kept], count[kept]
