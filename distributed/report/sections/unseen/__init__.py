"""The front's models at sites that no other split holds."""

from __future__ import annotations

from dataclasses import dataclass

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, Unseen
from trustsweep.distributed.run.folder import Run


@dataclass(frozen=True)
class AtUnseenSites:
    """The models that were judged there, each with its figures, and the clean metrics of these."""

    models: list[tuple[EvaluationCard, Unseen]]
    metrics: list[str]


class UnseenSection(Section[AtUnseenSites]):
    def gather(self, run: Run) -> AtUnseenSites | None:
        models = [(card, card.ood) for card in run.judged if card.ood]
        if not models:
            return None
        return AtUnseenSites(models, [n for n in models[0][1].metrics if n.startswith("clean.")])
