"""Multiplicative Gaussian noise, as of coherent waves (ultrasound, OCT)."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class SpeckleNoise(ImageCorruption[float]):
    """x + x σ n with n ~ N(0, 1), independent for each pixel and channel: black stays black."""

    name = "speckle-noise"
    severities = SUITES["chest"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        return image * random.normal(seeds, image.shape[1:]).mul_(parameter).add_(1)
