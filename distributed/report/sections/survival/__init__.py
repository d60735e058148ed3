"""Survival of patients by predicted risk: what was observed, and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, SurvivalCard
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RiskCurves:
    """One model and one condition; see `SurvivalCard`."""

    id: str
    condition: str
    survival: SurvivalCard


class SurvivalSection(Section[list[RiskCurves]]):
    figure = "survival"
    absent: ClassVar[Mapping[str, Any]] = {"survival": []}

    def gather(self, run: Run) -> list[RiskCurves] | None:
        return [curves for card in run.spotlight for curves in _curves(card)] or None

    def payload(self, run: Run, data: list[RiskCurves]) -> dict[str, Any]:
        return {
            "survival": [
                {
                    "id": curves.id,
                    "condition": curves.condition,
                    "unit": curves.survival.unit,
                    "edges": curves.survival.edges,
                    "groups": [g.model_dump() for g in curves.survival.groups[curves.condition]],
                }
                for curves in data
            ]
        }

    def draw(self, run: Run, data: list[RiskCurves]) -> Figure | None:
        from trustsweep.distributed.report.sections.survival.figure import draw

        return draw(data)


def _curves(card: EvaluationCard) -> list[RiskCurves]:
    if card.survival is None:
        return []
    groups = card.survival.groups
    return [RiskCurves(card.id, name, card.survival) for name in groups if groups[name]]
