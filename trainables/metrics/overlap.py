"""Dice and intersection over union, per image and pooled."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.base import SumState, foreground, label, ratio


def image_counts(p: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each image in both, in the prediction and in the lesion: three of (B,) float64.

    The first is NaN for an image with a NaN probability (B, n).
    """
    predicted = label(p).to(torch.float64)
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
    """Per image, then the mean; and over all pixels pooled, with the same rule for empty masks."""

    names = ("dice", "iou", "dice_micro", "iou_micro")
    fields: ClassVar[dict[str, tuple[int, ...]]] = {
        "images": (), "dice": (), "iou": (), "both": (), "predicted": (), "lesion": (),
    }  # fmt: skip

    def update(self, prediction: Prediction, batch: Batch) -> None:
        both, predicted, lesion = image_counts(*foreground(prediction, batch))
        self.add(
            images=len(both),
            dice=_share(2 * both, predicted + lesion).sum(),
            iou=_share(both, predicted + lesion - both).sum(),
            both=both.sum(),
            predicted=predicted.sum(),
            lesion=lesion.sum(),
        )

    def compute(self) -> dict[str, float]:
        images, both = self.sums["images"], self.sums["both"]
        pooled = self.sums["predicted"] + self.sums["lesion"]
        empty = images > 0 and pooled == 0 and both == 0
        return {
            "dice": ratio(self.sums["dice"], images),
            "iou": ratio(self.sums["iou"], images),
            "dice_micro": 1.0 if empty else ratio(2 * both, pooled),
            "iou_micro": 1.0 if empty else ratio(both, pooled - both),
        }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where((whole == 0) & (part == 0), 1.0, part / whole)
