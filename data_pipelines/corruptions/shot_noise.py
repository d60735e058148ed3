"""Photon noise, as of too low a dose or too short an exposure."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class ShotNoise(ImageCorruption[float]):
    """N / λ with N ~ Poisson(λ x): λ photons make white; each pixel and channel on its own."""

    name = "shot-noise"
    severities = SUITES["chest"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        return random.poisson(image * parameter, seeds).div_(parameter)
