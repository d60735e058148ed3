"""The front beside predictors that ignore the image, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trustsweep.distributed.report.evaluated import trivial_results
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.folder import Run
from trustsweep.trainables.metrics.names import SKILL


@dataclass(frozen=True)
class PredictorRow:
    """A predictor or a model on clean samples.

    Attributes:
        name: Of the predictor, or the id of the trial.
        remark: Why the model is trivial; may be empty.
        figures: By metric.
        skills: Of a model, by metric; NaN where a trivial predictor is perfect.
    """

    name: str
    remark: str
    figures: Mapping[str, float]
    skills: Mapping[str, float]


@dataclass(frozen=True)
class Beside:
    """One split; each metric has the best of the `predictors` in `best`, "" for none."""

    split: str
    metrics: list[str]
    best: Mapping[str, str]
    predictors: list[PredictorRow]
    models: list[PredictorRow]


class BesideSection(Section[Beside]):
    def gather(self, run: Run) -> Beside | None:
        return beside(run)


def beside(run: Run) -> Beside | None:
    """The front's models on the test split, or on validation until they are evaluated.

    None for a run without the trivial predictors' metrics.
    """
    trivial = trivial_results(run)
    if trivial is None:
        return None
    shown = list(trivial.best)
    evaluated = [card for card in run.front_cards if card.trivial]
    models = (
        [(e.id, e.triviality, e.metrics) for e in evaluated]
        if evaluated
        else [(t.id, run.remarks.get(t.id, ""), t.metrics) for t in run.front]
    )
    return Beside(
        split=trivial.split,
        metrics=shown,
        best=trivial.best,
        predictors=[PredictorRow(name, "", row, {}) for name, row in trivial.figures.items()],
        models=[PredictorRow(name, remark, *_of(values, shown)) for name, remark, values in models],
    )


def _of(
    values: Mapping[str, float], metrics: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The clean figures and their skills."""
    figures = {m: values.get(f"clean.{m}", math.nan) for m in metrics}
    return figures, {m: values.get(f"{SKILL}.clean.{m}", math.nan) for m in metrics}
