"""Metrics of the order of images: by probability, by uncertainty, by confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, classes, uncertainty_map
from trustsweep.trainables.metrics.catalog import CALIBRATION_BINS
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.sparsification import mean_risks


@dataclass(frozen=True)
class Answers:
    """The predictions of a model for n images, and the ground truth.

    Attributes:
        truth: (n,) int, the class.
        uncertainty: (n,) float64, any order-preserving scale; larger is less certain.
        probability: (n, K >= 2) float64, NaN where it is no number.
    """

    truth: np.ndarray
    uncertainty: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def error(self) -> np.ndarray:
        """(n,) float64: 1 where the most probable class is wrong, NaN where there is none."""
        wrong = (self.probability.argmax(axis=1) != self.truth).astype(np.float64)
        wrong[np.isnan(self.probability).any(axis=1)] = math.nan
        return wrong

    def select(self, kept: np.ndarray) -> Answers:
        """The images where `kept` (n,) is true."""
        return Answers(self.truth[kept], self.uncertainty[kept], self.probability[kept])

    def quality(self) -> dict[str, float]:
        """Quality of the predictions, each in [0, 1].

        - accuracy: share of images with the right class.
        - precision: share of the images predicted as a class that are of it, mean over the
          predicted classes (macro).
        - auroc: see `Ranking`; NaN where fewer than two classes occur.

        All are NaN without an image, or with a probability that is NaN.
        """
        p, truth = self.probability, self.truth
        if not len(self) or np.isnan(p).any():
            return dict.fromkeys(("accuracy", "precision", "auroc"), math.nan)
        predicted = p.argmax(axis=1)
        right = predicted == truth
        return {
            "accuracy": float(right.mean()),
            "precision": float(
                np.mean([right[predicted == k].mean() for k in np.unique(predicted)])
            ),
            "auroc": macro_auroc(p, truth),
        }


class Ranking(SampleState, MetricState):
    """Exact up to 65,536 images, above that of a fixed sample of so many (see `SampleState`).

    The AUROC of a sample then has a standard error of at most ½/√m, m the images kept of a class
    or of the rest, whichever are fewer (Birnbaum & Klose 1957, Ann. Math. Statist. 28).

    - auroc: of the second of two classes; of more, each class against the rest, mean over the
      classes that occur (macro). NaN where fewer than two occur.
    - ece_adaptive: ECE with 15 bins of equally many images, in order of top-label confidence
      (Nixon et al. 2019, arXiv:1904.01685); images of equal confidence share their accuracy, so
      that it does not matter which of them a bin's edge parts.
    - aurc: mean over i = 1..n of the error rate among the i least uncertain images (Geifman &
      El-Yaniv 2017, arXiv:1705.08500), images of equal uncertainty as in random order.
    - e_aurc: aurc less that of the best order, wrong images last (Geifman et al. 2019,
      arXiv:1805.08206).
    """

    names = ("auroc", "ece_adaptive", "aurc", "e_aurc")

    def update(self, prediction: Prediction, batch: Batch) -> None:
        p, truth = classes(prediction, batch)
        self.add(batch.sample_id, [truth, uncertainty_map(prediction, self.uncertainty), p])

    @property
    def answers(self) -> Answers:
        """The images themselves, in the order of `rows`."""
        # Before the first image it is not known how many classes there are.
        rows = self.rows if len(self.rows) else np.zeros((0, 4))
        return Answers(rows[:, 0].astype(int), rows[:, 1], rows[:, 2:])

    def compute(self) -> dict[str, float]:
        answers = self.answers
        p, error = answers.probability, answers.error
        if not len(answers) or np.isnan(error).any():
            return dict.fromkeys(self.names, math.nan)
        area, best = mean_risks(
            torch.from_numpy(error).unsqueeze(0),
            torch.from_numpy(answers.uncertainty).unsqueeze(0),
        )
        return {
            "auroc": macro_auroc(p, answers.truth),
            "ece_adaptive": _adaptive_error(p.max(axis=1), 1 - error),
            "aurc": float(area),
            "e_aurc": float((area - best).clamp(min=0)),
        }


def auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive (m,) scores above a negative (n,), ties half.

    The Mann-Whitney form, which needs no curve. NaN without either, or with a NaN.
    """
    n, m = len(negative), len(positive)
    both = np.concatenate([negative, positive])
    if not n or not m or np.isnan(both).any():
        return math.nan
    ranks = stats.rankdata(both)[n:].sum()
    return float((ranks - m * (m + 1) / 2) / (n * m))


def macro_auroc(p: np.ndarray, truth: np.ndarray) -> float:
    """Of probabilities (n, K >= 2) for classes (n,), n > 0; see `Ranking` for the average."""
    # 1 − p of the first of two classes has ties that p, near 0, has not.
    members = [1] if p.shape[1] == 2 else np.unique(truth)
    values = [auroc(p[truth != k, k], p[truth == k, k]) for k in members]
    return float(np.mean(values))


def _adaptive_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Σ n_b/n |accuracy_b − confidence_b| over bins of n/15 images, give or take one."""
    _, ties = np.unique(confidence, return_inverse=True)
    shared = (np.bincount(ties, correct) / np.bincount(ties))[ties]
    gaps = (shared - confidence)[np.argsort(confidence)]
    bins = np.array_split(gaps, CALIBRATION_BINS)
    return float(sum(abs(part.sum()) for part in bins) / len(gaps))
