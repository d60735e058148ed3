"""Selective prediction: a model abstains above a threshold chosen on the validation split.

For segmentation this is referral: an image's uncertainty is the mean of its map, its error is
1 − Dice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trustsweep.trainables.conditions import SITES, corrupted_name
from trustsweep.trainables.evaluation import CLEAN, Evaluation
from trustsweep.trainables.metrics.labels import Labelled
from trustsweep.trainables.metrics.ranking import Answers
from trustsweep.trainables.metrics.referral import Segmented
from trustsweep.trainables.metrics.selective import accepted, risk_coverage, threshold
from trustsweep.trainables.metrics.survival import FollowedUp

#: Shares of the images to answer, for each of which a threshold is chosen.
COVERAGES = (0.95, 0.9, 0.8, 0.7, 0.5)
#: Points of a curve that are kept.
MOST_POINTS = 101


def selective(validation: Evaluation, test: Evaluation) -> dict[str, Any]:
    """Risk-coverage curves by the uncertainty that the plan names, or the method's first.

    Args:
        validation: Chooses the thresholds, on its clean images.
        test: Holds clean images, those of its plan's first corruption at the highest severity,
            and, where its plan has them, sites unseen in training.

    Returns:
        - thresholds: for each of `COVERAGES`, "target", "threshold" and the "coverage" that it
          reaches on the validation split.
        - conditions: by name ("clean", "corrupted@...", "ood") the "curve" of "coverage" and
          "risk", at most 101 points; "all", the quality of all answers; and "accepted", for each
          threshold what `metrics.selective.accepted` gives.
        Ready for JSON; NaN where something does not exist.
    """
    chosen = validation.answers()
    limits = [threshold(chosen.uncertainty, share) for share in COVERAGES]
    by_condition = {CLEAN: test.answers()}
    if test.plan.corruptions:
        worst = corrupted_name(*max(test.plan.corruptions, key=lambda cell: cell[1]))
        by_condition[worst] = test.answers(worst)
    if test.plan.sites:
        by_condition[SITES] = test.answers(SITES)
    return {
        "thresholds": [
            {"target": share, "threshold": t, "coverage": accepted(chosen, t)["coverage"]}
            for share, t in zip(COVERAGES, limits, strict=True)
        ],
        "conditions": {name: _condition(answers, limits) for name, answers in by_condition.items()},
    }


def _condition(
    answers: Answers | Segmented | Labelled | FollowedUp, limits: list[float]
) -> dict[str, Any]:
    coverage, risk = risk_coverage(answers)
    kept = np.arange(len(coverage))
    if len(coverage) > MOST_POINTS:
        kept = np.linspace(0, len(coverage) - 1, MOST_POINTS).round().astype(int)
    return {
        "curve": {"coverage": coverage[kept].tolist(), "risk": risk[kept].tolist()},
        "all": answers.quality(),
        "accepted": [accepted(answers, limit) for limit in limits],
    }
