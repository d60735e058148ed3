"""Stop a trial once its forecast leaves it next to no chance of reaching the front.

Early metrics need not rank trials as their final ones do: good calibration, for one, often predicts
bad. So trials are not compared at a rung. Instead, the final metrics are forecast from those at the
rung, by a model of the trials that ended, and the forecast is compared with the front.

**Forecast.** At each rung and for all objectives (and the violations of the constraints) at once,
a ridge regression predicts final values from the values at that rung and their change since the
rung before (`.regression`): each target's penalty is chosen by leave-one-out error, so
uninformative features get no weight. Only trials near the front have to be distinguished, and their
learning curves are flat where those of bad trials are steep. So features are winsorised at `SPREAD`
times the distance from the median to the best tenth, on both sides, and targets, on the bad side,
at the distance from the median to the best. NaN is beyond both.

**Verdict.** The final values y of a trial are taken as

    y = ŷ + s √(1 + h) · t,    t ~ multivariate Student, correlated as the left-out residuals are,

with leverage h and the fit's degrees of freedom. The trial stops where

    P(y keeps every constraint and is not dominated by the front) < risk · skill^4,

the front being that of the trials that ran to the end and keep every constraint; without any,
nothing stops. The probability is joint: a corner that is optimistic in every objective at once is
a point that correlated objectives never reach, yet k deviations of optimism in the one objective
that matters may be too few.

**Where forecasts are poor, little is stopped.** The skill of a rung is the share of the final
values' variance that it explains, by left-out residuals, for the objective where this is least;
it is 0 where that might be chance. The probabilities are only as good as their model: slow
starters, for one, do not follow the residuals of the others. So the threshold falls steeply with
the skill. At a rung where an objective is noise it is zero, and nothing is stopped: the unknown
could be better than the best.

**Stopped trials count, too.** They have no final values; without them, the models of the early
rungs would rest on the few trials that did well later (survivorship bias). So a stopped trial
enters with its forecast final values and the variance of that forecast (which adds to s²). This is
regression imputation; as stopping depends only on observed values, these are missing at random
(Little and Rubin, 2019, "Statistical analysis with missing data", 1.3, 4.2).

Nothing here depends on a metric's unit, origin or sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtri
from scipy.stats import qmc

from trustsweep.distributed.search.stopping.policy import Bound, Metrics, Policy, Verdict
from trustsweep.distributed.search.stopping.ranking import losses_of, violations_of
from trustsweep.distributed.search.stopping.regression import Forecasts, Ridge
from trustsweep.distributed.statistics.front import Archive, Floats, Objective

#: Trials of a kind, full or stopped, that are learnt from at most: the latest; a decision's time
#: stays bounded.
WINDOW = 128
#: Where features are winsorised, in distances from the median to the best tenth.
SPREAD = 2.0
#: How steeply the threshold falls with the skill.
DOUBT = 4
#: Draws of a forecast's error; a power of 2, as Sobol' sequences have it.
DRAWS = 512
#: As many ids as a verdict names at most.
NAMED = 8

#: By number of the rung, (2 (m + c),): a trial's losses and violations there, and their change
#: since the rung before.
_Curve = dict[int, Floats]


@dataclass(frozen=True)
class _Ended:
    """A trial that ended: `final` (m + c,) was measured, or forecast with that `variance`."""

    trial: str
    curve: _Curve
    final: Floats
    variance: Floats


@dataclass(frozen=True)
class _Model:
    """The forecasting model of a rung.

    Attributes:
        low, high: (2 (m + c),) where features are winsorised.
        middle: (m + c,) medians of the final values.
        ridge: The regression.
        errors: (DRAWS, m + c) of its forecasts, in units of their deviations.
    """

    low: Floats
    high: Floats
    middle: Floats
    ridge: Ridge
    errors: Floats


class Forecast(Policy):
    """Stops trials whose forecast leaves them behind the front.

    Args:
        risk: The probability of reaching the front below which a trial is stopped, in (0, 1), at
            a rung with a skill of 1.
        learn_from: Trials that run to the end before any is stopped; at least 3.
        doubt: The exponent of the skill, how steeply the threshold falls with it.
        objectives, constraints, rungs, seed: See `Policy`.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Bound] = (),
        *,
        rungs: int,
        seed: int = 0,
        risk: float = 0.15,
        learn_from: int = 8,
        doubt: float = DOUBT,
    ) -> None:
        super().__init__(objectives, constraints, rungs=rungs, seed=seed)
        self._risk = risk
        self._doubt = doubt
        self._learn_from = learn_from
        self._curves: dict[str, _Curve] = {}
        self._full: dict[str, _Ended] = {}
        self._stopped: dict[str, _Ended] = {}
        self._front: Archive[str] = Archive(["min"] * len(objectives))
        self._models: dict[int, _Model | None] = {}
        self._normal, self._uniform = _draws(len(objectives) + len(constraints), seed)

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        curve = self._curves.setdefault(trial, {})
        curve[rung] = _features(curve, rung, self._row(metrics))
        model = self._model(rung) if self._front.keys else None
        if model is None:
            return Verdict()
        forecast = model.ridge.forecast(np.clip(curve[rung], model.low, model.high))
        verdict = self._verdict(rung, model, forecast)
        if verdict.stop:
            del self._curves[trial]
            ended = _Ended(trial, curve, forecast.mean, forecast.deviation**2)
            self._learn_of(ended, self._stopped)
        return verdict

    def end(self, trial: str, metrics: Metrics | None) -> None:
        # Two slots may end in another order on replay: measured values win.
        stopped = self._stopped.pop(trial, None)
        curve = stopped.curve if stopped else self._curves.pop(trial, {})
        if metrics is None:
            return
        final = self._row(metrics)
        ended = _Ended(trial, curve, final, np.zeros_like(final))
        self._learn_of(ended, self._full)
        self._enter(ended)

    def _learn_of(self, ended: _Ended, kind: dict[str, _Ended]) -> None:
        kind[ended.trial] = ended
        if len(kind) > WINDOW:
            del kind[next(iter(kind))]
        self._models.clear()

    def _row(self, metrics: Metrics) -> Floats:
        """(m + c,) losses and violations; NaN counts as worse than any number."""
        row = np.concatenate(
            [losses_of(metrics, self.objectives), violations_of(metrics, self.constraints)]
        )
        return np.where(np.isnan(row), np.inf, row)

    def _enter(self, ended: _Ended) -> None:
        """Keep the front of what is feasible."""
        m = len(self.objectives)
        if not np.isfinite(ended.final).all() or ended.final[m:].max(initial=0.0) > 0:
            return
        self._front.add(ended.trial, ended.final[:m])

    def _model(self, rung: int) -> _Model | None:
        """Refitted when a trial has ended; None if too few full ones passed this rung."""
        if rung not in self._models:
            full = [e for e in self._full.values() if rung in e.curve]
            stopped = [e for e in self._stopped.values() if rung in e.curve]
            enough = len(full) >= self._learn_from
            self._models[rung] = self._learn(full, stopped, rung) if enough else None
        return self._models[rung]

    def _learn(self, full: Sequence[_Ended], stopped: Sequence[_Ended], rung: int) -> _Model:
        """Fit the regression of final values on the values at a rung."""
        seen = [*full, *stopped]
        features = np.array([e.curve[rung] for e in seen])
        best, median = _quantiles(features, 0.1)
        low, high = median - SPREAD * (median - best), median + SPREAD * (median - best)
        least, middle = _quantiles(np.array([e.final for e in full]), 0.0)
        targets = np.minimum([e.final for e in seen], middle + (middle - least))
        variances = np.array([e.variance for e in seen])
        ridge = Ridge.fit(np.clip(features, low, high), targets, variances)
        half = ridge.freedom / 2
        tails = np.sqrt(half / gammaincinv(half, self._uniform))
        errors = tails * (self._normal @ np.linalg.cholesky(ridge.correlation).T)
        return _Model(low, high, middle, ridge, errors)

    def _verdict(self, rung: int, model: _Model, forecast: Forecasts) -> Verdict:
        m = len(self.objectives)
        risk = self._risk * model.ridge.skill.min() ** self._doubt
        draws = forecast.mean + forecast.deviation * model.errors
        # One objective at a time: reducing an axis of two or three is slower by far.
        beaten = np.logical_and.reduce(
            [
                front <= drawn[:, None]
                for front, drawn in zip(self._front.values.T, draws.T[:m], strict=True)
            ]
        )
        kept = np.asarray(draws[:, m:] <= 0)
        if (kept.all(axis=1) & ~beaten.any(axis=1)).mean() >= risk:
            return Verdict()
        values = self._values_text(model, forecast)
        if kept.all(axis=1).mean() < risk:
            metric = self.constraints[int(kept.mean(axis=0).argmin())].metric
            reason = f"forecast {values} at rung {rung + 1} breaks the bound on {metric}"
            return Verdict(True, reason, tuple(self._front.keys[:NAMED]))
        # Those that are ahead of most of the draws, else the one that is ahead of most.
        shares = beaten.mean(axis=0)
        ahead = np.argsort(-shares, kind="stable")[: max(1, min(NAMED, (shares > 0.5).sum()))]
        names = tuple(self._front.keys[i] for i in ahead)
        return Verdict(True, f"forecast {values} at rung {rung + 1} is dominated", names)

    def _values_text(self, model: _Model, forecast: Forecasts) -> str:
        """The forecast of the objectives, formatted."""
        parts = []
        for i, objective in enumerate(self.objectives):
            mean = forecast.mean[i] * (-1 if objective.direction == "max" else 1)
            part = f"{objective.name} {mean:.3g} ± {forecast.deviation[i]:.1g}"
            # Beyond the median, forecasts draw near where the targets were winsorised.
            parts.append(part + " or worse" if forecast.mean[i] > model.middle[i] else part)
        return ", ".join(parts)


def _features(curve: _Curve, rung: int, now: Floats) -> Floats:
    """(2 (m + c),) the values at a rung, and their change since the last one before it."""
    earlier = [number for number in curve if number < rung]
    if not earlier:
        return np.concatenate([now, np.zeros_like(now)])
    with np.errstate(invalid="ignore"):
        change = now - curve[max(earlier)][: len(now)]
    # Two metrics that are none: no change.
    return np.concatenate([now, np.where(np.isnan(change), 0.0, change)])


def _quantiles(values: Floats, share: float) -> tuple[Floats, Floats]:
    """A low quantile and the median of what is finite in each column of (n, k); 0 of nothing."""
    finite = np.isfinite(values)
    ordered = np.sort(np.where(finite, values, np.inf), axis=0)
    last = finite.sum(axis=0) - 1
    columns = np.arange(values.shape[1])

    def at(part: float) -> Floats:
        place = np.maximum(last, 0) * part
        below = np.floor(place).astype(int)
        low, high = ordered[below, columns], ordered[np.ceil(place).astype(int), columns]
        return np.where(last < 0, 0.0, low + (high - low) * (place - below))

    with np.errstate(invalid="ignore"):  # infinite less infinite, of columns without a number
        return at(share), at(0.5)


def _draws(dimensions: int, seed: int) -> tuple[Floats, Floats]:
    """Quasi-random normal (DRAWS, dimensions) and uniform (DRAWS, 1) numbers.

    Few of them give a probability well. They are the same for every decision, so that all trials
    are compared on the same draws.
    """
    uniform = qmc.Sobol(dimensions + 1, seed=seed).random(DRAWS)
    return ndtri(uniform[:, :-1]), uniform[:, -1:]
