"""What each sample scored under each condition: what intervals, groups and single cases need."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch, Task
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import classes, foreground, uncertainty_map
from trustsweep.trainables.metrics.calibration import image_gaps, region_of
from trustsweep.trainables.metrics.overlap import dice, image_counts
from trustsweep.trainables.metrics.sparsification import ause
from trustsweep.trainables.uncertainty import image_score


class SampleScores:
    """A row of numbers for each sample and condition, gathered beside an `Evaluation`'s states.

    Unlike these it keeps every sample, so its memory grows with the split: it is for models that
    are judged, not for a search. Every condition has the same samples in the same order.

    Args:
        task: Fixes the columns.
        uncertainty: The map that is kept; None for the method's first.

    Segmentation has, by image, `dice`, `lesion_pixels` and `predicted_pixels`, `pixels`,
    `uncertainty` (the map's mean), `brier` (mean of its pixels), `ause` (see `Sparsification`),
    `gap` (15: Σ (correct − confidence) of the pixels of each bin of confidence), and
    `region_pixels` and `region_gap` (15), the same of the pixels that `RegionCalibration` judges.
    Classification has `truth`, `predicted`, `probability_of_truth`,
    `correct` (0 or 1), `uncertainty` and `probability` (K >= 2). What is no number is NaN, and
    -1 as a predicted class.
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
        found = (
            _pixel_scores(prediction, batch, doubt)
            if self.task is Task.SEGMENTATION
            else _class_scores(prediction, batch)
        )
        columns = {**found, "uncertainty": image_score("mean", doubt)}
        if not self._columns or condition == next(iter(self._columns)):
            for name, values in batch.groups.items():
                self._groups[name] += values
        self._columns[condition].append({k: v.cpu().numpy() for k, v in columns.items()})
        self._ids[condition] += batch.sample_id

    @property
    def conditions(self) -> list[str]:
        """Those that were seen, in order."""
        return list(self._columns)

    @property
    def sample_ids(self) -> list[str]:
        """n of them, in the order of the columns. Raises ValueError if conditions differ."""
        every = list(self._ids.values())
        if any(ids != every[0] for ids in every):
            raise ValueError("conditions of different samples")
        return every[0] if every else []

    @property
    def groups(self) -> dict[str, list[Any]]:
        """Group columns, n values each, None where unknown."""
        return dict(self._groups)

    def columns(self, condition: str) -> dict[str, np.ndarray]:
        """Name to (n,) or (n, k)."""
        parts = self._columns[condition]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pixel_scores(prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
    p, truth = foreground(prediction, batch)
    miss = (truth - p).abs()
    _, predicted, lesion = image_counts(p, truth)
    region = region_of(p, truth, prediction.probability.shape[2:])
    return {
        "dice": dice(p, truth),
        "lesion_pixels": lesion,
        "predicted_pixels": predicted,
        "pixels": torch.full_like(lesion, p.shape[1]),
        "brier": miss.square().mean(dim=1),
        "ause": ause(miss, doubt.flatten(1)),
        "gap": image_gaps(p, truth),
        "region_pixels": region.sum(dim=1).to(torch.float64),
        "region_gap": image_gaps(p, truth, region),
    }


def _class_scores(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    p, truth = classes(prediction, batch)
    known = ~p.isnan().any(dim=1)
    predicted = torch.where(known, p.argmax(dim=1), -1)
    correct = (predicted == truth).to(torch.float64)
    return {
        "truth": truth,
        "predicted": predicted,
        "probability_of_truth": p.gather(1, truth.unsqueeze(1)).squeeze(1),
        "correct": torch.where(known, correct, torch.nan),
        "probability": p,
    }
