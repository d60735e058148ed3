"""Which parameters an objective hangs on, by fANOVA over the completed trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from distributed.report.thinning import MOST_SAMPLES, evenly
from distributed.report.wording import is_number
from distributed.run.folder import Run
from distributed.run.ledger import Record
from search_spaces.space import Value

ESTIMATOR = "fANOVA (Hutter et al. 2014; Optuna, random forest of 64 trees)"
LEAST_TRIALS = 4
#: Positive values that span more than this factor are taken to be searched in logarithm.
LOG_SPAN = 10.0


@dataclass(frozen=True)
class Importances:
    """Shares of an objective's variance per parameter (each list sums to 1), and what is missing.

    Attributes:
        parameters: Those that every completed trial has and that vary.
        shares: Objective name to one share per parameter, or None where it cannot be told.
        left_out: Parameters that vary, but that only some trials have (conditional ones).
        trials: Completed trials used.
    """

    parameters: list[str]
    shares: dict[str, list[float] | None]
    left_out: list[str]
    trials: int


def importances(run: Run) -> Importances | None:
    """fANOVA shares per objective; None with fewer than four trials that have all objectives."""
    names = [o.name for o in run.objectives]
    trials = [t for t in run.completed if all(n in t.metrics for n in names)]
    if len(trials) < LEAST_TRIALS:
        return None
    trials = evenly(trials, MOST_SAMPLES)
    present = {k: {t.config[k] for t in trials if k in t.config} for k in run.config_keys}
    varying = [k for k, values in present.items() if len(values) > 1]
    shared = [k for k in varying if all(k in t.config for t in trials)]
    space = {k: distribution([t.config[k] for t in trials]) for k in shared}
    return Importances(
        parameters=shared,
        shares={n: _shares(trials, space, n) for n in names},
        left_out=[k for k in varying if k not in shared],
        trials=len(trials),
    )


def is_log(values: Sequence[float]) -> bool:
    """Whether positive values span so much that a logarithmic scale shows them better."""
    return min(values) > 0 and max(values) / min(values) > LOG_SPAN


def distribution(values: list[Value]) -> BaseDistribution:
    """The range that the values suggest: fANOVA weighs what was tried, not what might have been."""
    numbers = [v for v in values if is_number(v)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted({str(v) for v in values}))
    return FloatDistribution(min(numbers), max(numbers), log=is_log(numbers))


def _shares(
    trials: list[Record], space: dict[str, BaseDistribution], objective: str
) -> list[float] | None:
    if not space or np.ptp([t.metrics[objective] for t in trials]) == 0:
        return None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        study.add_trials(
            optuna.create_trial(
                params={k: _as_drawn(t.config[k], space[k]) for k in space},
                distributions=space,
                value=t.metrics[objective],
            )
            for t in trials
        )
        result = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return [result[k] for k in space]


def _as_drawn(value: Value, space: BaseDistribution) -> Value:
    return str(value) if isinstance(space, CategoricalDistribution) else value
