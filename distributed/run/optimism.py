"""Test metrics of the front's models, beside the validation metrics that they were chosen by.

The front holds the best of many trials on the validation split, so its validation metrics are
optimistic: in part they are luck with those images. The test metrics are unbiased, and the
difference is the optimism of choosing. Both are under the attack of the search; where the front was
also evaluated under the full ensemble, that estimate is given as well. Needs only a run folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import COST_PREFIX, Run
from trustsweep.distributed.run.ledger import Record
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.statistics.inference import Estimate
from trustsweep.trainables.metrics.catalog import under_attack

#: Splits as they are written out.
SPLITS = {"train": "training", "val": "validation", "test": "test", "ood": "unseen sites"}


@dataclass(frozen=True)
class FrontEstimate:
    """A model of the front on one objective.

    Attributes:
        validation: The estimate that the search chose it by.
        test: On test images, which no choice has seen, under the attack of the search.
        full: On test images under the full ensemble; NaN for objectives without an attack, and
            where only the attack of the search was run.
        optimism: How much better validation is than test, in the objective's own direction.
    """

    model: str
    objective: Objective
    validation: Estimate
    test: Estimate
    full: Estimate

    @property
    def optimism(self) -> float:
        gap = self.validation.value - self.test.value
        return gap if self.objective.direction == "max" else -gap

    @property
    def attacked(self) -> bool:
        """Whether there is a figure under the full ensemble."""
        return not math.isnan(self.full.value)

    @property
    def quoted(self) -> Estimate:
        """The figure to quote: on the test split, under the strongest attack that was run."""
        return self.full if self.attacked else self.test


def measured(run: Run) -> list[Objective]:
    """The objectives that are figures of a split; a cost is none."""
    return [o for o in run.objectives if not o.name.startswith(COST_PREFIX)]


def front_estimates(run: Run) -> list[FrontEstimate]:
    """Each measured objective of each model of the front that was evaluated on the test split."""
    return [
        FrontEstimate(
            trial.id,
            objective,
            _validation(trial, card, objective),
            estimate(card, objective),
            under_full(card, objective),
        )
        for trial in run.front
        if (card := run.cards.get(trial.id)) is not None and card.on_test
        for objective in measured(run)
    ]


def estimate(card: EvaluationCard, objective: Objective, split: str = "test") -> Estimate:
    """A figure under the attack of the search, with its interval; NaN where a card lacks it."""
    known = card.estimates.get(split)
    if known is not None and objective.name in known.figures:
        return known.figures[objective.name]
    # A card's metrics are under the strongest attack that was run.
    other = card.fully_attacked and under_attack(objective.name)
    return _bare(None if split != card.split or other else card.metrics.get(objective.name))


def under_full(card: EvaluationCard, objective: Objective) -> Estimate:
    """A metric of the card's split under the full ensemble, with its interval."""
    if not (card.fully_attacked and under_attack(objective.name)):
        return _bare(None)
    known = card.estimates.get(card.split)
    if known is not None and objective.name in known.final:
        return known.final[objective.name]
    return _bare(card.metrics.get(objective.name))


def mean_optimism(estimates: Sequence[FrontEstimate]) -> dict[str, float]:
    """By objective, over the models that have both figures; without those that none has."""
    names = dict.fromkeys(e.objective.name for e in estimates)
    means = {}
    for name in names:
        gaps = [e.optimism for e in estimates if e.objective.name == name]
        if known := [gap for gap in gaps if not math.isnan(gap)]:
            means[name] = math.fsum(known) / len(known)
    return means


def counts(run: Run) -> dict[str, dict[str, int]]:
    """Images, patients and sites behind the figures of each split, by the split's written name."""
    for card in run.front_cards:
        if card.estimates:
            return {
                SPLITS.get(split, split): {
                    "images": known.images, "patients": known.patients, "sites": known.sites,
                }
                for split, known in card.estimates.items()
            }  # fmt: skip
    return {}


def counted(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The counts in a sentence; empty without any."""
    parts = [
        f"{split}: " + ", ".join(f"{n} {noun if n != 1 else noun[:-1]}" for noun, n in c.items())
        for split, c in counts.items()
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _validation(trial: Record, card: EvaluationCard, objective: Objective) -> Estimate:
    """The value that the search saw, with the interval of the card's validation estimate."""
    again = estimate(card, objective, "val")
    return Estimate(trial.metrics[objective.name], again.low, again.high)


def _bare(value: float | None) -> Estimate:
    """A figure without an interval."""
    return Estimate(math.nan if value is None else value, math.nan, math.nan)
