"""What share of the images gets the right class, overall and class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, StateDict, classes, ratio


class Confusion(MetricState):
    """Counts of images by true and predicted class, the most probable one (the first of equals).

    - accuracy: share of images with the right class.
    - balanced_accuracy: mean recall over the classes that occur.
    - f1: 2 hits / (true + predicted) of each class that occurs in truth or prediction, their mean
      (macro).
    - top_class_share: share of the images in the class that is predicted most; 1 for a model that
      predicts one class for every image.
    """

    names = ("accuracy", "balanced_accuracy", "f1", "top_class_share")

    def __init__(self, uncertainty: str | None = None) -> None:
        super().__init__(uncertainty)
        #: (K, K), true by predicted; (0, 0) before the first batch. NaN where a prediction was.
        self.counts = np.zeros((0, 0))

    def update(self, prediction: Prediction, batch: Batch) -> None:
        p, truth = classes(prediction, batch)
        size = p.shape[1]
        cells = (truth * size + p.argmax(dim=1)).cpu()
        ones = torch.ones(len(p), dtype=torch.float64)
        weights = ones.masked_fill(p.isnan().any(dim=1).cpu(), math.nan)
        self._add(torch.bincount(cells, weights, size * size).reshape(size, size).numpy())

    def merge(self, other: Self) -> None:
        self._add(other.counts)

    def compute(self) -> dict[str, float]:
        hits = self.counts.diagonal()
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        recalls = [ratio(h, n) for h, n in zip(hits, true, strict=True) if n != 0]
        f1_scores = [ratio(2 * h, n) for h, n in zip(hits, true + predicted, strict=True) if n != 0]
        return {
            "accuracy": ratio(hits.sum(), true.sum()),
            "balanced_accuracy": ratio(sum(recalls), len(recalls)),
            "f1": ratio(sum(f1_scores), len(f1_scores)),
            "top_class_share": ratio(predicted.max(initial=0.0), predicted.sum()),
        }

    def state_dict(self) -> StateDict:
        return {"counts": self.counts.copy()}

    def _load(self, state: Mapping[str, Any]) -> None:
        self.counts = np.array(state["counts"], dtype=np.float64)

    def _add(self, counts: np.ndarray) -> None:
        if counts.size:
            self.counts = self.counts + counts if self.counts.size else counts.copy()
