"""Metrics of the models of benchmarks/fusion.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from comparing.figures import Figure, under
from comparing.models import EvaluatedModel
from numpy.typing import NDArray

from fused.models import threshold
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.statistics.inference import Floats, Statistic

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


def clean(name: str) -> Figure:
    """Of the clean images, by a name of `STATISTICS`."""
    return under(TaskName.CLASSIFICATION, name, lambda condition: condition == "clean")


def corrupted(name: str, kind: str = "") -> Figure:
    """The mean over all severities of one corruption, or of all."""
    return under(TaskName.CLASSIFICATION, name, lambda c: c.startswith(f"corrupted@{kind}"))


def drop(model: EvaluatedModel) -> Statistic:
    """Loss of AUROC in % of the clean one, mean over every corruption and severity."""
    degraded, whole = corrupted("auroc")(model), clean("auroc")(model)
    return lambda weights: 100 * (1 - degraded(weights) / whole(weights))


def noise(model: EvaluatedModel) -> Statistic:
    """AUROC under Gaussian noise, of images or of values."""
    kinds = ("gaussian-noise", "value-noise")
    kind = next(k for k in kinds if f"corrupted@{k}-1" in model.scores)
    return corrupted("auroc", kind)(model)


def gain(model: EvaluatedModel) -> Statistic:
    """Macro precision of the answers that the model is sure of, less that of all answers."""
    columns = model.scores["clean"]
    truth, predicted = columns["truth"], columns["predicted"]
    sure = columns["uncertainty"] <= threshold(model)
    whole = _precision(truth, predicted, np.ones(len(truth), dtype=bool))
    part = _precision(truth, predicted, sure)
    return lambda weights: part(weights) - whole(weights)


def _precision(truth: NDArray[Any], predicted: NDArray[Any], kept: NDArray[np.bool_]) -> Statistic:
    """Mean over the classes that are predicted at all."""
    classes = np.unique(truth)
    predicted_as = (predicted[:, None] == classes) & kept[:, None]
    right = predicted_as & (truth[:, None] == classes)

    def statistic(weights: Floats) -> Floats:
        named, hit = weights @ predicted_as, weights @ right
        there = named > 0
        ratio = np.divide(hit, named, out=np.zeros_like(hit), where=there)
        count = there.sum(axis=1)
        return np.where(count > 0, ratio.sum(axis=1) / np.maximum(count, 1), math.nan)

    return statistic


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
