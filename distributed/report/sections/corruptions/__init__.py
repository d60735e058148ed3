"""Performance of each method against corruption severity, on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.suites import Parameter, parameters
from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.wording import number
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record
from trustsweep.trainables.conditions import CLEAN, CORRUPTED, corrupted_name
from trustsweep.trainables.metrics.names import MetricName

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MethodCurves:
    """A method's figures at each severity; None where the trial has none.

    Attributes:
        method, id: The method, and the trial that stands for it.
        place: Of the method among those of the run; its colour.
        auroc, ece: From clean on.
        drop: Loss of AUROC, in percent of the clean one.
    """

    method: str
    id: str
    place: int
    auroc: list[float | None]
    ece: list[float | None]
    drop: list[float | None]


@dataclass(frozen=True)
class Worsening:
    """One corruption. `severities` begin with 0, clean; `labels` are the parameters there."""

    corruption: str
    parameter: str
    severities: list[int]
    labels: list[str]
    losses: list[MethodCurves]


class CorruptionsSection(Section[list[Worsening]]):
    figure = "corruptions"
    absent: ClassVar[Mapping[str, Any]] = {"worsenings": []}

    def gather(self, run: Run) -> list[Worsening] | None:
        return worsenings(run) or None

    def payload(self, run: Run, data: list[Worsening]) -> dict[str, Any]:
        return {"worsenings": [dataclasses.asdict(w) for w in data]}

    def draw(self, run: Run, data: list[Worsening]) -> Figure | None:
        from trustsweep.distributed.report.sections.corruptions.figure import draw

        return draw(data)


def worsenings(run: Run) -> list[Worsening]:
    """Each corruption of the study, for the best completed trial of each method.

    Best is by the first objective. Empty for runs without AUROC, such as segmentation.
    """
    best = _best(run)
    names = {name for trial in best.values() for name in trial.metrics}
    cells: dict[str, set[int]] = {}
    for condition, metric in ((n.condition, n.metric) for n in map(MetricName.parse, names)):
        if metric == "auroc" and condition and condition.kind == CORRUPTED and condition.detail:
            corruption, _, severity = condition.detail.rpartition("-")
            cells.setdefault(corruption, set()).add(int(severity))
    return [_worsening(run, name, sorted(cells[name]), best) for name in sorted(cells)]


def _best(run: Run) -> dict[str, Record]:
    """The trial that stands for each method, by name."""
    if not run.objectives:
        return {}
    objective = run.objectives[0]
    sign = 1 if objective.direction == "max" else -1
    best: dict[str, Record] = {}
    for trial in sorted(
        (t for t in run.completed if objective.name in t.metrics),
        key=lambda t: sign * t.metrics[objective.name],
    ):
        best[str(trial.config.get("method", "the study's model"))] = trial
    return dict(sorted(best.items()))


def _worsening(
    run: Run, corruption: str, severities: list[int], best: Mapping[str, Record]
) -> Worsening:
    losses = []
    for place, (method, trial) in enumerate(best.items()):
        conditions = [CLEAN, *(corrupted_name(corruption, s) for s in severities)]
        auroc = [trial.metrics.get(f"{c}.auroc") for c in conditions]
        ece = [trial.metrics.get(f"{c}.ece") for c in conditions]
        drop = [_drop(auroc[0], value) for value in auroc]
        losses.append(MethodCurves(method, trial.id, place, auroc, ece, drop))
    return Worsening(
        corruption=corruption,
        parameter=_symbol(corruption),
        severities=[0, *severities],
        labels=["clean", *_labels(run, corruption, severities)],
        losses=losses,
    )


def _drop(clean: float | None, value: float | None) -> float | None:
    return None if not clean or value is None else 100 * (clean - value) / clean


def _labels(run: Run, corruption: str, severities: list[int]) -> list[str]:
    """The suite's parameters; the severities' numbers where this version does not know them."""
    try:
        known = parameters(run.study.evaluation.suite, corruption)
    except UserError:
        return [f"severity {s}" for s in severities]
    return [_text(known[s - 1]) for s in severities]


def _symbol(corruption: str) -> str:
    """The symbol of its parameter; a plug-in may not be loaded."""
    known = corruption in CORRUPTIONS
    return str(CORRUPTIONS.fact(corruption, "symbol")) if known else "parameter"


def _text(parameter: Parameter) -> str:
    parts = parameter if isinstance(parameter, tuple) else (parameter,)
    return ", ".join(number(float(part)) for part in parts)
