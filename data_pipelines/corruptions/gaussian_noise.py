"""Additive Gaussian noise."""

from __future__ import annotations

from torch import Tensor

from data_pipelines.corruptions.base import Corruption
from data_pipelines.corruptions.seeds import normal


class GaussianNoise(Corruption):
    """x + σ n, n ~ N(0, 1) for each pixel and channel; the severities are σ."""

    name = "gaussian-noise"
    severities = (0.04, 0.08, 0.12, 0.18, 0.26)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        return image + parameter * normal(image.shape[1:], seeds).to(image)
