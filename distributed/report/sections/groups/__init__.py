"""The front's models by group of patients or images: sex, age band, site, ..."""

from __future__ import annotations

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, GroupsCard
from trustsweep.distributed.run.folder import Run


class GroupsSection(Section[list[tuple[EvaluationCard, GroupsCard]]]):
    def gather(self, run: Run) -> list[tuple[EvaluationCard, GroupsCard]] | None:
        return [(card, card.groups) for card in run.front_cards if card.groups] or None
