"""Additive Gaussian noise, as of an electronic detector."""

from __future__ import annotations

import torch
from torch import Tensor

from data_pipelines.corruptions.base import Corruption


class GaussianNoise(Corruption):
    """x + σ n with n ~ N(0, 1), independent for each pixel and channel; σ on the [0, 1] scale."""

    name = "gaussian-noise"
    severities = (0.04, 0.08, 0.12, 0.18, 0.26)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        # Drawn on the CPU, one generator a sample: a GPU's generator gives other numbers.
        noise = torch.stack(
            [
                torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(seed))
                for seed in seeds.tolist()
            ]
        )
        return image + parameter * noise.to(image)
