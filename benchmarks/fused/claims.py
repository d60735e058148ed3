"""The four claims of the proposal, each with its test on every data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distributed.statistics.inference import Estimate, PairedTest, corrected_t_test, holm
from fused.figures import (
    BASELINES,
    METHOD,
    Arm,
    Figure,
    by_patient,
    card_values,
    clean,
    drop,
    gain,
)

ALPHA = 0.05
HELD, NOT_HELD, NOT_TESTABLE = "held", "not held", "cannot be tested here"
#: Of the first claim: a baseline has to lose more than this, in % of its clean AUROC.
LOST, KEPT = 10.0, 5.0
#: Of the second: the share of the rival's ECE that may be left.
SHARE = 0.7
Arms = Mapping[str, Arm]


@dataclass(frozen=True)
class Claim:
    """One claim on one data set, and what it rests on.

    Attributes:
        method, other: Means over folds and seeds.
        tested: What the claim says is below 0 (above, for abstention), with its interval by
            patient bootstrap; NaN ends where it is no figure of samples.
        p, p_holm: Of the corrected t-test over folds, adjusted over every test of the claim.
    """

    claim: str
    data: str
    against: str
    method: float
    other: float
    tested: Estimate
    p: float
    p_holm: float
    verdict: str

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Case:
    data: str
    against: str
    method: float
    other: float
    interval: Estimate
    test: PairedTest
    #: What else has to hold; None where nothing can be said.
    holds: bool | None


def judge_claims(found: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[Claim]:
    """All of them. `sizes` are by data set the training and test samples of a fold."""
    return [
        *_adjusted("drop", _drops(found, sizes), below=True),
        *_adjusted("calibration", _calibrations(found, sizes), below=True),
        *_adjusted("abstention", _abstentions(found, sizes), below=False),
        *_adjusted("reliability", _reliances(found, sizes), below=True),
    ]


def _drops(found: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[_Case]:
    cases = []
    for data, arms in found.items():
        most = by_patient(arms[METHOD], drop).high
        for rival in BASELINES:
            case = _case(data, rival, arms, drop, 1.0, sizes[data])
            holds = None if case.other <= LOST else bool(most < KEPT)
            cases.append(dataclasses.replace(case, holds=holds))
    return cases


def _calibrations(found: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[_Case]:
    return [
        _case(data, rival, arms, clean("ece"), SHARE, sizes[data])
        for data, arms in found.items()
        for rival in ("early-fusion", "late-fusion-mean")
    ]


def _abstentions(found: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[_Case]:
    cases = []
    for data, arms in found.items():
        arm = arms[METHOD]
        values = arm.values(gain)
        test = _test(values, [0.0] * len(values), sizes[data])
        interval = by_patient(arm, gain)
        cases.append(
            _Case(data, "answering all", float(np.mean(values)), 0.0, interval, test, True)
        )
        cases += [_case(data, rival, arms, gain, 1.0, sizes[data]) for rival in BASELINES]
    return cases


def _reliances(found: Mapping[str, Arms], sizes: Mapping[str, tuple[int, int]]) -> list[_Case]:
    """Against the null of each fold: severities permuted within each sample."""
    cases = []
    for data, arms in found.items():
        mine = card_values(arms[METHOD], ("reliance", "within"))
        lows = card_values(arms[METHOD], ("reliance", "within_low"))
        test = _test(mine, [0.0] * len(mine), sizes[data])
        value = float(np.mean(mine))
        interval = Estimate(value, float("nan"), float("nan"))
        beyond = bool(np.mean(mine) < np.mean(lows))
        cases.append(_Case(data, "permuted severities", value, 0.0, interval, test, beyond))
    return cases


def _case(
    data: str, rival: str, arms: Arms, figure: Figure, share: float, size: tuple[int, int]
) -> _Case:
    mine, theirs = arms[METHOD].values(figure), arms[rival].values(figure)
    test = _test(mine, [share * value for value in theirs], size)
    interval = by_patient(arms[METHOD], figure, arms[rival], share)
    return _Case(data, rival, float(np.mean(mine)), float(np.mean(theirs)), interval, test, True)


def _test(a: Sequence[float], b: Sequence[float], size: tuple[int, int]) -> PairedTest:
    return corrected_t_test(a, b, n_train=size[0], n_test=size[1])


def _adjusted(claim: str, cases: Sequence[_Case], *, below: bool) -> list[Claim]:
    adjusted = holm([case.test.p for case in cases])
    ahead: Callable[[float], bool] = (lambda x: x < 0) if below else (lambda x: x > 0)
    claims = []
    for case, p in zip(cases, adjusted, strict=True):
        beyond = case.interval.high if below else case.interval.low
        # What is no figure of samples has no interval; its null is in `holds`.
        clear = bool(np.isnan(beyond)) or ahead(beyond)
        held = p < ALPHA and ahead(case.test.difference) and clear and bool(case.holds)
        verdict = NOT_TESTABLE if case.holds is None else HELD if held else NOT_HELD
        claims.append(
            Claim(
                claim, case.data, case.against, case.method, case.other, case.interval,
                case.test.p, float(p), verdict,
            )
        )  # fmt: skip
    return claims
