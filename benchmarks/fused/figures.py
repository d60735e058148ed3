"""What is told of the models of benchmarks/fusion.py: figures, over folds and seeds, by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.schema import Task
from distributed.statistics.estimates import STATISTICS
from distributed.statistics.inference import Estimate, Floats, Statistic, bootstrap
from fused.models import Judged

#: What the study `fusion-arms` calls DRAF.
METHOD = "baseline"
BASELINES = (
    "early-fusion",
    "late-fusion-mean",
    "late-fusion-majority",
    "mda",
    "drifa-net",
    "healnet",
    "drfuse",
)

#: Of one model: how often each of its test samples was drawn, (r, n), to values (r,).
Figure = Callable[[Judged], Statistic]


@dataclass(frozen=True)
class Arm:
    """The models of one method (or ablation) on one data set: by fold, one for each seed.

    Every patient is a test patient of one fold.
    """

    folds: Sequence[Sequence[Judged]]

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


def by_patient(arm: Arm, figure: Figure, other: Arm | None = None, share: float = 1.0) -> Estimate:
    """A figure with its interval, or what it lies above `share` times another arm's."""
    mine = arm.statistic(figure)
    if other is None:
        return bootstrap(mine, arm.patients)
    if arm.patients != other.patients:
        raise ValueError("arms of different test samples")
    theirs = other.statistic(figure)
    return bootstrap(lambda weights: mine(weights) - share * theirs(weights), arm.patients)


def _value(figure: Figure, model: Judged) -> float:
    return float(figure(model)(np.ones((1, len(model.patients))))[0])


def clean(name: str) -> Figure:
    """Of the clean images, by a name of `STATISTICS`."""
    return _under(lambda condition: condition == "clean", name)


def corrupted(name: str, kind: str = "") -> Figure:
    """The mean over all severities of one corruption, or of all."""
    return _under(lambda condition: condition.startswith(f"corrupted@{kind}"), name)


def _under(chosen: Callable[[str], bool], name: str) -> Figure:
    make = STATISTICS[Task.CLASSIFICATION][name]

    def figure(model: Judged) -> Statistic:
        parts = [make(columns) for condition, columns in model.scores.items() if chosen(condition)]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)

    return figure


def drop(model: Judged) -> Statistic:
    """Loss of AUROC in % of the clean one, mean over every corruption and severity."""
    worse, whole = corrupted("auroc")(model), clean("auroc")(model)
    return lambda weights: 100 * (1 - worse(weights) / whole(weights))


def noise(model: Judged) -> Statistic:
    """AUROC under Gaussian noise, of images or of values."""
    kinds = ("gaussian-noise", "value-noise")
    kind = next(k for k in kinds if f"corrupted@{k}-1" in model.scores)
    return corrupted("auroc", kind)(model)


def gain(model: Judged) -> Statistic:
    """Macro precision of the answers that the model is sure of, less that of all answers."""
    columns = model.scores["clean"]
    truth, predicted = columns["truth"], columns["predicted"]
    sure = columns["uncertainty"] <= model.threshold
    whole = _precision(truth, predicted, np.ones(len(truth), dtype=bool))
    part = _precision(truth, predicted, sure)
    return lambda weights: part(weights) - whole(weights)


def _precision(truth: NDArray[Any], predicted: NDArray[Any], kept: NDArray[np.bool_]) -> Statistic:
    """Mean over the classes that are predicted at all."""
    classes = np.unique(truth)
    said = (predicted[:, None] == classes) & kept[:, None]
    right = said & (truth[:, None] == classes)

    def statistic(weights: Floats) -> Floats:
        named, hit = weights @ said, weights @ right
        there = named > 0
        ratio = np.divide(hit, named, out=np.zeros_like(hit), where=there)
        count = there.sum(axis=1)
        return np.where(count > 0, ratio.sum(axis=1) / np.maximum(count, 1), math.nan)

    return statistic


def of_card(*path: str) -> Callable[[Judged], float]:
    """A number of the card, NaN where it has none."""

    def figure(model: Judged) -> float:
        found: Any = model.card
        for key in path:
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        return float(found) if isinstance(found, int | float) else math.nan

    return figure


def card_values(arm: Arm, path: tuple[str, ...]) -> list[float]:
    """Of a number of the cards, by fold, the mean over its seeds."""
    figure = of_card(*path)
    return [float(np.mean([figure(model) for model in fold])) for fold in arm.folds]


#: The columns of a table: what samples tell, and what only the cards have.
COLUMNS: dict[str, Figure] = {
    "AUROC": clean("auroc"),
    "mixed quality": corrupted("auroc", "mixed-quality"),
    "missing": corrupted("auroc", "modality-drop"),
    "noise": noise,
    "drop %": drop,
    "accuracy": clean("accuracy"),
    "ECE": clean("ece"),
    "ECE, corrupted": corrupted("ece"),
    "Brier": clean("brier"),
    "NLL": clean("nll"),
    "abstention": gain,
}
CARD_COLUMNS: dict[str, tuple[str, ...]] = {
    "held-out site": ("ood", "clean.auroc"),
    "ECE, site": ("ood", "clean.ece"),
    "ECE floor": ("metrics", "clean.ece_floor"),
    "ρ(r, severity)": ("reliance", "within"),
}


def rows(arms: Mapping[str, Arm]) -> dict[str, dict[str, list[list[float]]]]:
    """Every figure by arm, column, fold and seed, ready for JSON."""
    return {
        name: {column: arm.by_seed(figure) for column, figure in COLUMNS.items()}
        | {
            column: [[of_card(*path)(model) for model in fold] for fold in arm.folds]
            for column, path in CARD_COLUMNS.items()
        }
        for name, arm in arms.items()
    }
