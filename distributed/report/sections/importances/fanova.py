"""Shares of an objective's variance by fANOVA. Loads Optuna."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from trustsweep.distributed.report.wording import is_log, is_number
from trustsweep.distributed.run.ledger import Record
from trustsweep.search_spaces.space import Value


def space_of(trials: list[Record], parameters: Iterable[str]) -> dict[str, BaseDistribution]:
    """The range of each parameter, which all of the trials have."""
    return {name: distribution([t.config[name] for t in trials]) for name in parameters}


def distribution(values: list[Value]) -> BaseDistribution:
    """The range that the values suggest: fANOVA weighs what was tried, not what might have been."""
    numbers = [v for v in values if is_number(v)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted({str(v) for v in values}))
    return FloatDistribution(min(numbers), max(numbers), log=is_log(numbers))


def shares(
    trials: list[Record], space: dict[str, BaseDistribution], objective: str
) -> list[float] | None:
    """The share of each parameter; None where none varies, or the objective does not."""
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
