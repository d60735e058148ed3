"""Rules of stopping that are compared, each at the same rungs as the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from sklearn.linear_model import Ridge

from efficiency.problem import Floats
from trustsweep.distributed.search.stopping import make_policy
from trustsweep.distributed.search.stopping.forecast import Forecast
from trustsweep.distributed.search.stopping.policy import Metrics, Policy, Verdict
from trustsweep.distributed.search.stopping.ranking import losses_of
from trustsweep.distributed.statistics.front import Objective, pareto_mask
from trustsweep.search_spaces.study import Scheduler

FACTOR = 2


@dataclass(frozen=True)
class Rule:
    """A rule of stopping.

    Attributes:
        name, label: For the command line and for readers.
        known: Needs the range of the final values, which nobody has before a search.
        settings: Of a study's scheduler, where it is one of those.
    """

    name: str
    label: str
    known: bool = False
    settings: Mapping[str, object] | None = None


RULES = {
    rule.name: rule
    for rule in (
        Rule("none", "no stopping", settings={"policy": "none"}),
        Rule("asha", "Ray's ASHA", known=True),
        Rule(
            "scalarised",
            "halving, scalarised",
            settings={"policy": "halving", "ranking": "scalarised"},
        ),
        Rule(
            "halving",
            "halving by fronts (MO-ASHA)",
            settings={"policy": "halving", "ranking": "hypervolume"},
        ),
        Rule("ridge", "ridge regression"),
        Rule("forecast", "forecast", settings={"policy": "forecast"}),
    )
}
#: Rungs as shares of the full length, the same for every rule; the last were once forecast's own.
RUNGS = {
    "1/8": (1 / 8, 1 / 4, 1 / 2),
    "1/4": (1 / 4, 1 / 2),
    "four": (1 / 4, 3 / 8, 1 / 2, 3 / 4),
}


def picked(rungs: Sequence[float], steps: Sequence[int]) -> list[int]:
    """Indices into `steps` of the rungs, and of the end.

    Raises ValueError where a rung is no step at which the problem is measured.
    """
    places = {float(step): place for place, step in enumerate(steps)}
    if missing := [share for share in rungs if share * steps[-1] not in places]:
        raise ValueError(f"not measured at {missing} of the full length")
    return [*(places[share * steps[-1]] for share in rungs), len(steps) - 1]


def policy_of(
    rule: str,
    objectives: Sequence[Objective],
    rungs: Sequence[float],
    finals: Floats | None = None,
    seed: int = 0,
    doubt: float | None = None,
) -> Policy:
    """A fresh policy.

    Args:
        rungs: Shares of the full length; for `asha` geometric by `FACTOR`.
        finals: (n, m) of full-length trials, from which `asha` has its scale.
        doubt: Of `forecast`, instead of its own.
    """
    if rule == "asha":
        assert finals is not None
        # Only ratios count: rungs 1, 2, 4 of a length of 8.
        steps = [round(share / rungs[0]) for share in (*rungs, 1.0)]
        return ScalarisedAsha(objectives, steps, finals)
    if rule == "ridge":
        return PlainRidge(objectives, rungs=len(rungs))
    if doubt is not None:
        return Forecast(objectives, rungs=len(rungs), seed=seed, doubt=doubt)
    settings = RULES[rule].settings
    assert settings is not None
    scheduler = Scheduler.model_validate({**settings, "rungs": list(rungs), "factor": FACTOR})
    return make_policy(scheduler, objectives, seed=seed)


class ScalarisedAsha(Policy):
    """Ray's ASHA (Li et al. 2018, arXiv 1810.05934) on the mean of the objectives, each 0 to 1.

    Args:
        objectives: With their directions.
        steps: Where the rungs are, and the full length; geometric by `FACTOR`.
        finals: (n, m) of full-length trials: each objective's worst final value counts 0 and its
            best 1. Nobody has them before a search; it is to ASHA's favour.
    """

    def __init__(
        self, objectives: Sequence[Objective], steps: Sequence[int], finals: Floats
    ) -> None:
        super().__init__(objectives, rungs=len(steps) - 1)
        self._steps = steps
        signs = np.array([1.0 if o.direction == "max" else -1.0 for o in objectives])
        self._signs = signs
        self._worst = np.nanmin(signs * finals, axis=0)
        self._extent = np.nanmax(signs * finals, axis=0) - self._worst
        self._scheduler = ASHAScheduler(
            metric="score",
            mode="max",
            max_t=steps[-1],
            grace_period=steps[0],
            reduction_factor=FACTOR,
        )
        self._trials: dict[str, SimpleNamespace] = {}

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        """See `Policy`."""
        result = {"training_iteration": self._steps[rung], "score": self._score(metrics)}
        # Ray's scheduler asks a trial for its id alone.
        ray_trial = self._trials.get(trial)
        if ray_trial is None:
            ray_trial = self._trials[trial] = SimpleNamespace(trial_id=trial)
            self._scheduler.on_trial_add(None, ray_trial)
        action = self._scheduler.on_trial_result(None, ray_trial, result)
        return Verdict(stop=action == TrialScheduler.STOP)

    def end(self, trial: str, metrics: Metrics | None) -> None:
        """Nothing: what runs to the end has no rung there."""

    def _score(self, metrics: Metrics) -> float:
        values = np.array([metrics[o.name] for o in self.objectives])
        score = float(((self._signs * values - self._worst) / self._extent).mean())
        return score if np.isfinite(score) else -np.inf


class PlainRidge(Policy):
    """The plain rule to beat: a ridge regression on value and last change, ten full trials to learn
    from, one standard deviation of optimism in every objective."""

    LEARN_FROM = 10
    OPTIMISM = 1.0

    def __init__(self, objectives: Sequence[Objective], *, rungs: int) -> None:
        super().__init__(objectives, rungs=rungs)
        self._curves: dict[str, list[Floats]] = {}
        self._ended: list[list[Floats]] = []

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        """See `Policy`."""
        curve = self._curves.setdefault(trial, [])
        curve.append(losses_of(metrics, self.objectives))
        if len(self._ended) < self.LEARN_FROM:
            return Verdict()
        finals = np.array([ended[-1] for ended in self._ended])
        features = np.array([_value_and_change(ended, rung) for ended in self._ended])
        centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-12
        inputs = (features - centre) / scale
        model = Ridge().fit(inputs, finals)
        error = (model.predict(inputs) - finals).std(axis=0)
        now = model.predict([(_value_and_change(curve, rung) - centre) / scale])[0]
        front = finals[pareto_mask(finals, ["min"] * finals.shape[1])]
        return Verdict(bool((front <= now - self.OPTIMISM * error).all(axis=1).any()))

    def end(self, trial: str, metrics: Metrics | None) -> None:
        """See `Policy`."""
        assert metrics is not None
        self._ended.append([*self._curves.pop(trial, []), losses_of(metrics, self.objectives)])


def _value_and_change(curve: Sequence[Floats], rung: int) -> Floats:
    before = curve[rung - 1] if rung else curve[rung]
    return np.concatenate([curve[rung], curve[rung] - before])
