"""Results of evaluated models that more than one section shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.report.wording import attacked, number
from trustsweep.distributed.run.evaluation_card import EvaluationCard, SurvivalCard
from trustsweep.distributed.run.folder import Run
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.metrics.catalog import METRICS
from trustsweep.trainables.metrics.skill import best_trivial


def fully_attacked(run: Run) -> bool:
    """Whether the front was evaluated under the full ensemble; False without an attack."""
    cards = attacked(run)
    return bool(cards) and cards[0][0].fully_attacked


def search_curves(card: EvaluationCard) -> dict[str, list[float]]:
    """A model's curves against ε under the attack of the search; {} where no other was run."""
    gap = card.attack.gap if card.attack else {}
    if not gap:
        return {}
    names = {epsilon: attacked_name(epsilon) for epsilon in card.curves["epsilon"]}
    return {
        leaf: [
            value + (gap.get(f"{names[epsilon]}.{leaf}", math.nan) if epsilon else 0.0)
            for epsilon, value in zip(card.curves["epsilon"], values, strict=True)
        ]
        for leaf, values in card.curves.items()
        if leaf != "epsilon"
    }


@dataclass(frozen=True)
class TrivialResults:
    """Predictors that ignore the image, on the clean samples of one split.

    Attributes:
        split: As it is written out.
        figures: By predictor, then by metric.
        best: By metric that any of them has, the best predictor; "" for none.
    """

    split: str
    figures: Mapping[str, Mapping[str, float]]
    best: Mapping[str, str]

    @property
    def reached(self) -> dict[str, float]:
        """What the best of the predictors reaches, by metric."""
        return {metric: self.figures[name][metric] for metric, name in self.best.items() if name}


def trivial_results(run: Run) -> TrivialResults | None:
    """On the test split, or on validation until the front is evaluated; None if not recorded."""
    evaluated = [card for card in run.front_cards if card.trivial]
    figures = evaluated[0].trivial if evaluated else run.trivial.get(Split.VAL, {})
    if not figures:
        return None
    shown = [
        name
        for name, info in METRICS.items()
        if (info.skilled or name in ("false_alarms", "false_alarm_volume"))
        and any(name in row for row in figures.values())
    ]
    return TrivialResults(
        split=evaluated[0].split if evaluated else "validation",
        figures=figures,
        best={metric: best_trivial(figures, metric)[0] for metric in shown},
    )


@dataclass(frozen=True)
class ModelAnswer:
    """A model's prediction for an image: class (or labels), probability and uncertainty.

    With several labels, the probability is that of all labels being as predicted. Of survival the
    name is when the event is most likely, which is right where it agrees with what was observed.
    """

    name: str
    probability: float
    uncertainty: float
    right: bool


def answer(card: EvaluationCard, i: int, prefix: str = "", suffix: str = "") -> ModelAnswer:
    """The prediction for row `i` of the arrays `<prefix>probability<suffix>` etc."""
    stored = card.panel
    probability = stored[f"{prefix}probability{suffix}"][i]
    if f"{prefix}time" in stored:
        return _survival_answer(card, i, prefix, suffix)
    if "labels" in stored:
        return _labels_answer(card, i, probability, float(stored[f"uncertainty{suffix}"][i]))
    best = int(np.argmax(probability))
    return ModelAnswer(
        name=class_name(card, best),
        probability=float(probability[best]),
        uncertainty=float(stored[f"{prefix}uncertainty{suffix}"][i]),
        right=best == int(stored[f"{prefix}label"][i]),
    )


def _labels_answer(
    card: EvaluationCard, i: int, probability: NDArray[np.float32], uncertainty: float
) -> ModelAnswer:
    truth, positive = card.panel["labels"][i], probability > 0.5
    known = ~np.isnan(truth)
    return ModelAnswer(
        name=_listed(card, positive),
        probability=float(np.where(positive, probability, 1 - probability).prod()),
        uncertainty=uncertainty,
        right=bool((positive == (truth > 0.5))[known].all()),
    )


def _survival_answer(card: EvaluationCard, i: int, prefix: str, suffix: str) -> ModelAnswer:
    alive = np.append(1.0, card.panel[f"{prefix}probability{suffix}"][i])
    outcomes = np.append(alive[:-1] - alive[1:], alive[-1])
    likeliest = int(outcomes.argmax())
    follow_up = _follow_up(card)
    edges = [number(edge) for edge in follow_up.edges]
    last = likeliest == len(edges) - 1
    span = f"after {edges[-1]}" if last else f"{edges[likeliest]} to {edges[likeliest + 1]}"
    time = float(card.panel[f"{prefix}time"][i])
    seen = int(np.searchsorted(follow_up.edges[1:-1], time, side="right"))
    died = card.panel[f"{prefix}event"][i] == 1
    return ModelAnswer(
        name=f"{span} {follow_up.unit}",
        probability=float(outcomes[likeliest]),
        uncertainty=float(card.panel[f"{prefix}uncertainty{suffix}"][i]),
        # Who was censored may have had the event in any interval from then on.
        right=bool(likeliest == seen if died else likeliest >= seen),
    )


def _follow_up(card: EvaluationCard) -> SurvivalCard:
    """Raises `UserError` for a card that holds times without it."""
    if card.survival is None:
        raise UserError(f"evaluation/{card.id}.json: no `survival`. Evaluate the front again.")
    return card.survival


def truth_of(card: EvaluationCard, i: int, prefix: str = "") -> str:
    """The class of row `i` of its arrays, the labels that it has, or when the event was."""
    if f"{prefix}time" in card.panel:
        died = card.panel[f"{prefix}event"][i] == 1
        time = f"{number(card.panel[f'{prefix}time'][i])} {_follow_up(card).unit}"
        return f"event at {time}" if died else f"no event until {time}"
    if "labels" in card.panel:
        return _listed(card, card.panel["labels"][i] > 0.5)
    return class_name(card, int(card.panel[f"{prefix}label"][i]))


def _listed(card: EvaluationCard, labels: NDArray[np.bool_]) -> str:
    return ", ".join(class_name(card, int(k)) for k in np.flatnonzero(labels)) or "none"


def class_name(card: EvaluationCard, index: int) -> str:
    """The name of a class, as the card has it."""
    names = card.classes
    return names[index] if index < len(names) else f"class {index}"
