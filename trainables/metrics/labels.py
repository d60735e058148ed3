"""Metrics of several labels, each on its own; unknown labels are left out.

Means over labels are over those of which anything is known (macro).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, findings, uncertainty_map
from trustsweep.trainables.metrics.calibration import CalibrationBins
from trustsweep.trainables.metrics.resampled import MULTILABEL
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.metrics.sparsification import mean_risks


@dataclass(frozen=True)
class Labelled:
    """The predictions of a model for n images, and the ground truth.

    Attributes:
        truth: (n, K) float64: 0, 1, or NaN where it is not known.
        uncertainty: (n,) float64, any order-preserving scale; larger is less certain.
        probability: (n, K) float64 of each label; NaN where it is no number.
    """

    truth: np.ndarray
    uncertainty: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def error(self) -> np.ndarray:
        """(n,) float64: the share of the known labels that are wrong; NaN for NaN probabilities."""
        known = ~np.isnan(self.truth)
        wrong = ((self.probability > 0.5) != (self.truth > 0.5)) & known
        share = wrong.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.where(np.isnan(self.probability).any(axis=1), math.nan, share)

    def select(self, kept: np.ndarray) -> Labelled:
        """The images where `kept` (n,) is true."""
        return Labelled(self.truth[kept], self.uncertainty[kept], self.probability[kept])

    def quality(self) -> dict[str, float]:
        """Accuracy and AUROC (see `LabelMetrics`); NaN without an image."""
        return _whole(self, ("accuracy", "auroc"))


class LabelMetrics(SampleState, MetricState):
    """Exact up to 65,536 images, above that of a fixed sample of so many (see `SampleState`).

    - accuracy: the share of the known labels that are right, at a probability of ½.
    - auroc: mean over the labels that some images have and some have not.
    - average_precision: Σ (R_i − R_{i−1}) P_i over the distinct probabilities, mean over the labels
      that some image has.
    - nll, brier: −ln of what was given to the truth, and (p − y)², mean over images, then labels.
    - aurc: mean over i = 1..n of the share of wrong labels among the i least uncertain images
      (Geifman & El-Yaniv 2017, arXiv:1705.08500).
    - e_aurc: aurc less that of the best order.
    """

    names = ("accuracy", "auroc", "average_precision", "nll", "brier", "aurc", "e_aurc")

    def update(self, prediction: Prediction, batch: Batch) -> None:
        prediction, batch = _labelled(prediction, batch)
        p, truth = findings(prediction, batch)
        self.add(batch.sample_id, [uncertainty_map(prediction, self.uncertainty), truth, p])

    @property
    def answers(self) -> Labelled:
        """The images themselves, in the order of `rows`."""
        rows = self.rows if len(self.rows) else np.zeros((0, 3))
        labels = (rows.shape[1] - 1) // 2
        return Labelled(rows[:, 1 : 1 + labels], rows[:, 0], rows[:, 1 + labels :])

    def compute(self) -> dict[str, float]:
        answers = self.answers
        error = answers.error
        if not len(answers) or np.isnan(error).any():
            return dict.fromkeys(self.names, math.nan)
        area, best = mean_risks(
            torch.from_numpy(error).unsqueeze(0),
            torch.from_numpy(answers.uncertainty).unsqueeze(0),
        )
        return {
            **_whole(answers, ("accuracy", "auroc", "average_precision", "nll", "brier")),
            "aurc": float(area),
            "e_aurc": float((area - best).clamp(min=0)),
        }


class LabelCalibration(CalibrationBins):
    """The confidence max(p, 1 − p) in each known label, those of all images pooled.

    Labels of an image are not independent, so images are the units of the floor, as of pixels.
    """

    def _confidences(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        p, truth = findings(prediction, batch)
        rows = torch.arange(len(p), device=p.device).repeat_interleave(p.shape[1])
        known = ~truth.flatten().isnan()
        p, truth = p.flatten()[known], truth.flatten()[known]
        right = ((p > 0.5) == (truth > 0.5)).to(torch.float64)
        return torch.maximum(p, 1 - p), right, rows[known]


class LabelShift(Shift):
    """The mean probability of the truth of an image's known labels, in place of Dice."""

    def update(self, clean: Prediction, attacked: Prediction, batch: Batch) -> None:
        before, labelled = _labelled(clean, batch)
        super().update(before, _labelled(attacked, batch)[0], labelled)

    def _merit(self, prediction: Prediction, batch: Batch) -> Tensor:
        p, truth = findings(prediction, batch)
        known = ~truth.isnan()
        given = torch.where(truth > 0.5, p, 1 - p).masked_fill(~known, 0)
        return given.sum(dim=1) / known.sum(dim=1).clamp(min=1)


def _labelled(prediction: Prediction, batch: Batch) -> tuple[Prediction, Batch]:
    """Without the images of which no label is known, which would count as images without error."""
    truth = findings(prediction, batch)[1]
    rows = (~truth.isnan()).any(dim=1).nonzero().flatten().tolist()
    return prediction.select(rows), batch.select(rows)


def _whole(answers: Labelled, names: tuple[str, ...]) -> dict[str, float]:
    """Statistics of all images alike."""
    if not len(answers) or np.isnan(answers.probability).any():
        return dict.fromkeys(names, math.nan)
    columns = {"truth": answers.truth, "probability": answers.probability}
    once = np.ones((1, len(answers)))
    return {name: float(MULTILABEL[name](columns)(once)[0]) for name in names}
