"""The method's claims, each with its test on every data set; Holm over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from comparing.claims import Claim, ClaimTest, adjusted, compared
from comparing.figures import Arm, by_patient

from evidence.figures import CLEAN, LARGE, SMALL, aurc, fixed_mask, named, region_ece, risk
from evidence.models import (
    ACE,
    CERTAIN,
    CLASSICAL,
    EVIDENTIAL,
    NONE,
    RANDOM,
    UNCERTAIN,
    arm_of,
)

#: Dice may be this much lower, by the low end of the interval, and still counts as no lower.
MARGIN = 0.03
#: Where an attack takes less Dice than this from a model without defence, there is nothing to gain.
DROP = 0.05
#: Where an attack leaves both models of a pair less Dice than this, there is nothing to compare.
FLOOR = 0.05
BUDGETS = {"ε .01": SMALL, "ε .02": LARGE}
_WHERE = {CLEAN: "clean", SMALL: "ε .01"}


@dataclass(frozen=True)
class EvaluatedArms:
    """The tuned arms of one data set: as they are, with a temperature, and by entropy.

    Attributes:
        size: Training and test samples of a fold.
    """

    own: Mapping[str, Arm]
    cooled: Mapping[str, Arm]
    by_entropy: Mapping[str, Arm]
    size: tuple[int, int]


def evaluate_claims(by_data: Mapping[str, EvaluatedArms]) -> list[Claim]:
    """All claims on all data sets."""
    return adjusted(
        [
            case
            for cases_of in (_calibration, _guidance, _usefulness)
            for data, arms in by_data.items()
            for case in cases_of(data, arms)
        ]
    )


def _calibration(data: str, arms: EvaluatedArms) -> Iterator[ClaimTest]:
    """Clean without defence; attacked with the same random defence for all."""
    for condition, regime in ((CLEAN, NONE), (SMALL, RANDOM)):
        mine = arms.own[arm_of(EVIDENTIAL, regime)]
        rivals = {
            "classical + T": arms.cooled[arm_of(CLASSICAL, regime)],
            "mL1-ACE": arms.own[arm_of(ACE, regime)],
        }
        for name, figure in (("ECE", region_ece(condition)), ("Brier", named("brier", condition))):
            for rival, theirs in rivals.items():
                of = f"{name}, {_WHERE[condition]}"
                case = compared(
                    "calibration", data, rival, (mine, theirs), figure, arms.size,
                    below=True, of=of,
                )  # fmt: skip
                yield replace(case, holds=_no_worse(mine, theirs, condition))


def _no_worse(mine: Arm, theirs: Arm, condition: str) -> bool | None:
    """Whether Dice is not lower by more than the margin; None where neither model can segment."""
    if not sighted(mine, condition) and not sighted(theirs, condition):
        return None
    return bool(by_patient(mine, named("dice_lesion", condition), theirs).low > -MARGIN)


def _guidance(data: str, arms: EvaluatedArms) -> Iterator[ClaimTest]:
    for form in (CLASSICAL, EVIDENTIAL):
        guided, bare = arms.own[arm_of(form, UNCERTAIN)], arms.own[arm_of(form, NONE)]
        for budget, condition in BUDGETS.items():
            lost = _mean(bare, CLEAN) - _mean(bare, condition)
            for regime in (RANDOM, CERTAIN, NONE):
                other = arms.own[arm_of(form, regime)]
                case = compared(
                    "guidance", data, f"{regime}", (guided, other),
                    named("dice_lesion", condition), arms.size, below=False,
                    of=f"{form}, {budget}",
                )  # fmt: skip
                left = max(case.method, case.other) >= FLOOR
                yield replace(case, holds=True if left and lost >= DROP else None)


def _usefulness(data: str, arms: EvaluatedArms) -> Iterator[ClaimTest]:
    """Of the evidential model without defence on clean images, and guided on attacked ones."""
    bare, guided = arms.own[arm_of(EVIDENTIAL, NONE)], arms.own[arm_of(EVIDENTIAL, UNCERTAIN)]
    classical = arms.own[arm_of(CLASSICAL, NONE)]
    # The error |y − p| of AUSE is smeared over all pixels where a model is sure of none, and any
    # order of it is then good: models are compared at the temperature that fits each.
    cooled = arms.cooled[arm_of(EVIDENTIAL, NONE)], arms.cooled[arm_of(CLASSICAL, NONE)]
    entropy = arms.by_entropy[arm_of(EVIDENTIAL, NONE)]
    size = "predicted_pixels"
    tests = [
        ("AURC, clean", "random order", bare, bare, aurc(), risk()),
        ("AURC, clean", "order by predicted size", bare, bare, aurc(), aurc(score=size)),
        ("AURC, clean", "its own entropy", bare, entropy, aurc(), aurc()),
        ("AURC, clean", "classical", bare, classical, aurc(), aurc()),
        ("AUSE, clean", "its own entropy", bare, entropy, named("ause"), named("ause")),
        ("AUSE at T, clean", "classical + T", *cooled, named("ause"), named("ause")),
        ("AURC, ε .01", "random order", guided, guided, aurc(SMALL), risk(SMALL)),
        (
            "AURC, ε .01", "order by predicted size", guided, guided,
            aurc(SMALL), aurc(SMALL, size),
        ),
    ]  # fmt: skip
    for of, against, mine, theirs, figure, other in tests:
        case = compared(
            "uncertainty", data, against, (mine, theirs), figure, arms.size,
            below=True, other=other, of=of,
        )  # fmt: skip
        seen = sighted(mine, SMALL if mine is guided else CLEAN)
        yield replace(case, holds=True if seen else None)


def _mean(arm: Arm, condition: str) -> float:
    return float(np.mean(arm.values(named("dice_lesion", condition))))


def sighted(arm: Arm, condition: str) -> bool:
    """Whether it segments lesions better than the best mask that ignores the image."""
    return _mean(arm, condition) > trivial_dice(arm)


def trivial_dice(arm: Arm) -> float:
    """Dice on lesions of that mask on the arm's test images, mean over folds."""
    return float(np.mean([fixed_mask(model) for fold in arm.folds for model in fold]))
