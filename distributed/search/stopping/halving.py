"""Asynchronous successive halving for several objectives: ASHA on their mean, or MO-ASHA.

At each rung a trial goes on if it is among the best ``1/factor`` of those that got there before
it, in the order of `.ranking`: by the mean of the objectives, each between the
best and the worst that the rung has seen, or by fronts (MO-ASHA). With one objective that is ASHA
in its stopping form, as Ray Tune's `ASHAScheduler` decides it: the first trial at a rung goes on, a
later one stops where its figure lies below the ``1 - 1/factor`` quantile of what was recorded,
interpolated linearly; here of the latest `WINDOW`, so that a decision takes bounded time. (The
paper's own ASHA pauses trials and promotes them later, which a slot that holds one model at a time
cannot do.)

With more brackets, a trial is given one at random; bracket b spares its trials the first b rungs.

Sources: Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar (2020), "A system for massively
parallel hyperparameter tuning"; Schmucker et al. (2021), "Multi-objective asynchronous successive
halving".
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trustsweep.distributed.search.stopping.policy import Bound, Metrics, Policy, Verdict
from trustsweep.distributed.search.stopping.ranking import (
    Indices,
    Ranking,
    dominates,
    is_broken,
    losses_of,
    rank,
    violations_of,
)
from trustsweep.distributed.statistics.front import Floats, Objective

#: Trials of a rung that a new one is ranked among, the latest; a decision's time stays bounded.
WINDOW = 256
#: As many ids as a verdict names at most.
NAMED = 8


@dataclass
class _Rung:
    """The results at a rung, in order of arrival."""

    trials: deque[str] = field(default_factory=lambda: deque(maxlen=WINDOW))
    losses: deque[Floats] = field(default_factory=lambda: deque(maxlen=WINDOW))
    violations: deque[Floats] = field(default_factory=lambda: deque(maxlen=WINDOW))


class Halving(Policy):
    """Keeps the best ``1/factor`` of each rung.

    Args:
        factor: Above 1.
        brackets: How many; at least 1.
        ranking: The order; see `trustsweep.distributed.search.stopping.ranking.rank`.
        objectives, constraints, rungs, seed: See `Policy`.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Bound] = (),
        *,
        rungs: int,
        seed: int = 0,
        factor: float = 2.0,
        brackets: int = 1,
        ranking: Ranking = "scalarised",
    ) -> None:
        super().__init__(objectives, constraints, rungs=rungs, seed=seed)
        self._factor = factor
        self._ranking = ranking
        count = max(1, min(brackets, rungs))
        self._brackets = [[_Rung() for _ in range(rungs)] for _ in range(count)]

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        bracket = self._bracket(trial)
        if rung < bracket:
            return Verdict()
        here = self._brackets[bracket][rung]
        here.trials.append(trial)
        here.losses.append(losses_of(metrics, self.objectives))
        here.violations.append(violations_of(metrics, self.constraints))
        return self._verdict(here, rung)

    def end(self, trial: str, metrics: Metrics | None) -> None:
        """Nothing: halving compares trials at the rungs alone."""

    def _bracket(self, trial: str) -> int:
        """The trial's bracket, by Ray's odds: one e-th as likely for each rung less."""
        count = len(self._brackets)
        if count == 1:
            return 0
        odds = np.exp(-np.arange(count))
        # Of seed and trial alone, so that it is the same whatever else was drawn before.
        draw = np.random.default_rng([self.seed, zlib.crc32(trial.encode())])
        return int(draw.choice(count, p=odds / odds.sum()))

    def _verdict(self, rung: _Rung, number: int) -> Verdict:
        """Whether the last trial of a rung goes on."""
        losses, violations = np.array(rung.losses), np.array(rung.violations)
        order = rank(losses, violations, self._ranking)
        scores = _scores(order, losses, violations)
        before, score = scores[:-1], scores[-1]
        if np.isnan(before).all() or score >= np.nanquantile(before, 1 - 1 / self._factor):
            return Verdict()
        ahead = order[: np.flatnonzero(order == len(before))[0]]
        ahead = ahead[~np.isnan(scores[ahead])]
        if not violations[-1].max(initial=0.0) > 0:
            # Those that beat it outright, if any do; else what its own front has too much of.
            beaten = dominates(losses[ahead], losses[-1:])[:, 0]
            ahead = ahead[beaten] if beaten.any() else ahead
        share = f"{1 / self._factor:.0%} of {len(before)}"
        reason = f"ranks behind the best {share} at rung {number + 1}"
        return Verdict(True, reason, tuple(rung.trials[i] for i in ahead[:NAMED]))


def _scores(order: Indices, losses: Floats, violations: Floats) -> Floats:
    """The scores that trials are compared by, higher is better: (n,); NaN for missing metrics.

    Their places in `order`, but of a single objective its values: ASHA's quantile falls between
    two of them.
    """
    if losses.shape[1] == 1 and not violations.shape[1]:
        return -losses[:, 0]
    scores = np.empty(len(losses))
    scores[order] = -np.arange(len(losses))
    return np.where(is_broken(losses, violations), np.nan, scores)
