"""Layers that networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Most groups of channels that are normalised apart (Wu & He 2018, arXiv 1803.08494, use 32).
_GROUPS = 8


def group_norm(*channels: int) -> tuple[str, dict[str, Any]]:
    """Group normalisation, as MONAI's layers name it, for maps of any of these channels.

    It keeps every sample independent of its batch and, other than instance normalisation, works
    down to a single pixel.
    """
    return ("GROUP", {"num_groups": math.gcd(*channels, _GROUPS)})


class Standardise(nn.Module):
    """z-score per channel with the statistics of the train split, kept with the weights.

    A channel that never varies (deviation 0) is centred only.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int) -> None:
        super().__init__()
        shape = (1, -1, *([1] * spatial_dims))
        deviation = torch.tensor(std, dtype=torch.float32)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", deviation.view(shape))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class Pad(nn.Module):
    """Pads images at their far edges to a multiple of `factor`, at least two; repeats edge values.

    Two, as instance normalisation needs more than one pixel at the coarsest level.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        target = [max(2, -(-n // self.factor)) * self.factor for n in size]
        if list(size) == target:
            return image
        # F.pad lists the last dimension first.
        pad = [p for n, t in zip(reversed(size), reversed(target), strict=True) for p in (0, t - n)]
        return F.pad(image, pad, mode="replicate")


class PadToMultiple(nn.Module):
    """Runs a network on images padded by `Pad`, and crops its output to their size."""

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network = network
        self.pad = Pad(factor)

    def forward(self, image: Tensor) -> Tensor:
        return cropped(self.network(self.pad(image)), image.shape[2:])


def cropped(features: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *spatial) to its first *size pixels."""
    for dim, side in enumerate(size, 2):
        features = features.narrow(dim, 0, side)
    return features


def resized(features: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, *spatial) to (B, C, *size) by linear interpolation, in any number of dimensions.

    Gives what `F.interpolate(..., align_corners=False)` gives, as a product with a fixed matrix for
    each side: on a GPU the gradient of torch's own adds in an order that changes from run to run,
    and a trial must repeat to the bit.
    """
    for dim, side in enumerate(size, 2):
        if features.shape[dim] != side:
            unit = torch.eye(features.shape[dim], dtype=features.dtype, device=features.device)
            weights = F.interpolate(unit[None], size=side, mode="linear")[0]
            features = (features.movedim(dim, -1) @ weights).movedim(-1, dim)
    return features


class LinearUpsample(nn.Module):
    """Makes every spatial side `factor` times as long by linear interpolation; see `resized`."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) to (B, C, *(factor · spatial))."""
        return resized(features, [self.factor * side for side in features.shape[2:]])


class Smooth(nn.Module):
    """The weights 1/4, 1/2, 1/4 along every axis; edge values are repeated.

    They have a zero at the Nyquist frequency: whatever grid of 2 pixels the layers before leave is
    taken away, as by the interpolation with which a decoder of half the resolution ends.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) to the same."""
        for dim in range(2, features.ndim):
            size = features.shape[dim]
            ends = features.narrow(dim, 0, 1), features.narrow(dim, size - 1, 1)
            padded = torch.cat([ends[0], features, ends[1]], dim=dim)
            beside = padded.narrow(dim, 0, size) + padded.narrow(dim, 2, size)
            features = features / 2 + beside / 4
        return features
