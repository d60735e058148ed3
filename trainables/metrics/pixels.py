"""Segmentations pixel by pixel: of one lesion, of several classes, of regions that may overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.losses import members
from trustsweep.trainables.metrics.base import exact_probability

if TYPE_CHECKING:
    from trustsweep.trainables.contract import Prediction


@dataclass(frozen=True)
class Pixels:
    """The predictions for B images of n pixels beside their truth, without gradient.

    There are C **foregrounds** (the lesion; each class but the background; each region) and D
    **decisions** for each pixel: one where classes exclude each other, else one for each
    foreground.

    Attributes:
        probability: (B, K, n) float64 of each column of the scores: of K classes, the background
            first, or of C foregrounds. One that is not finite is NaN, so that it reaches the metric
            instead of being counted as some label, of classes with the pixel's others.
        label: (B, n) long, the class of each pixel; None where foregrounds are independent.
        truth: (B, C, n) bool, where each foreground is.
        spatial: The shape of the n pixels.
    """

    probability: Tensor
    label: Tensor | None
    truth: Tensor
    spatial: tuple[int, ...]

    @classmethod
    def of(cls, prediction: Prediction, batch: Batch) -> Self:
        """Raises ValueError without masks, and for masks that the prediction has no column for."""
        if batch.mask is None:
            raise ValueError("this metric needs a batch with masks")
        p, mask = exact_probability(prediction), batch.mask.detach()
        exclusive = prediction.exclusive and p.shape[1] > 1
        expected = (len(p), 1, *p.shape[2:]) if exclusive else p.shape
        if tuple(mask.shape) != tuple(expected):
            raise ValueError(
                f"probability {tuple(p.shape)} and mask {tuple(mask.shape)} differ; "
                f"a mask {tuple(expected)} is expected"
            )
        p, spatial = p.flatten(2), tuple(p.shape[2:])
        if not exclusive:
            return cls(p.masked_fill(~p.isfinite(), math.nan), None, mask.flatten(2) > 0.5, spatial)
        label = mask.flatten(1).long()
        if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < p.shape[1]:
            raise ValueError(
                f"a mask of class {int(label.max())}, of {p.shape[1]} classes predicted"
            )
        p = p.masked_fill(~p.isfinite().all(dim=1, keepdim=True), math.nan)
        return cls(p, label, members(label, p.shape[1]), spatial)

    @property
    def foreground(self) -> Tensor:
        """(B, C, n): the probability of each foreground."""
        return self.probability if self.label is None else self.probability[:, 1:]

    @property
    def each(self) -> Self:
        """Every foreground against the rest, as if it were a region."""
        return type(self)(self.foreground, None, self.truth, self.spatial)

    @cached_property
    def predicted(self) -> Tensor:
        """(B, C, n) bool: where each foreground is predicted.

        A tie is background: p = ½, which is what no evidence at all gives, or the first of several
        classes. NaN is nothing.
        """
        if self.label is None:
            return self.probability > 0.5
        known = ~self.probability[:, :1].isnan()
        return members(self.probability.argmax(dim=1), self.probability.shape[1]) & known

    @cached_property
    def others(self) -> Tensor:
        """(B, K, n): the probability of each class, 0 for the true one; of labels alone."""
        assert self.label is not None
        return self.probability.scatter(1, self.label.unsqueeze(1), 0)

    @cached_property
    def miss(self) -> Tensor:
        """(B, D, n): 1 less the probability that was given to the truth, to its last digit."""
        if self.label is None:
            return (self.truth.double() - self.probability).abs()
        return self.others.sum(dim=1, keepdim=True)

    @property
    def squares(self) -> Tensor:
        """(B, D, n): the Brier score, (p − y)², of K classes ½ Σ_k (p_k − [k = y])²."""
        if self.label is None:
            return self.miss.square()
        return (self.miss.square() + self.others.square().sum(dim=1, keepdim=True)) / 2

    @cached_property
    def confidence(self) -> Tensor:
        """(B, D, n): the probability of what is predicted."""
        if self.label is None:
            return torch.maximum(self.probability, 1 - self.probability)
        return self.probability.amax(dim=1, keepdim=True)

    @cached_property
    def right(self) -> Tensor:
        """(B, D, n) float64: 1 where the prediction is the truth, else 0."""
        same = self.predicted == self.truth
        return (same if self.label is None else same.all(dim=1, keepdim=True)).to(torch.float64)

    @cached_property
    def region(self) -> Tensor:
        """(B, D, n) bool: the pixels of `RegionCalibration`."""
        union = self.predicted | self.truth | self.foreground.isnan()
        if self.label is not None:
            union = union.any(dim=1, keepdim=True)
        radius = max(1, round(min(self.spatial) / _SIDE_PER_RADIUS))
        flat = union.flatten(0, 1).reshape(-1, *self.spatial)
        return dilate(flat, radius).reshape(union.shape)


#: The region reaches one pixel per this many pixels of the shorter side beyond the outlines.
_SIDE_PER_RADIUS = 32


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
