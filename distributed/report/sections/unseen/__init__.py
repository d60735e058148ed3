"""The front's models at sites that no other split holds."""

from __future__ import annotations

from dataclasses import dataclass

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, Unseen
from trustsweep.distributed.run.folder import Run
from trustsweep.trainables.conditions import SITES, ConditionName
from trustsweep.trainables.metrics.names import MetricName


@dataclass(frozen=True)
class AtUnseenSites:
    """The models evaluated there with their sample counts, and the metrics on clean images."""

    models: list[tuple[EvaluationCard, Unseen]]
    metrics: list[str]


class UnseenSection(Section[AtUnseenSites]):
    def gather(self, run: Run) -> AtUnseenSites | None:
        models = [(card, card.ood) for card in run.front_cards if card.ood]
        if not models:
            return None
        names = map(MetricName.parse, models[0][0].metrics)
        here = ConditionName(SITES)
        return AtUnseenSites(
            models, [n.metric for n in names if n.condition == here and not n.skill]
        )
