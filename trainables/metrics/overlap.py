"""Dice and intersection over union, per image and pooled; lesions and images without one apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.metrics.base import SumState, foreground, label, ratio

if TYPE_CHECKING:
    from torch import Tensor

    from trustsweep.trainables.contract import Prediction

#: A tensor or an array.
_Numbers = TypeVar("_Numbers", "Tensor", np.ndarray)


def image_counts(p: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each image in both, in the prediction and in the lesion: three of (B,) float64.

    The first is NaN for an image with a NaN probability (B, n).
    """
    predicted = label(p).double()
    both = (predicted * truth).sum(dim=1).masked_fill(p.isnan().any(dim=1), math.nan)
    return both, predicted.sum(dim=1), truth.sum(dim=1)


def dice(p: Tensor, truth: Tensor) -> Tensor:
    """Dice = 2|A∩B| / (|A| + |B|) of each image (B,) from probability and truth (B, n).

    An image with neither lesion nor prediction scores 1 (nothing was missed), with one of them 0,
    as MONAI's ``DiceMetric(ignore_empty=False)`` has it.
    """
    both, predicted, lesion = image_counts(p, truth)
    return _share(2 * both, predicted + lesion)


class Overlap(SumState):
    """Overlap per image, then the mean; and over all pixels pooled, with the same rule for empty
    masks.

    An empty prediction scores 1 in every image without a lesion, so `dice` rewards it with their
    share. `dice_lesion` is the mean over the images with a lesion alone; in those without one,
    `false_alarms` is the share where something is predicted and `false_alarm_volume` the mean
    share of the pixels that is. NaN where there are no such images. `empty_share` is the share of
    all images in which nothing is predicted.
    """

    names = (
        "dice", "dice_lesion", "iou", "dice_micro", "iou_micro", "false_alarms",
        "false_alarm_volume", "empty_share",
    )  # fmt: skip
    fields: ClassVar[dict[str, tuple[int, ...]]] = {
        "images": (), "dice": (), "iou": (), "both": (), "predicted": (), "lesion": (),
        "with_lesion": (), "dice_lesion": (), "alarms": (), "alarm_volume": (), "empty": (),
    }  # fmt: skip

    def update(self, prediction: Prediction, batch: Batch) -> None:
        p, truth = foreground(prediction, batch)
        both, predicted, lesion = (c.cpu().numpy() for c in image_counts(p, truth))
        self.count(both, predicted, lesion, pixels=p.shape[1])

    def count(
        self, both: np.ndarray, predicted: np.ndarray, lesion: np.ndarray, *, pixels: int
    ) -> None:
        """Take in images of so many `pixels` by what `image_counts` gives of them."""
        overlap = _share(2 * both, predicted + lesion)
        positive = (predicted > 0).astype(np.float64)
        clear = lesion == 0
        # A NaN probability anywhere makes every figure NaN, also those of the other images.
        broken = 0 * both.sum()
        self.add(
            images=len(both),
            dice=overlap.sum(),
            iou=_share(both, predicted + lesion - both).sum(),
            both=both.sum(),
            predicted=predicted.sum(),
            lesion=lesion.sum(),
            with_lesion=(~clear).sum(),
            dice_lesion=overlap[~clear].sum() + broken,
            alarms=positive[clear].sum() + broken,
            alarm_volume=predicted[clear].sum() / pixels + broken,
            empty=(1 - positive).sum() + broken,
        )

    def compute(self) -> dict[str, float]:
        images, both = self.sums["images"], self.sums["both"]
        pooled = self.sums["predicted"] + self.sums["lesion"]
        empty = images > 0 and pooled == 0 and both == 0
        with_lesion = self.sums["with_lesion"]
        return {
            "dice": ratio(self.sums["dice"], images),
            "dice_lesion": ratio(self.sums["dice_lesion"], with_lesion),
            "iou": ratio(self.sums["iou"], images),
            "dice_micro": 1.0 if empty else ratio(2 * both, pooled),
            "iou_micro": 1.0 if empty else ratio(both, pooled - both),
            "false_alarms": ratio(self.sums["alarms"], images - with_lesion),
            "false_alarm_volume": ratio(self.sums["alarm_volume"], images - with_lesion),
            "empty_share": ratio(self.sums["empty"], images),
        }


def _share(part: _Numbers, whole: _Numbers) -> _Numbers:
    """part / whole, 1 where both are 0."""
    neither = (whole == 0) & (part == 0)
    return (part + neither) / (whole + neither)
