"""Importances as PNG."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from trustsweep.distributed.report.drawing import single_axes
from trustsweep.distributed.report.palette import colour
from trustsweep.distributed.report.sections.importances import Estimated


def draw(data: Estimated) -> Figure | None:
    """Share of each objective's variance per parameter."""
    shares = data.importances
    by_objective = {n: s for n, s in shares.shares.items() if s is not None} if shares else {}
    if shares is None or not by_objective:
        return None
    figure, axes = single_axes(6.4, 1.2 + 0.26 * len(shares.parameters) * len(by_objective))
    order = np.argsort([max(column) for column in zip(*by_objective.values(), strict=True)])
    height = 0.8 / len(by_objective)
    for i, (name, values) in enumerate(by_objective.items()):
        rows = np.arange(len(order)) + (len(by_objective) - 1 - 2 * i) * height / 2
        axes.barh(rows, np.array(values)[order], height, color=colour(i), label=name)
    axes.set_yticks(np.arange(len(order)), [shares.parameters[i] for i in order])
    axes.grid(axis="y", visible=False)
    estimator = data.estimator.partition(" ")[0]
    axes.set_xlabel(f"share of variance, {estimator}, {shares.trials} trials")
    axes.legend(loc="lower right")
    return figure
