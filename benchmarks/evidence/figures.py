"""Metrics of the models of benchmarks/evidential.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from comparing.figures import Figure, meaned, of_card, under
from comparing.models import EvaluatedModel
from numpy.typing import NDArray

from trustsweep.data_pipelines.schema import TaskName
from trustsweep.distributed.statistics.inference import Floats, Statistic
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.metrics.calibration import folded_mean
from trustsweep.trainables.metrics.skill import FIXED_MASK

Columns = Mapping[str, NDArray[Any]]
CLEAN = "clean"


def at(condition: str) -> Callable[[str], bool]:
    return lambda name: name == condition


def named(name: str, condition: str = CLEAN) -> Figure:
    """Under one condition, by a name of `STATISTICS`."""
    return under(TaskName.SEGMENTATION, name, at(condition))


def region_ece(condition: str = CLEAN) -> Figure:
    """The debiased ECE around lesion and prediction, `RegionCalibration`'s."""
    return meaned(_debiased, at(condition))


def aurc(condition: str = CLEAN, score: str = "uncertainty") -> Figure:
    """The area under the risk-coverage curve of images in the order of a column, `Referral`'s."""
    return meaned(lambda columns: area(1 - columns["dice"], columns[score]), at(condition))


def risk(condition: str = CLEAN) -> Figure:
    """1 − Dice, mean over images: the expected AURC of images in random order."""
    return meaned(lambda columns: _mean(1 - columns["dice"]), at(condition))


def area(error: NDArray[Any], score: NDArray[Any]) -> Statistic:
    """AURC of resampled images: mean over i = 1..N of the mean error of the i lowest scores.

    An image that was drawn w times stands w times in the order. Images of equal score count as in
    random order: after k of a run of n images of mean error e, E more than C before them, the
    expected sum of errors is C + k e, so that the run adds n e + (C − N₀ e) (H(N₀ + n) − H(N₀)) to
    the sum of risks, with N₀ images before it and H the harmonic numbers.

    Args:
        error: (n,) ≥ 0.
        score: (n,), lower is surer.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-math.inf))
    errors = error[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        drawn = weights[:, order]
        counts = np.add.reduceat(drawn, starts, axis=1)
        sums = np.add.reduceat(drawn * errors, starts, axis=1)
        total = counts.sum(axis=1).astype(int)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total.max() + 1))])
        after = np.cumsum(counts, axis=1)
        before = after - counts
        mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        steps = harmonic[after.astype(int)] - harmonic[before.astype(int)]
        risks = sums + (np.cumsum(sums, axis=1) - sums - before * mean) * steps
        return np.asarray(risks.sum(axis=1) / total, dtype=np.float64)

    return statistic


def _mean(values: NDArray[Any]) -> Statistic:
    return lambda weights: np.asarray(weights @ values / weights.sum(axis=1), dtype=np.float64)


def _debiased(columns: Columns) -> Statistic:
    """As `CalibrationBins` has it. An image has pixels in a bin where its gap there is not 0."""
    gaps, pixels = columns["region_gap"], columns["region_pixels"]
    there = (gaps != 0).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        total, squares, images = weights @ gaps, weights @ gaps**2, weights @ there
        spread = np.maximum(squares - total**2 / np.maximum(images, 1), 0)
        spread *= images / np.maximum(images - 1, 1)
        deviation = np.sqrt(np.where(images > 1, spread, squares))
        gap = np.abs(total)
        less = np.maximum((2 * gap - folded_mean(gap, deviation)).sum(axis=1), 0)
        count = weights @ pixels
        return np.divide(less, count, out=np.full(count.shape, math.nan), where=count > 0)

    return statistic


def fixed_mask(model: EvaluatedModel) -> float:
    """Dice on lesions of the best mask that ignores the image, fitted on the train split."""
    return of_card("trivial", FIXED_MASK, "dice_lesion")(model)


SMALL, LARGE = attacked_name(0.01), attacked_name(0.02)
#: The columns of a table: what samples tell, and what only the cards have.
COLUMNS: dict[str, Figure] = {
    "Dice": named("dice_lesion"),
    "Dice, ε .01": named("dice_lesion", SMALL),
    "Dice, ε .02": named("dice_lesion", LARGE),
    "false alarms": named("false_alarms"),
    "ECE": region_ece(),
    "ECE, ε .01": region_ece(SMALL),
    "Brier": named("brier"),
    "Brier, ε .01": named("brier", SMALL),
    "Brier, corrupted": under(TaskName.SEGMENTATION, "brier", lambda c: c.startswith("corrupted")),
    "AUSE": named("ause"),
    "AURC": aurc(),
    "AURC, ε .01": aurc(SMALL),
}
CARD_COLUMNS: dict[str, tuple[str, ...]] = {
    "ECE floor": ("metrics", "clean.ece_region_floor"),
    "T": ("temperature",),
}
