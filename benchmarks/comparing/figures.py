"""Figures of the models of a comparison: over folds and seeds, by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparing.models import EvaluatedModel
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.statistics.inference import Estimate, Floats, Statistic, bootstrap
from trustsweep.trainables.tasks import task_named

#: Of one model: how often each of its test samples was drawn, (r, n), to values (r,).
Figure = Callable[[EvaluatedModel], Statistic]


@dataclass(frozen=True)
class Arm:
    """The models of one method (or ablation) on one data set: by fold, one for each seed.

    Every patient is a test patient of one fold.
    """

    folds: Sequence[Sequence[EvaluatedModel]]

    def values(self, figure: Figure) -> list[float]:
        """By fold, the mean over its seeds."""
        return [float(np.mean([_value(figure, model) for model in fold])) for fold in self.folds]

    def by_seed(self, figure: Figure) -> list[list[float]]:
        """By fold and seed."""
        return [[_value(figure, model) for model in fold] for fold in self.folds]

    @property
    def patients(self) -> list[tuple[int, str]]:
        """Of the test samples of all folds, in order."""
        return [(i, who) for i, fold in enumerate(self.folds) for who in fold[0].patients]

    def statistic(self, figure: Figure) -> Statistic:
        """Of the samples of all folds: the mean over folds and seeds."""
        sizes = [len(fold[0].patients) for fold in self.folds]
        ends = np.cumsum(sizes)
        made = [[figure(model) for model in fold] for fold in self.folds]

        def statistic(weights: Floats) -> Floats:
            parts = zip(made, ends - sizes, ends, strict=True)
            folds = [
                np.mean([model(weights[:, start:end]) for model in fold], axis=0)
                for fold, start, end in parts
            ]
            return np.asarray(np.mean(folds, axis=0), dtype=np.float64)

        return statistic


def by_patient(
    arm: Arm,
    figure: Figure,
    other: Arm | None = None,
    share: float = 1.0,
    against: Figure | None = None,
) -> Estimate:
    """A figure with its interval, or what it lies above `share` times another arm's.

    The other arm's figure is `against`; None for the same one.
    """
    mine = arm.statistic(figure)
    if other is None:
        return bootstrap(mine, arm.patients)
    if arm.patients != other.patients:
        raise ValueError("arms of different test samples")
    theirs = other.statistic(against or figure)
    return bootstrap(lambda weights: mine(weights) - share * theirs(weights), arm.patients)


def _value(figure: Figure, model: EvaluatedModel) -> float:
    return float(figure(model)(np.ones((1, len(model.patients))))[0])


def under(task: TaskName, name: str, chosen: Callable[[str], bool]) -> Figure:
    """The mean over the conditions chosen, by a name of `Task.statistics`."""
    return meaned(task_named(task).statistics[name], chosen)


def meaned(make: Callable[[Mapping[str, Any]], Statistic], chosen: Callable[[str], bool]) -> Figure:
    """The mean over the conditions chosen of what is made of each one's columns."""

    def figure(model: EvaluatedModel) -> Statistic:
        parts = [make(columns) for condition, columns in model.scores.items() if chosen(condition)]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)

    return figure


def of_card(*path: str) -> Callable[[EvaluatedModel], float]:
    """A number of the card, NaN where it has none."""

    def figure(model: EvaluatedModel) -> float:
        value: Any = model.card
        for key in path:
            value = value.get(key, {}) if isinstance(value, Mapping) else {}
        return float(value) if isinstance(value, int | float) else math.nan

    return figure


def card_values(arm: Arm, path: tuple[str, ...]) -> list[float]:
    """Of a number of the cards, by fold, the mean over its seeds."""
    figure = of_card(*path)
    return [float(np.mean([figure(model) for model in fold])) for fold in arm.folds]


def rows(
    arms: Mapping[str, Arm],
    columns: Mapping[str, Figure],
    card_columns: Mapping[str, tuple[str, ...]],
) -> dict[str, dict[str, list[list[float]]]]:
    """Every figure by arm, column, fold and seed, ready for JSON."""
    return {
        name: {column: arm.by_seed(figure) for column, figure in columns.items()}
        | {
            column: [[of_card(*path)(model) for model in fold] for fold in arm.folds]
            for column, path in card_columns.items()
        }
        for name, arm in arms.items()
    }
