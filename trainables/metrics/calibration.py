"""Calibration of the predicted label's confidence: of pixels, near the lesion, of images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import SumState, classes, ratio
from trustsweep.trainables.metrics.catalog import CALIBRATION_BINS
from trustsweep.trainables.metrics.pixels import Pixels


class CalibrationBins(SumState):
    """ECE = Σ n_b/n |accuracy_b − confidence_b| and MCE = max_b of the same difference.

    Bins are the 15 equal parts ((b−1)/15, b/15] of top-label confidence, max(p, 1 − p) or that of
    the most probable class, the pixels of all images pooled (Guo et al. 2017, arXiv:1706.04599),
    of several regions each pixel once for each region. For two classes the lower seven stay empty.

    The ECE of few images is above 0 however good the calibration. Beside it stand its floor and
    its debiased form. The pixels of an image are not independent, so images are the units here:
    the total error of a bin, S_b = Σ (correct − confidence), is a sum of one term s_ib for each of
    the m_b images with a pixel in it, and its variance is estimated as V_b = m_b/(m_b − 1)
    Σ_i (s_ib − S_b/m_b)² (for m_b = 1, S_b²: one image cannot tell noise from error).

    - floor: Σ_b E|N(0, V_b)| / n = Σ_b √(2 V_b/π) / n, what noise alone would give.
    - debiased: Σ_b (2|S_b| − E|N(S_b, V_b)|) / n, kept at 0 or above: the ECE less the bias that
      drawing the labels once more adds to it, which the mean of a folded normal gives. This is the
      estimate of Kumar, Liang & Ma (2019, arXiv:1909.10155) for the absolute error in closed form
      instead of by resampling. Of a perfectly calibrated model it is 0.6 of the floor on average,
      and nears the truth as miscalibration outgrows the noise.
    """

    names = ("ece", "mce", "ece_floor", "ece_debiased")
    fields: ClassVar[dict[str, tuple[int, ...]]] = {
        "count": (CALIBRATION_BINS,),
        "confidence": (CALIBRATION_BINS,),
        "correct": (CALIBRATION_BINS,),
        "images": (CALIBRATION_BINS,),
        "squares": (CALIBRATION_BINS,),
    }

    def update(self, prediction: Prediction, batch: Batch) -> None:
        confidence, correct, image = self._confidences(prediction, batch)
        cells = image * CALIBRATION_BINS + bin_of(confidence)
        # A row for each image.
        count, sure, right = (
            _histogram(cells, len(batch), values)
            for values in (torch.ones_like(confidence), confidence, correct)
        )
        self.add(
            count=count.sum(dim=0),
            confidence=sure.sum(dim=0),
            correct=right.sum(dim=0),
            images=(count > 0).sum(dim=0),
            squares=(right - sure).square().sum(dim=0),
        )

    def compute(self) -> dict[str, float]:
        count = self.sums["count"]
        gap = np.abs(self.sums["correct"] - self.sums["confidence"])
        filled = count > 0
        worst = (gap[filled] / count[filled]).max() if filled.any() else np.nan
        deviation = np.sqrt(self._variance())
        debiased = np.maximum((2 * gap - folded_mean(gap, deviation)).sum(), 0)
        totals = (gap.sum(), self._floor(deviation).sum(), debiased)
        ece, floor, less = (ratio(total, count.sum()) for total in totals)
        return dict(zip(self.names, (ece, float(worst), floor, less), strict=True))

    def _variance(self) -> np.ndarray:
        """Of each bin's total error, (15,), by images."""
        m = self.sums["images"]
        total = self.sums["correct"] - self.sums["confidence"]
        squares = self.sums["squares"]
        spread = np.maximum(squares - total**2 / np.maximum(m, 1), 0) * m / np.maximum(m - 1, 1)
        return np.where(m > 1, spread, squares)

    def _floor(self, deviation: np.ndarray) -> np.ndarray:
        """The total error of each bin, (15,), that is expected where calibration is perfect."""
        return deviation * np.sqrt(2 / np.pi)

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

    def _confidences(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Top-label confidence, whether that label is right (0 or 1), (n,) float64 each, and the
        row of the batch that they are of, (n,) long."""
        pixels = Pixels.of(prediction, batch)
        rows = torch.arange(len(pixels.right), device=pixels.right.device)
        image = rows.repeat_interleave(pixels.right[0].numel() if len(rows) else 0)
        return pixels.confidence.flatten(), pixels.right.flatten(), image


class RegionCalibration(CalibrationBins):
    """The same over lesion ∪ prediction and what lies around them; far background hides errors.

    The union, of all classes but the background, or of each region by itself, is dilated by a box
    whose radius is 1/32 of the shorter side (2 pixels of 64, at least 1). Images without lesion and
    prediction have no such pixels; NaN if no image has any.
    """

    names = ("ece_region", "mce_region", "ece_region_floor", "ece_region_debiased")

    def _confidences(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        pixels = Pixels.of(prediction, batch)
        chosen = pixels.region.flatten().nonzero()[:, 0]
        image = chosen // max(pixels.right[:1].numel(), 1)
        return pixels.confidence.flatten()[chosen], pixels.right.flatten()[chosen], image


class ClassCalibration(CalibrationBins):
    """The same of images: the confidence is the probability of the most probable class.

    Images are independent, so the floor is exact but for the width of a bin: the mean absolute
    deviation of a binomial number of right answers, of n_b trials with the bin's mean confidence
    (de Moivre 1730; Diaconis & Zabell 1991, Statist. Sci. 6): what drawing labels from the
    predicted probabilities again and again would average to.
    """

    def _confidences(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        p, truth = classes(prediction, batch)
        rows = torch.arange(len(p), device=p.device)
        return p.amax(dim=1), (p.argmax(dim=1) == truth).to(torch.float64), rows

    def _floor(self, deviation: np.ndarray) -> np.ndarray:
        n, sure = self.sums["count"], self.sums["confidence"]
        p = np.divide(sure, n, out=np.zeros_like(sure), where=n > 0)
        return _binomial_deviation(n, np.where(p > 1, 1.0, p))


def bin_of(confidence: Tensor) -> Tensor:
    """The bin, 0 to 14, of each confidence; of any shape.

    A NaN may fall into any bin: it makes that bin's confidence, and with it the error, NaN.
    """
    # ⌈15c⌉ is (b−1)/15 < c ≤ b/15, a tenth of the cost of a search.
    part = (confidence * CALIBRATION_BINS).ceil().nan_to_num(1).clamp(1, CALIBRATION_BINS)
    return part.long() - 1


def image_gaps(pixels: Pixels, region: Tensor | None = None) -> Tensor:
    """Σ (correct − confidence) of each image's pixels in each bin: what an ECE is made of.

    Args:
        pixels: Of B images, with D decisions for each pixel.
        region: (B, D, n) bool, the pixels that count; all if None.

    Returns:
        (B, D, 15) float64. With N pixels, ECE = Σ_b |Σ_images gap_b| / N.
    """
    gap = pixels.right - pixels.confidence
    if region is not None:
        gap = torch.where(region, gap, 0)
    gaps = gap.new_zeros(*gap.shape[:2], CALIBRATION_BINS)
    return gaps.scatter_add_(2, bin_of(pixels.confidence), gap)


def folded_mean(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E|X| of X ~ N(mean ≥ 0, deviation²), elementwise."""
    steps = np.divide(mean, deviation, out=np.full_like(mean, np.inf), where=deviation != 0)
    density = np.sqrt(2 / np.pi) * np.exp(-(steps**2) / 2)
    folded: np.ndarray = deviation * density + mean * (2 * stats.norm.cdf(steps) - 1)
    return folded


def _binomial_deviation(n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """E|X − np| of X ~ Binomial(n, p), elementwise: 2ν(1 − p) P(X = ν) with ν = ⌊np⌋ + 1."""
    least = np.floor(n * p) + 1
    # At p = 1 there is no such ν, and no deviation.
    chance = np.where(least > n, 0.0, stats.binom.pmf(np.minimum(least, n), n, p))
    deviation: np.ndarray = np.where(np.isnan(p), np.nan, 2 * least * (1 - p) * chance)
    return deviation


def _histogram(cells: Tensor, rows: int, weights: Tensor) -> Tensor:
    """(rows, 15): the sum of the weights of each cell, row · 15 + bin."""
    total = torch.zeros(rows * CALIBRATION_BINS, dtype=weights.dtype, device=weights.device)
    return total.index_add_(0, cells, weights).reshape(rows, CALIBRATION_BINS)
