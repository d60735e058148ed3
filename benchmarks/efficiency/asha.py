"""Ray's ASHA, as its guide uses it, on several objectives added up to one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from distributed.front import Objective
from distributed.stopping.policy import Figures, Policy, Verdict
from efficiency.problem import Floats

FACTOR = 2


class ScalarisedAsha(Policy):
    """ASHA (Li et al. 2018, arXiv 1810.05934) on the mean of the objectives, each from 0 to 1.

    Args:
        objectives: With their directions.
        steps: Where the rungs are, and the full length; geometric by `FACTOR`.
        finals: (n, m) of full-length trials: each objective's worst final value counts 0 and its
            best 1. Nobody has them before a search; it is the fairest scale, and to ASHA's favour.
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
            metric="score", mode="max", max_t=steps[-1], grace_period=1, reduction_factor=FACTOR
        )
        self._trials: dict[str, SimpleNamespace] = {}

    def report(self, trial: str, rung: int, figures: Figures) -> Verdict:
        """See `Policy`."""
        result = {"training_iteration": self._steps[rung], "score": self._score(figures)}
        # Ray's scheduler asks a trial for its id alone.
        ray_trial = self._trials.get(trial)
        if ray_trial is None:
            ray_trial = self._trials[trial] = SimpleNamespace(trial_id=trial)
            self._scheduler.on_trial_add(None, ray_trial)
        action = self._scheduler.on_trial_result(None, ray_trial, result)
        return Verdict(stop=action == TrialScheduler.STOP)

    def end(self, trial: str, figures: Figures | None) -> None:
        """Nothing: what runs to the end has no rung there."""

    def _score(self, figures: Figures) -> float:
        values = np.array([figures[o.name] for o in self.objectives])
        score = float(((self._signs * values - self._worst) / self._extent).mean())
        return score if np.isfinite(score) else -np.inf
