"""Metrics of trivial predictors, which ignore the image, on each split; once per sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trustsweep.data_pipelines.building.shards import read_column
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.machine import write_atomically
from trustsweep.data_pipelines.schema import Manifest, Split, TaskName
from trustsweep.data_pipelines.storage import Folder
from trustsweep.trainables.metrics.skill import TrivialMetrics

if TYPE_CHECKING:
    from trustsweep.trainables.metrics.prior import Prior

#: In the run folder: split to predictor to metric to value, null where it does not exist.
TRIVIAL_NAME = "trivial.json"
#: Trials that a sentence names.
_NAMED = 10


@dataclass(frozen=True)
class TrivialPredictors:
    """The prior learnt from the train split, and the metrics on each other split."""

    prior: Prior
    figures: Mapping[str, TrivialMetrics]


def read_trivial(data: Folder, manifest: Manifest, task: TaskName) -> TrivialPredictors:
    """Read the ground truth of every split once. Raises `UserError` for damaged files."""
    from trustsweep.trainables.metrics.trivial import TRIVIAL

    predictors = TRIVIAL[task]

    def truths(split: Split) -> Iterator[np.ndarray]:
        columns = (read_column(data, split, name) for name in predictors.columns)
        return (predictors.stored_truth(groups, manifest) for groups in zip(*columns, strict=True))

    prior = predictors.learn(truths(Split.TRAIN), len(predictors.names(manifest)))
    figures: dict[str, TrivialMetrics] = {}
    for split in (Split.VAL, Split.TEST, Split.OOD):
        if manifest.split_counts.get(split):
            state = predictors(prior)
            for truth in truths(split):
                state.add(truth)
            figures[split] = state.metrics()
    return TrivialPredictors(prior, figures)


def save_figures(run: Path, figures: Mapping[str, TrivialMetrics]) -> None:
    """Write them into a run folder."""
    known = {
        split: {
            name: {m: None if math.isnan(v) else v for m, v in row.items()}
            for name, row in rows.items()
        }
        for split, rows in figures.items()
    }
    write_atomically(run / TRIVIAL_NAME, json.dumps(known, indent=2))


def load_figures(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Those of a run folder; empty for a run that has none (an earlier version's).

    Raises `UserError` for a broken file.
    """
    path = run / TRIVIAL_NAME
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Is the file complete?") from error
    return {
        split: {
            name: {m: math.nan if v is None else v for m, v in row.items()}
            for name, row in rows.items()
        }
        for split, rows in raw.items()
    }


def trivial_lines(remarks: Mapping[str, str], completed: int) -> list[str]:
    """Sentences on the models that are no better than a trivial predictor.

    Args:
        remarks: Trial to why it is trivial.
        completed: Trials among which they are.
    """
    trials_by_remark: dict[str, list[str]] = {}
    for trial, remark in remarks.items():
        trials_by_remark.setdefault(remark, []).append(trial)
    lines = []
    for remark, trials in trials_by_remark.items():
        more = f" and {len(trials) - _NAMED} more" if len(trials) > _NAMED else ""
        named = ", ".join(trials[:_NAMED])
        lines.append(f"{len(trials)} of {completed} completed trials: {remark} ({named}{more}).")
    return lines
