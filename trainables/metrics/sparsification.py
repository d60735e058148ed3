"""Sparsification: does leaving out the most uncertain pixels leave out the errors?"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import SumState, ratio, uncertainty_map
from trustsweep.trainables.metrics.pixels import Pixels


def ause(error: Tensor, uncertainty: Tensor) -> Tensor:
    """Normalised area between the sparsification curves by uncertainty and by the error itself.

    With n pixels, Spars(k) is the mean error of the n − k least uncertain ones, Oracle(k) of those
    with the smallest errors; AUSE = mean over k = 0..n−1 of Spars − Oracle, divided by Spars(0)
    (Ilg et al. 2018, arXiv:1802.07095; the exact grid). Tied pixels count as in random order, so a
    constant map scores as a random one does. An image without error scores 0.

    Args:
        error: (B, n) ≥ 0, float64.
        uncertainty: (B, n), any order-preserving scale.

    Returns:
        (B,) in [0, ∞), NaN where either input holds a NaN.
    """
    by_uncertainty, by_error = mean_risks(error, uncertainty)
    mean = error.mean(dim=1)
    area = (by_uncertainty - by_error).clamp(min=0)
    result = torch.where(mean == 0, 0.0, area / mean)
    return result.masked_fill(area.isnan(), math.nan)


def mean_risks(error: Tensor, uncertainty: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over i = 1..n of the mean error of the i least uncertain, and of the i smallest errors.

    For errors of 0 and 1 these are the area under the risk-coverage curve and its least value.

    Args:
        error: (B, n) ≥ 0, float64.
        uncertainty: (B, n), any order-preserving scale; ties count as in random order.

    Returns:
        (B,) each; the first is NaN where the uncertainty holds a NaN.
    """
    n = error.shape[1]
    # Σ_i (1/i) Σ_{j≤i} e_(j) = Σ_j w_j e_(j) with w_j = Σ_{i≥j} 1/i: only ranks matter.
    counts = torch.arange(1, n + 1, dtype=error.dtype, device=error.device)
    weight = (1 / counts).flip(0).cumsum(0).flip(0)
    order, ranked = _argsort(uncertainty)
    by_uncertainty = (_mean_over_ties(weight, ranked) * error.gather(1, order)).mean(dim=1)
    by_error = _sort(error) @ weight / n
    return by_uncertainty.masked_fill(uncertainty.isnan().any(dim=1), math.nan), by_error


class Sparsification(SumState):
    """AUSE of the pixels of each image, then the mean over images.

    The error of a pixel is 1 less the probability of its truth, |y − p|; of regions, their mean.
    """

    names = ("ause",)
    fields: ClassVar[dict[str, tuple[int, ...]]] = {"images": (), "ause": ()}

    def update(self, prediction: Prediction, batch: Batch) -> None:
        miss = Pixels.of(prediction, batch).miss.mean(dim=1)
        uncertainty = uncertainty_map(prediction, self.uncertainty).flatten(1)
        self.add(images=len(miss), ause=ause(miss, uncertainty).sum())

    def compute(self) -> dict[str, float]:
        return {"ause": ratio(self.sums["ause"], self.sums["images"])}


def _mean_over_ties(weight: Tensor, ranked: Tensor) -> Tensor:
    """`weight` (n,), by rank, averaged over runs of equal values of `ranked` (B, n): (B, n)."""
    size = ranked.shape[1]
    index = torch.arange(size, device=ranked.device).expand_as(ranked)
    edge = torch.ones_like(ranked[:, :1], dtype=torch.bool)
    change = ranked[:, 1:] != ranked[:, :-1]
    start = torch.where(torch.cat([edge, change], 1), index, 0).cummax(1).values
    last = torch.where(torch.cat([change, edge], 1), index, size).flip(1).cummin(1).values.flip(1)
    upto = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
    return (upto[last + 1] - upto[start]) / (last + 1 - start)


# numpy sorts float rows 3 to 6 times as fast as torch on a CPU (64 x 64 to 256 x 256 pixels,
# torch 2.13, numpy 2.4), and sorting is most of what an evaluation's metrics cost.
def _argsort(values: Tensor) -> tuple[Tensor, Tensor]:
    if values.device.type == "cpu":
        order = torch.from_numpy(np.argsort(values.numpy(), axis=1))
    else:
        order = values.argsort(dim=1)
    return order, values.gather(1, order)


def _sort(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
