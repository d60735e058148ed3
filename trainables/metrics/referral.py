"""Which segmentations should a person look at? Images in the order of their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, foreground, uncertainty_map
from trustsweep.trainables.metrics.overlap import dice
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.sparsification import mean_risks
from trustsweep.trainables.uncertainty import image_score


@dataclass(frozen=True)
class Segmented:
    """How n images were segmented.

    Attributes:
        uncertainty: (n,) float64, the mean of the uncertainty map; larger is less certain.
        dice: (n,) float64 in [0, 1], 1 where neither lesion nor prediction is; NaN where a
            probability is.
        lesion: (n,) bool, whether there is a lesion.
    """

    uncertainty: np.ndarray
    dice: np.ndarray
    lesion: np.ndarray

    def __len__(self) -> int:
        return len(self.dice)

    @property
    def error(self) -> np.ndarray:
        """(n,) float64: 1 − Dice."""
        return 1 - self.dice

    def select(self, kept: np.ndarray) -> Segmented:
        """The images where `kept` (n,) is true."""
        return Segmented(self.uncertainty[kept], self.dice[kept], self.lesion[kept])

    def quality(self) -> dict[str, float]:
        """Mean Dice of all images ("dice") and of those with a lesion ("dice_lesion"); NaN without
        such an image."""
        means = {"dice": self.dice, "dice_lesion": self.dice[self.lesion]}
        return {name: float(v.mean()) if len(v) else math.nan for name, v in means.items()}


class Referral(SampleState, MetricState):
    """The area under the risk-coverage curve of images, with 1 − Dice as the risk.

    An image's uncertainty is the mean of its map, so that large uncertain areas count. Exact up to
    65,536 images, above that of a fixed sample of so many (see `SampleState`).

    - aurc: mean over i = 1..n of the mean of 1 − Dice over the i least uncertain images (Geifman &
      El-Yaniv 2017, arXiv:1705.08500), images of equal uncertainty as in random order.
    - e_aurc: aurc less that of the best order, the worst segmentations last.
    """

    names = ("aurc", "e_aurc")

    def update(self, prediction: Prediction, batch: Batch) -> None:
        p, truth = foreground(prediction, batch)
        doubt = image_score("mean", uncertainty_map(prediction, self.uncertainty))
        self.add(batch.sample_id, [doubt, dice(p, truth), truth.sum(dim=1) > 0])

    @property
    def answers(self) -> Segmented:
        """The images themselves, in the order of `rows`."""
        rows = self.rows if len(self.rows) else np.zeros((0, 3))
        return Segmented(rows[:, 0], rows[:, 1], rows[:, 2] > 0)

    def compute(self) -> dict[str, float]:
        answers = self.answers
        if not len(answers) or np.isnan(answers.dice).any():
            return dict.fromkeys(self.names, math.nan)
        area, best = mean_risks(
            torch.from_numpy(answers.error).unsqueeze(0),
            torch.from_numpy(answers.uncertainty.copy()).unsqueeze(0),
        )
        return {"aurc": float(area), "e_aurc": float((area - best).clamp(min=0))}
