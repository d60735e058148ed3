"""Selective prediction: the quality of the predictions that a model does not abstain from.

An image is accepted where its uncertainty is at most a threshold (El-Yaniv & Wiener 2010,
JMLR 11; Geifman & El-Yaniv 2017, arXiv:1705.08500). The threshold is chosen on one set of images,
for the share of them that it accepts, and stands unchanged for every other set.
"""

from __future__ import annotations

import math

import numpy as np

from trustsweep.trainables.metrics.labels import Labelled
from trustsweep.trainables.metrics.ranking import Answers
from trustsweep.trainables.metrics.referral import Segmented
from trustsweep.trainables.metrics.survival import FollowedUp


def risk_coverage(
    answers: Answers | Segmented | Labelled | FollowedUp,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean error among the i least uncertain images, i = 1..n; its mean is aurc.

    Images of equal uncertainty count as in random order: the curve is straight in total error
    where it crosses them.

    Returns:
        Coverage i / n, ascending to 1, and risk in [0, 1], (n,) each. The risk is NaN throughout
        where an uncertainty or a probability is NaN, as the order is then not known.
    """
    n = len(answers)
    coverage = np.arange(1, n + 1) / n if n else np.zeros(0)
    uncertainty, error = answers.uncertainty, answers.error
    if np.isnan(uncertainty).any() or np.isnan(error).any():
        return coverage, np.full(n, math.nan)
    _, ties, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    wrong = np.bincount(ties, error, len(sizes))
    return coverage, np.cumsum(np.repeat(wrong / sizes, sizes)) / np.arange(1, n + 1)


def threshold(uncertainty: np.ndarray, coverage: float) -> float:
    """The least threshold that accepts at least this share, in (0, 1], of (n,) uncertainties.

    It accepts less than 1/n more, but for ties, which it accepts or refuses together. NaN for
    n = 0 and where an uncertainty is NaN.
    """
    if not len(uncertainty) or np.isnan(uncertainty).any():
        return math.nan
    # Products such as 0.7 · 10 = 7.000000000000001 are taken for what they mean.
    wanted = math.ceil(round(coverage * len(uncertainty), 9))
    return float(np.sort(uncertainty)[wanted - 1])


def accepted(
    answers: Answers | Segmented | Labelled | FollowedUp, limit: float
) -> dict[str, float]:
    """The share of images that a threshold accepts ("coverage"), and the quality of these.

    An uncertainty that is NaN is refused. The coverage is NaN for a threshold that is NaN, and
    without an image.
    """
    kept = answers.uncertainty <= limit
    known = len(answers) and not math.isnan(limit)
    return {"coverage": float(kept.mean()) if known else math.nan, **answers.select(kept).quality()}
