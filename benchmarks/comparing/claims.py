"""A claim on one data set, tested: over folds, by patient, corrected for the number of tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparing.figures import Arm, Figure, by_patient
from trustsweep.distributed.statistics.inference import Estimate, PairedTest, corrected_t_test, holm

ALPHA = 0.05
HELD, NOT_HELD, NOT_TESTABLE = "held", "not held", "cannot be tested here"
VERDICTS = (NOT_HELD, NOT_TESTABLE, HELD)
Arms = Mapping[str, Arm]


@dataclass(frozen=True)
class ClaimTest:
    """What a claim says of one data set and rival, before correction.

    Attributes:
        of: What is compared, where a claim compares several.
        method, other: Means over folds and seeds.
        interval: Of what the claim says is below 0 (above, without `below`), by patient bootstrap;
            NaN ends where it is no figure of samples.
        holds: What else has to hold; None where it cannot be tested.
    """

    claim: str
    data: str
    against: str
    method: float
    other: float
    interval: Estimate
    test: PairedTest
    below: bool
    holds: bool | None = True
    of: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim on one data set, and what it rests on.

    Attributes:
        tested: See `ClaimTest.interval`.
        p, p_holm: Of the corrected t-test over folds, and adjusted.
    """

    claim: str
    data: str
    of: str
    against: str
    method: float
    other: float
    tested: Estimate
    p: float
    p_holm: float
    verdict: str

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def compared(
    claim: str,
    data: str,
    against: str,
    arms: tuple[Arm, Arm],
    figure: Figure,
    size: tuple[int, int],
    *,
    below: bool,
    share: float = 1.0,
    other: Figure | None = None,
    of: str = "",
) -> ClaimTest:
    """A figure of one arm less `share` times that of another, which may be another figure.

    `size` are the training and test samples of a fold.
    """
    mine, theirs = arms[0].values(figure), arms[1].values(other or figure)
    test = over_folds(mine, [share * value for value in theirs], size)
    interval = by_patient(arms[0], figure, arms[1], share, other)
    values = float(np.mean(mine)), float(np.mean(theirs))
    return ClaimTest(claim, data, against, *values, interval, test, below, of=of)


def over_folds(a: Sequence[float], b: Sequence[float], size: tuple[int, int]) -> PairedTest:
    return corrected_t_test(a, b, n_train=size[0], n_test=size[1])


def adjusted(cases: Sequence[ClaimTest]) -> list[Claim]:
    """Holm's correction over all of them, and a verdict on each."""
    p_values = holm([case.test.p for case in cases])
    return [_claim(case, float(p)) for case, p in zip(cases, p_values, strict=True)]


def _claim(case: ClaimTest, p: float) -> Claim:
    beyond = case.interval.high if case.below else case.interval.low
    ahead: Callable[[float], bool] = (lambda x: x < 0) if case.below else (lambda x: x > 0)
    # What is no figure of samples has no interval; its null is in `holds`.
    clear = bool(np.isnan(beyond)) or ahead(beyond)
    held = p < ALPHA and ahead(case.test.difference) and clear and bool(case.holds)
    verdict = NOT_TESTABLE if case.holds is None else HELD if held else NOT_HELD
    return Claim(
        case.claim, case.data, case.of, case.against, case.method, case.other, case.interval,
        case.test.p, p, verdict,
    )  # fmt: skip
