"""Does a model's uncertainty notice the attack that changes its prediction?"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import classes, uncertainty_map
from trustsweep.trainables.metrics.overlap import image_dice
from trustsweep.trainables.metrics.pixels import Pixels
from trustsweep.trainables.metrics.ranking import auroc
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.uncertainty import image_score


class Shift(SampleState):
    """Each image attacked, beside itself before the attack. The image score is the map's mean.

    - spearman: rank correlation over images of U_attacked − U_clean and Dice_attacked − Dice_clean;
      0 where either is the same for all images, NaN for fewer than two.
    - auroc: probability that an attacked image is more uncertain than a clean one, ties half.

    Exact up to 65,536 images, above that of a fixed sample of so many (see `SampleState`).
    """

    names = ("spearman", "auroc")

    def update(self, clean: Prediction, attacked: Prediction, batch: Batch) -> None:
        """Take in what was predicted for a batch before and after the attack."""
        maps = [uncertainty_map(p, self.uncertainty) for p in (clean, attacked)]
        doubts = [image_score("mean", values) for values in maps]
        self.add(batch.sample_id, [*doubts, *(self._merit(p, batch) for p in (clean, attacked))])

    def compute(self) -> dict[str, float]:
        if not len(self.rows):
            return dict.fromkeys(self.names, math.nan)
        doubt_before, doubt_after, merit_before, merit_after = self.rows.T
        return {
            "spearman": spearman(doubt_after - doubt_before, merit_after - merit_before),
            "auroc": auroc(doubt_before, doubt_after),
        }

    def _merit(self, prediction: Prediction, batch: Batch) -> Tensor:
        """(B,): how right the prediction is for each image."""
        return image_dice(Pixels.of(prediction, batch))


class ClassShift(Shift):
    """The same for classified images, with the probability of the true class in place of Dice."""

    def _merit(self, prediction: Prediction, batch: Batch) -> Tensor:
        p, truth = classes(prediction, batch)
        return p.gather(1, truth.unsqueeze(1)).squeeze(1)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of (n,) each; 0 where either is constant, NaN for n < 2 or with a NaN."""
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return math.nan
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)
