"""Selective prediction of the front's models: risk and quality where they may abstain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import Abstaining, EvaluationCard
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kept:
    """The quality of a share of answered images.

    Attributes:
        target: The share that the threshold was chosen for on the validation split; None where
            every image is answered.
        coverage: The share that it accepts here.
        quality: Of what it accepts, by name: accuracy, precision and auroc of classes, dice and
            dice_lesion of segmentations, c_index and integrated_brier of survival; NaN where they
            do not exist.
    """

    target: float | None
    coverage: float
    quality: dict[str, float]


@dataclass(frozen=True)
class Abstention:
    """One model; by condition ("clean", "corrupted@...", "ood").

    Attributes:
        limits: The threshold of uncertainty for each target coverage.
        curves: "coverage" and "risk", of one length.
        kept: Everything answered first, then by target, the highest first.
    """

    id: str
    limits: dict[float, float]
    curves: dict[str, dict[str, list[float]]]
    kept: dict[str, list[Kept]]

    @property
    def error(self) -> str:
        """What the error is: "dice" (1 − Dice), "likelihood" (1 − that of a patient's time) or
        "class" (a wrong one)."""
        quality = {name for rows in self.kept.values() for name in rows[0].quality}
        return "dice" if "dice" in quality else "likelihood" if "c_index" in quality else "class"

    @property
    def segmented(self) -> bool:
        """Whether the error is 1 − Dice."""
        return self.error == "dice"


#: The mean error in words, by `Abstention.error`.
ERRORS = {
    "dice": "mean of 1 - Dice",
    "likelihood": "mean of 1 - likelihood",
    "class": "error rate",
}


class ReferralSection(Section[list[Abstention]]):
    figure = "risk_coverage"
    absent: ClassVar[Mapping[str, Any]] = {"risks": []}

    def gather(self, run: Run) -> list[Abstention] | None:
        return abstentions(run) or None

    def payload(self, run: Run, data: list[Abstention]) -> dict[str, Any]:
        return {
            "risks": [
                {"id": a.id, "curves": a.curves, "error": a.error, "what": ERRORS[a.error]}
                for a in data
            ]
        }

    def draw(self, run: Run, data: list[Abstention]) -> Figure | None:
        from trustsweep.distributed.report.sections.referral.figure import draw

        return draw(run, data)


def abstentions(run: Run) -> list[Abstention]:
    """The abstention of the front's models, in the front's order, where it was evaluated.

    Raises `UserError` for a card that lacks part of it.
    """
    return [a for a in map(abstention, run.front_cards) if a is not None]


def abstention(card: EvaluationCard) -> Abstention | None:
    """None where it was not evaluated. Raises `UserError` for a card that lacks part of it."""
    if card.selective is None:
        return None
    limits = card.selective.limits
    conditions = card.selective.conditions
    try:
        return Abstention(
            id=card.id,
            limits=limits,
            curves={name: condition.curve.model_dump() for name, condition in conditions.items()},
            kept={name: _kept(condition, list(limits)) for name, condition in conditions.items()},
        )
    except (KeyError, ValueError) as error:
        raise UserError(
            f"evaluation/{card.id}.json: unreadable `selective` ({error!r}). Evaluate the "
            "front again."
        ) from error


def _kept(condition: Abstaining, targets: list[float]) -> list[Kept]:
    accepted = zip(targets, condition.accepted, strict=True)
    kept = [Kept(None, 1.0, dict(condition.all))]
    for target, row in accepted:
        quality = {name: row[name] for name in condition.all}
        kept.append(Kept(target, row["coverage"], quality))
    return kept
