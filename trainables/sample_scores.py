"""What each sample scored under each condition: what intervals, groups and single cases need."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import uncertainty_map
from trustsweep.trainables.tasks import Task
from trustsweep.trainables.uncertainty import image_score


class SampleScores:
    """A row of numbers for each sample and condition, gathered beside an `Evaluation`'s states.

    Unlike these it keeps every sample, so its memory grows with the split: it is for models that
    are evaluated, not for a search. Every condition has the same samples in the same order.

    Args:
        task: Fixes the columns.
        uncertainty: The map that is kept; None for the method's first.

    Beside the columns of the task (`Task.columns`) there is `uncertainty`, the mean of the map.
    """

    def __init__(self, task: Task, uncertainty: str | None = None) -> None:
        self.task = task
        self._uncertainty = uncertainty
        self._ids: dict[str, list[str]] = defaultdict(list)
        self._columns: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        self._groups: dict[str, list[Any]] = defaultdict(list)

    def update(self, condition: str, prediction: Prediction, batch: Batch) -> None:
        """Take in what was predicted for a batch under a condition.

        Raises ValueError for a batch without the truth that the task needs.
        """
        doubt = uncertainty_map(prediction, self._uncertainty)
        columns = {
            **self.task.columns(prediction, batch, doubt),
            "uncertainty": image_score("mean", doubt),
        }
        if not self._columns or condition == next(iter(self._columns)):
            for name, values in batch.groups.items():
                self._groups[name] += values
        self._columns[condition].append({k: v.cpu().numpy() for k, v in columns.items()})
        self._ids[condition] += batch.sample_id

    @property
    def conditions(self) -> list[str]:
        """The conditions gathered so far, in order."""
        return list(self._columns)

    @property
    def sample_ids(self) -> list[str]:
        """n of them, in the order of the columns. Raises ValueError if conditions differ."""
        of_conditions = list(self._ids.values())
        if any(ids != of_conditions[0] for ids in of_conditions):
            raise ValueError("conditions of different samples")
        return of_conditions[0] if of_conditions else []

    @property
    def groups(self) -> dict[str, list[Any]]:
        """Group columns, n values each, None where unknown."""
        return dict(self._groups)

    def columns(self, condition: str) -> dict[str, np.ndarray]:
        """Name to (n,) or (n, k)."""
        parts = self._columns[condition]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
