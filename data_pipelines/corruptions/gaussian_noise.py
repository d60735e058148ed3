"""Additive Gaussian noise, as of an electronic detector."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class GaussianNoise(ImageCorruption[float]):
    """x + σ n with n ~ N(0, 1), independent for each pixel and channel; σ on the [0, 1] scale."""

    name = "gaussian-noise"
    severities = SUITES["chest"][name]
    symbol = "σ"

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        return image + random.normal(seeds, image.shape[1:]).mul_(parameter)
