"""Calibration: reliability diagrams, what chance gives, and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, Temperature
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Calibration errors whose small-sample bias is known.
_KINDS = ("ece", "ece_region")


@dataclass(frozen=True)
class CalibrationData:
    """Of the front's models on the test split.

    Attributes:
        models: All that were evaluated.
        shown: Those of the spotlight that have reliability diagrams.
        floors: Kinds of calibration error whose value under perfect calibration is known.
        cooled: Those with a temperature, each with this.
        survival: Whether the diagrams are of predicted and observed survival.
    """

    models: list[EvaluationCard]
    shown: list[EvaluationCard]
    floors: list[str]
    cooled: list[tuple[EvaluationCard, Temperature]]
    survival: bool

    @property
    def axes(self) -> tuple[str, str]:
        """What is predicted, and what is observed."""
        return ("predicted survival", "observed") if self.survival else ("confidence", "accuracy")


class ReliabilitySection(Section[CalibrationData]):
    figure = "reliability"

    def gather(self, run: Run) -> CalibrationData:
        known = run.front_cards[0].metrics if run.front_cards else {}
        return CalibrationData(
            models=run.front_cards,
            shown=[card for card in run.spotlight if card.reliability],
            floors=[kind for kind in _KINDS if f"clean.{kind}_floor" in known],
            cooled=[(card, card.temperature) for card in run.front_cards if card.temperature],
            survival=any(card.survival for card in run.front_cards),
        )

    def payload(self, run: Run, data: CalibrationData) -> dict[str, Any]:
        return {"reliability_axes": data.axes}

    def draw(self, run: Run, data: CalibrationData) -> Figure | None:
        from trustsweep.distributed.report.sections.reliability.figure import draw

        return draw(data.shown, data.axes)
