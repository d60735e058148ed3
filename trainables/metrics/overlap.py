"""Dice and intersection over union, per image and pooled; lesions and images without one apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.metrics.base import SumState, ratio

if TYPE_CHECKING:
    from torch import Tensor

    from trustsweep.trainables.contract import Prediction
    from trustsweep.trainables.metrics.pixels import Pixels

#: A tensor or an array.
_Numbers = TypeVar("_Numbers", "Tensor", np.ndarray)


def image_counts(pixels: Pixels) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each image that are of a foreground in both, in the prediction and in the truth:
    three of (B, C) float64.

    The first is NaN for a foreground with a NaN probability.
    """
    both = (pixels.predicted & pixels.truth).double().sum(dim=2)
    both = both.masked_fill(pixels.foreground.isnan().any(dim=2), math.nan)
    return both, pixels.predicted.double().sum(dim=2), pixels.truth.double().sum(dim=2)


def dice(pixels: Pixels) -> Tensor:
    """Dice = 2|A∩B| / (|A| + |B|) of each image and foreground, (B, C).

    An image with neither lesion nor prediction scores 1 (nothing was missed), with one of them 0,
    as MONAI's ``DiceMetric(ignore_empty=False)`` has it.
    """
    both, predicted, lesion = image_counts(pixels)
    return _share(2 * both, predicted + lesion)


def image_dice(pixels: Pixels) -> Tensor:
    """(B,): Dice of each image, the mean over the foregrounds that it has or is predicted to have;
    1 where there are none."""
    both, predicted, lesion = image_counts(pixels)
    size = predicted + lesion
    # NaN counts wherever it is.
    occurs = ((size > 0) | both.isnan()).double()
    none = (occurs.sum(dim=1, keepdim=True) == 0).double()
    weight = occurs + none
    return (_share(2 * both, size) * weight).sum(dim=1) / weight.sum(dim=1)


class Overlap(SumState):
    """Overlap per image, then the mean; and over all pixels pooled, with the same rule for empty
    masks. Of several classes (the background aside) or regions, all that follows is of each, then
    the mean over them (macro).

    An empty prediction scores 1 in every image without a lesion, so `dice` rewards it with their
    share. `dice_lesion` is the mean over the images with a lesion alone; in those without one,
    `false_alarms` is the share where something is predicted and `false_alarm_volume` the mean
    share of the pixels that is. NaN where there are no such images. `empty_share` is the share of
    all images in which nothing is predicted, of any class.

    A class that no image has counts for `false_alarms` and `false_alarm_volume` alone, and for
    `dice` and `iou` (pooled as well) if it is predicted somewhere: a class that is neither there
    nor predicted would be one that every model has right.
    """

    names = (
        "dice", "dice_lesion", "iou", "dice_micro", "iou_micro", "false_alarms",
        "false_alarm_volume", "empty_share",
    )  # fmt: skip
    #: All but the number of images, and of those in which nothing is predicted, become (C,).
    fields: ClassVar[dict[str, tuple[int, ...]]] = {
        "images": (), "dice": (), "iou": (), "both": (), "predicted": (), "lesion": (),
        "with_lesion": (), "dice_lesion": (), "alarms": (), "alarm_volume": (), "empty": (),
    }  # fmt: skip

    def update(self, prediction: Prediction, batch: Batch) -> None:
        from trustsweep.trainables.metrics.pixels import Pixels

        pixels = Pixels.of(prediction, batch)
        both, predicted, lesion = (c.cpu().numpy() for c in image_counts(pixels))
        self.count(both, predicted, lesion, pixels=pixels.truth.shape[2])

    def count(
        self, both: np.ndarray, predicted: np.ndarray, lesion: np.ndarray, *, pixels: int
    ) -> None:
        """Take in images of so many `pixels` by what `image_counts` gives of them, (B, C) each."""
        overlap = _share(2 * both, predicted + lesion)
        positive = (predicted > 0).astype(np.float64)
        there = (lesion > 0).astype(np.float64)
        # A NaN probability anywhere makes every figure NaN, also those of the other images.
        broken = 0 * both.sum(axis=0)
        self.add(
            images=len(both),
            dice=overlap.sum(axis=0),
            iou=_share(both, predicted + lesion - both).sum(axis=0),
            both=both.sum(axis=0),
            predicted=predicted.sum(axis=0),
            lesion=lesion.sum(axis=0),
            with_lesion=there.sum(axis=0),
            dice_lesion=(overlap * there).sum(axis=0),
            alarms=(positive * (1 - there)).sum(axis=0) + broken,
            alarm_volume=(predicted * (1 - there)).sum(axis=0) / pixels + broken,
            empty=(1 - positive.max(axis=1, initial=0)).sum() + broken.sum(),
        )

    def compute(self) -> dict[str, float]:
        sums = {name: np.atleast_1d(amount) for name, amount in self.sums.items()}
        images, both, there = sums["images"], sums["both"], sums["with_lesion"]
        pooled = sums["predicted"] + sums["lesion"]
        occurs = (pooled > 0) | np.isnan(both)
        some = occurs if occurs.any() else ~occurs & (images > 0)
        clear = images - there
        micro = {"dice_micro": (2 * both, pooled), "iou_micro": (both, pooled - both)}
        return {
            "dice": macro(shares(sums["dice"], images), some),
            "dice_lesion": macro(shares(sums["dice_lesion"], there), there > 0),
            "iou": macro(shares(sums["iou"], images), some),
            **{name: macro(_share(part, whole), some) for name, (part, whole) in micro.items()},
            "false_alarms": macro(shares(sums["alarms"], clear), clear > 0),
            "false_alarm_volume": macro(shares(sums["alarm_volume"], clear), clear > 0),
            "empty_share": ratio(sums["empty"][0], images[0]),
        }


def shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole elementwise, NaN for a whole of 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, math.nan), where=whole != 0)


def macro(values: np.ndarray, counted: np.ndarray) -> float:
    """The mean of the values (C,) that count; NaN for none."""
    return float(values[counted].mean()) if counted.any() else math.nan


def _share(part: _Numbers, whole: _Numbers) -> _Numbers:
    """part / whole, 1 where both are 0."""
    neither = (whole == 0) & (part == 0)
    return (part + neither) / (whole + neither)
