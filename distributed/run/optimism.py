"""What the front's models give on the test split, beside the figures that they were chosen by.

The front is made of the best of many trials by their figures on the validation split, so these
figures are too good: in part they are luck with those images. What is left of it on images that no
choice has seen is the honest figure, and the difference the optimism of choosing. Both are under
the attack of the search; where the full ensemble judged the front, its figure stands beside them.
Works from a run folder alone.
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
class Choice:
    """A model of the front on one objective.

    Attributes:
        validation: What it was chosen by.
        test: What it gives on images that no choice has seen, under the attack of the search.
        full: The same under the full ensemble; NaN for what no attack touches, and where the front
            was judged by the attack of the search alone.
        optimism: How much better the first is than the second, in the objective's own direction.
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
        """The figure to quote: on the test split, under the strongest attack that judged it."""
        return self.full if self.attacked else self.test


def measured(run: Run) -> list[Objective]:
    """The objectives that are figures of a split; a cost is none."""
    return [o for o in run.objectives if not o.name.startswith(COST_PREFIX)]


def choices(run: Run) -> list[Choice]:
    """The models of the front that were judged on the test split, on each measured objective."""
    return [
        Choice(
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
    # The metrics of a card are under the attack that judged it last.
    other = card.fully_attacked and under_attack(objective.name)
    return _bare(None if split != card.split or other else card.metrics.get(objective.name))


def under_full(card: EvaluationCard, objective: Objective) -> Estimate:
    """A figure of the card's split under the full ensemble, with its interval; see `Choice`."""
    if not (card.fully_attacked and under_attack(objective.name)):
        return _bare(None)
    known = card.estimates.get(card.split)
    if known is not None and objective.name in known.final:
        return known.final[objective.name]
    return _bare(card.metrics.get(objective.name))


def mean_optimism(found: Sequence[Choice]) -> dict[str, float]:
    """By objective, over the models that have both figures; without those that none has."""
    names = dict.fromkeys(choice.objective.name for choice in found)
    means = {}
    for name in names:
        gaps = [c.optimism for c in found if c.objective.name == name]
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


def counted(found: Mapping[str, Mapping[str, int]]) -> str:
    """The counts in a sentence; empty without any."""
    told = [
        f"{split}: " + ", ".join(f"{n} {noun if n != 1 else noun[:-1]}" for noun, n in c.items())
        for split, c in found.items()
    ]
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _validation(trial: Record, card: EvaluationCard, objective: Objective) -> Estimate:
    """The figure that the search saw; its interval is that of the same images judged again."""
    again = estimate(card, objective, "val")
    return Estimate(trial.metrics[objective.name], again.low, again.high)


def _bare(value: float | None) -> Estimate:
    """A figure without an interval."""
    return Estimate(math.nan if value is None else value, math.nan, math.nan)
