"""Which segmentations should a person look at? Images in the order of their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, uncertainty_map
from trustsweep.trainables.metrics.overlap import dice, image_dice, macro, shares
from trustsweep.trainables.metrics.pixels import Pixels
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.sparsification import mean_risks
from trustsweep.trainables.uncertainty import image_score


@dataclass(frozen=True)
class Segmented:
    """How n images were segmented.

    Attributes:
        uncertainty: (n,) float64, the mean of the uncertainty map; larger is less certain.
        error: (n,) float64 in [0, 1], 1 − Dice of the image (`overlap.image_dice`); NaN where a
            probability is.
        dice: (n, C) float64 in [0, 1] of each foreground, 1 where it is neither true nor predicted;
            NaN where a probability is.
        lesion: (n, C) bool, whether there is a lesion, or something of each class or region.
    """

    uncertainty: np.ndarray
    error: np.ndarray
    dice: np.ndarray
    lesion: np.ndarray

    def __len__(self) -> int:
        return len(self.dice)

    def select(self, kept: np.ndarray) -> Segmented:
        """The images where `kept` (n,) is true."""
        return Segmented(
            self.uncertainty[kept], self.error[kept], self.dice[kept], self.lesion[kept]
        )

    def quality(self) -> dict[str, float]:
        """1 − the mean error ("dice"), and "dice_lesion" as `Overlap` has it; NaN without such an
        image."""
        lesion = self.lesion.sum(axis=0)
        there = shares(np.where(self.lesion, self.dice, 0).sum(axis=0), lesion)
        return {
            "dice": float(1 - self.error.mean()) if len(self) else math.nan,
            "dice_lesion": macro(there, lesion > 0),
        }


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
        pixels = Pixels.of(prediction, batch)
        doubt = image_score("mean", uncertainty_map(prediction, self.uncertainty))
        lesion = pixels.truth.any(dim=2)
        self.add(batch.sample_id, [doubt, 1 - image_dice(pixels), dice(pixels), lesion])

    @property
    def answers(self) -> Segmented:
        """The images themselves, in the order of `rows`."""
        rows = self.rows if len(self.rows) else np.zeros((0, 4))
        end = (rows.shape[1] + 2) // 2
        return Segmented(rows[:, 0], rows[:, 1], rows[:, 2:end], rows[:, end:] > 0)

    def compute(self) -> dict[str, float]:
        answers = self.answers
        if not len(answers) or np.isnan(answers.error).any():
            return dict.fromkeys(self.names, math.nan)
        area, best = mean_risks(
            torch.from_numpy(answers.error).unsqueeze(0),
            torch.from_numpy(answers.uncertainty.copy()).unsqueeze(0),
        )
        return {"aurc": float(area), "e_aurc": float((area - best).clamp(min=0))}
