"""Optuna as a Ray Tune searcher for several objectives, over a conditional space.

Ray's own `OptunaSearch` is not used: with several objectives it leaves a trial RUNNING for ever
when a metric is NaN, records a stopped or failed trial as COMPLETE with the values it had, so that
it reaches the front, and persists itself by pickle. Here an ended trial is told as COMPLETE,
PRUNED (stopped by a scheduler) or FAIL, constraints go through `Trial.set_constraint`, and the
Optuna journal is the only state.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from data_pipelines.errors import UserError
from distributed.front import Objective
from distributed.ledger import State
from distributed.outcome import metrics_of, outcome
from search_spaces.study import Constraint, Search, Study

JOURNAL = "optuna-journal.log"
#: Suggestions that repeat a known config are answered from it; after this many in a row, stop.
_MAX_REPEATS = 50


def make_sampler(search: Search) -> BaseSampler:
    """The Optuna sampler that a study names, seeded."""
    samplers = optuna.samplers
    # A third of the trials at random before TPE models them: its default of 10 would leave a short
    # sweep random.
    startup = min(10, max(4, search.trials // 3))
    makers: dict[str, Callable[[], BaseSampler]] = {
        # Grouped: parameters that exist together are modelled together.
        "tpe": lambda: samplers.TPESampler(
            seed=search.seed, n_startup_trials=startup, multivariate=True, group=True
        ),
        "random": lambda: samplers.RandomSampler(seed=search.seed),
        "grid": lambda: samplers.RandomSampler(seed=search.seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=search.seed, population_size=startup),
        "nsga3": lambda: samplers.NSGAIIISampler(seed=search.seed, population_size=startup),
        "gp": lambda: samplers.GPSampler(seed=search.seed, n_startup_trials=startup),
        "qmc": lambda: samplers.QMCSampler(seed=search.seed, scramble=True),
    }
    return makers[search.sampler]()


class ParetoSearch(Searcher):
    """Asks Optuna for configs and tells it what became of them.

    A suggestion is ``{"trial": id, "config": {flat parameters}}``. No id is suggested twice.
    """

    def __init__(
        self,
        study: Study,
        objectives: list[Objective],
        journal: Path,
        identify: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """`identify` gives a config its trial id. Raises `UserError` for an impossible grid."""
        # Tune is told of no metric: it would demand one of every epoch; the last alone has them.
        super().__init__()
        # What Optuna calls experimental (metric names, grouped TPE) has been there since 3.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._names = [o.name for o in objectives]
        self._constraints: list[Constraint] = study.constraints
        self._space = study.search_space()
        self._identify = identify
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=study.name,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            directions=["maximize" if o.direction == "max" else "minimize" for o in objectives],
            sampler=make_sampler(study.search),
        )
        self._study.set_metric_names(self._names)
        self._left: int | None = None
        if study.search.sampler == "grid":
            grid = self._space.grid()
            self._left = len(grid)
            for params in grid:
                self._study.enqueue_trial(params)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._known: dict[str, dict[str, float]] = {}
        self._seen: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for `Tuner.restore`, which is never used here."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config nobody ran yet, or `Searcher.FINISHED` when there seems to be none left."""
        for _ in range(_MAX_REPEATS):
            if self._left is not None:
                if self._left == 0:
                    return str(Searcher.FINISHED)
                self._left -= 1
            trial = self._study.ask()
            config = self._space.suggest(trial)
            name = self._identify(config)
            if name not in self._seen:
                self._seen.add(name)
                trial.set_user_attr("id", name)
                trial.set_user_attr("config", config)
                self._asked[trial_id] = trial
                return {"trial": name, "config": config}
            self._answer_repeat(trial, name)
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: Optuna takes no intermediate values for several objectives."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna once; the ledger says the same of this trial (see `outcome`)."""
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return
        verdict = outcome(result, self._names, "died" if error else "")
        if verdict.state is State.COMPLETED:
            metrics = metrics_of(result)
            self._known[trial.user_attrs["id"]] = metrics
            self._tell(trial, metrics)
        else:
            state = TrialState.PRUNED if verdict.state is State.STOPPED else TrialState.FAIL
            trial.set_user_attr("reason", verdict.reason)
            self._study.tell(trial, state=state)

    def save(self, checkpoint_path: str) -> None:
        """The trials in flight, as JSON; all else is in the journal."""
        flight = {tune_id: trial.number for tune_id, trial in self._asked.items()}
        Path(checkpoint_path).write_text(json.dumps(flight), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Not yet: a run cannot be taken up again."""
        raise UserError(f"{checkpoint_path}: a run cannot be resumed yet; start a new one.")

    def _tell(self, trial: optuna.trial.Trial, metrics: Mapping[str, float]) -> None:
        for constraint in self._constraints:
            violation = constraint.violation(metrics[constraint.metric])
            # A figure that is no number keeps no bound; Optuna refuses to be told NaN.
            trial.set_constraint(str(constraint), math.inf if math.isnan(violation) else violation)
        self._study.tell(trial, [metrics[name] for name in self._names])

    def _answer_repeat(self, trial: optuna.trial.Trial, name: str) -> None:
        """A config that is known already: its figures are a function of it, so reuse them."""
        if name in self._known:
            self._tell(trial, self._known[name])
        else:
            self._study.tell(trial, state=TrialState.FAIL)
