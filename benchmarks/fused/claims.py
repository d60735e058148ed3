"""The four claims of the proposal, each with its test on every data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from comparing.claims import Arms, Claim, ClaimTest, adjusted, compared, over_folds
from comparing.figures import by_patient, card_values

from fused.figures import BASELINES, METHOD, clean, drop, gain
from trustsweep.distributed.statistics.inference import Estimate

#: Of the first claim: a baseline has to lose more than this, in % of its clean AUROC.
LOST, KEPT = 10.0, 5.0
#: Of the second: the share of the rival's ECE that may be left.
SHARE = 0.7


def evaluate_claims(
    by_data: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]
) -> list[Claim]:
    """All of them, each corrected on its own.

    `sizes` are by data set the training and test samples of a fold.
    """
    return [
        *adjusted(_drops(by_data, sizes)),
        *adjusted(_calibrations(by_data, sizes)),
        *adjusted(_abstentions(by_data, sizes)),
        *adjusted(_reliances(by_data, sizes)),
    ]


def _drops(by_data: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[ClaimTest]:
    cases = []
    for data, arms in by_data.items():
        most = by_patient(arms[METHOD], drop).high
        for rival in BASELINES:
            pair = arms[METHOD], arms[rival]
            case = compared("drop", data, rival, pair, drop, sizes[data], below=True)
            holds = None if case.other <= LOST else bool(most < KEPT)
            cases.append(dataclasses.replace(case, holds=holds))
    return cases


def _calibrations(
    by_data: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]
) -> list[ClaimTest]:
    return [
        compared(
            "calibration", data, rival, (arms[METHOD], arms[rival]), clean("ece"), sizes[data],
            below=True, share=SHARE,
        )
        for data, arms in by_data.items()
        for rival in ("early-fusion", "late-fusion-mean")
    ]  # fmt: skip


def _abstentions(
    by_data: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]
) -> list[ClaimTest]:
    cases = []
    for data, arms in by_data.items():
        arm = arms[METHOD]
        values = arm.values(gain)
        test = over_folds(values, [0.0] * len(values), sizes[data])
        interval, value = by_patient(arm, gain), float(np.mean(values))
        cases.append(
            ClaimTest("abstention", data, "answering all", value, 0.0, interval, test, below=False)
        )
        cases += [
            compared("abstention", data, rival, (arm, arms[rival]), gain, sizes[data], below=False)
            for rival in BASELINES
        ]
    return cases


def _reliances(
    by_data: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]
) -> list[ClaimTest]:
    """Against the null of each fold: severities permuted within each sample."""
    cases = []
    for data, arms in by_data.items():
        mine = card_values(arms[METHOD], ("reliance", "within"))
        lows = card_values(arms[METHOD], ("reliance", "within_low"))
        test = over_folds(mine, [0.0] * len(mine), sizes[data])
        value = float(np.mean(mine))
        cases.append(
            ClaimTest(
                "reliability", data, "permuted severities", value, 0.0,
                Estimate(value, float("nan"), float("nan")), test, below=True,
                holds=bool(np.mean(mine) < np.mean(lows)),
            )
        )  # fmt: skip
    return cases
