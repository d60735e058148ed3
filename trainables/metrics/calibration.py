"""Calibration of the predicted label's confidence: of pixels, near the lesion, of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.schema import Batch
from trainables.contract import Prediction
from trainables.metrics.base import SumState, classes, foreground, label, ratio
from trainables.metrics.catalog import CALIBRATION_BINS

#: The region reaches one pixel per this many pixels of the shorter side beyond the outlines.
_SIDE_PER_RADIUS = 32


class Calibration(SumState):
    """ECE = Σ n_b/n |accuracy_b − confidence_b| and MCE = max_b of the same difference.

    Bins are the 15 equal parts ((b−1)/15, b/15] of top-label confidence max(p, 1 − p), the pixels
    of all images pooled (Guo et al. 2017, arXiv:1706.04599). For two classes the lower seven stay
    empty.
    """

    names = ("ece", "mce")
    fields: ClassVar[dict[str, tuple[int, ...]]] = {
        "count": (CALIBRATION_BINS,),
        "confidence": (CALIBRATION_BINS,),
        "correct": (CALIBRATION_BINS,),
    }

    def update(self, prediction: Prediction, batch: Batch) -> None:
        confidence, correct = self._judged(prediction, batch)
        bins = bin_of(confidence)
        self.add(
            count=_histogram(bins, torch.ones_like(confidence)),
            confidence=_histogram(bins, confidence),
            correct=_histogram(bins, correct),
        )

    def compute(self) -> dict[str, float]:
        count = self.sums["count"]
        gap = np.abs(self.sums["correct"] - self.sums["confidence"])
        filled = count > 0
        worst = (gap[filled] / count[filled]).max() if filled.any() else np.nan
        return dict(zip(self.names, (ratio(gap.sum(), count.sum()), float(worst)), strict=True))

    def curve(self) -> dict[str, list[float | None]]:
        """The reliability diagram, ready for JSON.

        Returns:
            "confidence" and "accuracy", the mean of each bin (None where it is empty), and
            "count", its pixels or images; 15 entries each, lowest confidence first.
        """
        count = self.sums["count"]

        def mean(total: np.ndarray) -> list[float | None]:
            return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]

        return {
            "confidence": mean(self.sums["confidence"]),
            "accuracy": mean(self.sums["correct"]),
            "count": [float(n) for n in count],
        }

    def _judged(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
        """Top-label confidence and whether that label is right (0 or 1), (n,) float64 each."""
        p, truth = self._pixels(prediction, batch)
        return torch.maximum(p, 1 - p), (label(p) == (truth > 0.5)).to(torch.float64)

    def _pixels(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
        """Probability and truth of the pixels to judge, flat."""
        p, truth = foreground(prediction, batch)
        return p.flatten(), truth.flatten()


class RegionCalibration(Calibration):
    """The same over lesion ∪ prediction and what lies around them; far background hides errors.

    The union is dilated by a box whose radius is 1/32 of the shorter side (2 pixels of 64, at
    least 1). Images without lesion and prediction have no such pixels; NaN if no image has any.
    """

    names = ("ece_region", "mce_region")

    def _pixels(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
        p, truth = foreground(prediction, batch)
        region = region_of(p, truth, prediction.probability.shape[2:])
        return p[region], truth[region]


class ClassCalibration(Calibration):
    """The same of images: the confidence is the probability of the most probable class."""

    def _judged(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
        p, truth = classes(prediction, batch)
        return p.amax(dim=1), (p.argmax(dim=1) == truth).to(torch.float64)


def bin_of(confidence: Tensor) -> Tensor:
    """The bin, 0 to 14, of each confidence; of any shape.

    A NaN may fall into any bin: it makes that bin's confidence, and with it the error, NaN.
    """
    # ⌈15c⌉ is (b−1)/15 < c ≤ b/15, a tenth of the cost of a search.
    part = (confidence * CALIBRATION_BINS).ceil().nan_to_num(1).clamp(1, CALIBRATION_BINS)
    return part.long() - 1


def region_of(p: Tensor, truth: Tensor, spatial: Sequence[int]) -> Tensor:
    """(B, n) bool: the pixels that `RegionCalibration` judges, of probability and truth (B, n)."""
    union = label(p) | (truth > 0.5) | p.isnan()
    radius = max(1, round(min(spatial) / _SIDE_PER_RADIUS))
    return dilate(union.reshape(len(p), *spatial), radius).reshape(p.shape)


def image_gaps(p: Tensor, truth: Tensor, region: Tensor | None = None) -> Tensor:
    """Σ (correct − confidence) of each image's pixels in each bin: what an ECE is made of.

    Args:
        p, truth: (B, n) of the foreground.
        region: (B, n) bool, the pixels that count; all if None.

    Returns:
        (B, 15) float64. With N pixels, ECE = Σ_b |Σ_images gap_b| / N.
    """
    confidence = torch.maximum(p, 1 - p)
    gap = (label(p) == (truth > 0.5)).to(torch.float64) - confidence
    if region is not None:
        gap = torch.where(region, gap, 0)
    gaps = p.new_zeros(len(p), CALIBRATION_BINS, dtype=torch.float64)
    return gaps.scatter_add_(1, bin_of(confidence), gap)


def dilate(region: Tensor, radius: int) -> Tensor:
    """Every pixel within `radius` (Chebyshev) of a true one: (B, *spatial) bool to the same."""
    dims = region.ndim - 1
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
    grown = region.unsqueeze(1).to(torch.float32)
    # A box is the same as one line per axis, at a fraction of the cost.
    for axis in range(dims):
        kernel = [2 * radius + 1 if i == axis else 1 for i in range(dims)]
        padding = [radius if i == axis else 0 for i in range(dims)]
        grown = pool(grown, kernel, stride=1, padding=padding)
    return grown.squeeze(1) > 0


def _histogram(bins: Tensor, weights: Tensor) -> Tensor:
    total = torch.zeros(CALIBRATION_BINS, dtype=weights.dtype, device=weights.device)
    return total.index_add_(0, bins, weights)
