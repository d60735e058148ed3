"""The four claims of the proposal, each with its test on every data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distributed.statistics import holm, paired_t_test
from fused.figures import (
    BASELINES,
    METHOD,
    Arm,
    Figure,
    drop,
    metric,
    precision,
    precision_accepted,
    weights,
)

ALPHA = 0.05


class Claim(NamedTuple):
    """One claim on one data set, and the test that it rests on."""

    claim: str
    data: str
    against: str
    method: float
    other: float
    difference: float
    p: float
    p_holm: float
    held: bool


def judge_claims(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    """All of them; p is adjusted over every test of a claim."""
    return [
        *_tested(found, "drop", BASELINES, drop, lambda a, b: a < 5 and b > 10),
        *_tested(
            found, "calibration", ("early-fusion", "late-fusion-mean"), metric("clean.ece"),
            lambda a, b: a <= 0.7 * b,
        ),
        *_abstention(found),
        *_reliance(found),
    ]  # fmt: skip


def _tested(
    found: dict[str, dict[str, Arm]],
    claim: str,
    rivals: Sequence[str],
    figure: Figure,
    bound: Callable[[float, float], bool],
) -> list[Claim]:
    """Less is better: the method less than each rival, significantly, and by the claimed bound."""
    pairs = []
    for data, arms in found.items():
        mine = arms[METHOD].values(figure)
        pairs += [(data, rival, mine, arms[rival].values(figure)) for rival in rivals]
    return _adjusted(claim, pairs, lambda a, b: a < b and bound(a, b))


def _abstention(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    pairs = [
        (
            data,
            "answering all",
            arms[METHOD].values(precision_accepted),
            arms[METHOD].values(precision),
        )
        for data, arms in found.items()
    ]
    return _adjusted("abstention", pairs, lambda a, b: a > b)


def _reliance(found: dict[str, dict[str, Arm]]) -> list[Claim]:
    pairs = [
        (data, "no correlation", arms[METHOD].values(weights), [0.0] * len(arms[METHOD].cards))
        for data, arms in found.items()
    ]
    return _adjusted("reliability", pairs, lambda a, b: a < b)


def _adjusted(
    claim: str,
    pairs: Sequence[tuple[str, str, list[float], list[float]]],
    holds: Callable[[float, float], bool],
) -> list[Claim]:
    tests = [paired_t_test(mine, theirs) for _, _, mine, theirs in pairs]
    adjusted = holm([test.p for test in tests])
    claims = []
    for (data, rival, mine, theirs), test, p in zip(pairs, tests, adjusted, strict=True):
        a, b = float(np.mean(mine)), float(np.mean(theirs))
        held = bool(p < ALPHA) and holds(a, b)
        claims.append(Claim(claim, data, rival, a, b, test.difference, test.p, float(p), held))
    return claims
