"""What the judge's cards say of each model, as the columns of a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distributed.statistics import summarise

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

#: Of the shares to answer (`distributed.selective`), the one that the third claim is tested at.
COVERAGE = 0.8

Figure = Callable[[dict[str, Any]], float]


class Arm(NamedTuple):
    """The cards of one model by seed."""

    cards: dict[int, dict[str, Any]]

    def values(self, figure: Figure) -> list[float]:
        """By ascending seed."""
        return [figure(self.cards[seed]) for seed in sorted(self.cards)]


def metric(name: str) -> Figure:
    return lambda card: float(card["metrics"].get(name, math.nan))


def _under(corruption: str, name: str) -> Figure:
    """The mean over the five severities of one corruption."""

    def figure(card: dict[str, Any]) -> float:
        values = [card["metrics"][f"corrupted@{corruption}-{s}.{name}"] for s in range(1, 6)]
        return float(np.mean(values))

    return figure


def _noise(name: str) -> Figure:
    def figure(card: dict[str, Any]) -> float:
        kind = next(n for n in ("gaussian-noise", "value-noise") if _has(card, n))
        return _under(kind, name)(card)

    return figure


def _has(card: dict[str, Any], corruption: str) -> bool:
    return f"corrupted@{corruption}-1.auroc" in card["metrics"]


def _ood(name: str) -> Figure:
    return lambda card: float(card.get("ood", {}).get("metrics", {}).get(f"clean.{name}", math.nan))


def drop(card: dict[str, Any]) -> float:
    """Loss of AUROC, in % of the clean, mean over every corruption and severity."""
    metrics = card["metrics"]
    return float(100 * (1 - metrics["corrupted.auroc"] / metrics["clean.auroc"]))


def precision(card: dict[str, Any]) -> float:
    return float(card["selective"]["conditions"]["clean"]["all"]["precision"])


def precision_accepted(card: dict[str, Any]) -> float:
    targets = [entry["target"] for entry in card["selective"]["thresholds"]]
    accepted = card["selective"]["conditions"]["clean"]["accepted"][targets.index(COVERAGE)]
    return float(accepted["precision"])


def weights(card: dict[str, Any]) -> float:
    return float(card.get("weights", {}).get("within", math.nan))


COLUMNS: dict[str, Figure] = {
    "AUROC": metric("clean.auroc"),
    "mixed quality": _under("mixed-quality", "auroc"),
    "missing": _under("modality-drop", "auroc"),
    "noise": _noise("auroc"),
    "held-out site": _ood("auroc"),
    "drop %": drop,
    "accuracy": metric("clean.accuracy"),
    "F1": metric("clean.f1"),
    "ECE": metric("clean.ece"),
    "ECE, corrupted": metric("corrupted.ece"),
    "ECE, site": _ood("ece"),
    "Brier": metric("clean.brier"),
    "NLL": metric("clean.nll"),
    "AURC": metric("clean.aurc"),
    "ρ(r, severity)": weights,
}


def rows(arms: dict[str, Arm]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            column: dataclasses.asdict(summarise(arm.values(figure)))
            for column, figure in COLUMNS.items()
        }
        for name, arm in arms.items()
    }
