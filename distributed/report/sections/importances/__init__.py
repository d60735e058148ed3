"""Parameter importances for each objective, by fANOVA over the completed trials."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.thinning import MOST_SAMPLES, evenly
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATOR = "fANOVA (Hutter et al. 2014; Optuna, random forest of 64 trees)"
LEAST_TRIALS = 4


@dataclass(frozen=True)
class Importances:
    """Shares of an objective's variance per parameter (each list sums to 1), and what is missing.

    Attributes:
        parameters: Those that every completed trial has and that vary.
        shares: Objective name to one share per parameter, or None where it is undefined.
        left_out: Parameters that vary, but that only some trials have (conditional ones).
        trials: Completed trials used.
    """

    parameters: list[str]
    shares: dict[str, list[float] | None]
    left_out: list[str]
    trials: int


@dataclass(frozen=True)
class Estimated:
    """Importances, their estimator, and the trials that it needs.

    Attributes:
        importances: None with fewer than `least_trials`.
    """

    importances: Importances | None
    estimator: str = ESTIMATOR
    least_trials: int = LEAST_TRIALS


class ImportancesSection(Section[Estimated]):
    figure = "importances"

    def gather(self, run: Run) -> Estimated:
        return Estimated(importances(run))

    def payload(self, run: Run, data: Estimated) -> dict[str, Any]:
        importances = data.importances
        return {"importances": dataclasses.asdict(importances) if importances else None}

    def draw(self, run: Run, data: Estimated) -> Figure | None:
        from trustsweep.distributed.report.sections.importances.figure import draw

        return draw(data)


def importances(run: Run) -> Importances | None:
    """fANOVA shares per objective; None with fewer than four trials that have all objectives."""
    from trustsweep.distributed.report.sections.importances.fanova import shares, space_of

    names = [o.name for o in run.objectives]
    trials = [t for t in run.completed if all(n in t.metrics for n in names)]
    if len(trials) < LEAST_TRIALS:
        return None
    trials = evenly(trials, MOST_SAMPLES)
    present = {k: {t.config[k] for t in trials if k in t.config} for k in run.config_keys}
    varying = [k for k, values in present.items() if len(values) > 1]
    shared = [k for k in varying if all(k in t.config for t in trials)]
    space = space_of(trials, shared)
    return Importances(
        parameters=shared,
        shares={n: shares(trials, space, n) for n in names},
        left_out=[k for k in varying if k not in shared],
        trials=len(trials),
    )
