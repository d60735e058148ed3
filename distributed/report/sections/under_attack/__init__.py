"""Test metrics of the front's models against the attack budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trustsweep.distributed.report.evaluated import fully_attacked, trivial_results
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class UnderAttack:
    """Curves against ε.

    Attributes:
        models: Those of the front that have any; none before the front is evaluated.
        fully_attacked: Whether the curves are under the full attack.
        trivial: The best value of a trivial predictor, by metric; None if unknown.
    """

    models: list[EvaluationCard]
    fully_attacked: bool
    trivial: Mapping[str, float] | None


class UnderAttackSection(Section[UnderAttack]):
    figure = "under_attack"

    def gather(self, run: Run) -> UnderAttack | None:
        models = [card for card in run.front_cards if card.curves.get("epsilon")]
        if run.front_cards and not models:
            return None  # evaluated without an attack
        trivial = trivial_results(run)
        return UnderAttack(models, fully_attacked(run), trivial.reached if trivial else None)

    def draw(self, run: Run, data: UnderAttack) -> Figure | None:
        from trustsweep.distributed.report.sections.under_attack.figure import draw

        return draw(run, data)
