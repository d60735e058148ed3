"""Blur of a movement during the exposure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_pipelines.corruptions import random
from data_pipelines.corruptions.base import ImageCorruption, in_plane
from data_pipelines.corruptions.suites import SUITES

#: Largest angle between the movement and the rows.
MAX_ANGLE = math.pi / 4


class MotionBlur(ImageCorruption[tuple[float, float]]):
    """Averages 2 r + 1 pixels along a line of random angle, with one half of a Gaussian; (r, σ).

    y(p) = Σ_i w_i x(p + round(i (cos θ, sin θ))) for i = 0 ... 2 r, w_i ∝ exp(−i² / 2 σ²),
    θ ~ U(−45°, 45°) from the rows, one for all slices of a sample: ImageMagick's motion blur,
    which MedMNIST-C calls. Pixels; edge pixels are repeated outwards. Severities of MedMNIST-C's
    dermatoscopic images.
    """

    name = "motion-blur"
    severities = SUITES["derma"][name]

    def apply(self, image: Tensor, parameter: tuple[float, float], seeds: Tensor) -> Tensor:
        radius, sigma = parameter
        angle = random.symmetric(seeds, (1,)).double() * MAX_ANGLE
        planes = in_plane(image)
        height, width = planes.shape[-2:]
        flat = planes.flatten(2)
        row = torch.arange(height, device=image.device)
        column = torch.arange(width, device=image.device)
        result = torch.zeros_like(flat)
        for step, weight in enumerate(half_gaussian(radius, sigma)):
            down, right = ((step * f(angle)).round().long() for f in (torch.sin, torch.cos))
            rows = (row + down).clamp(0, height - 1) * width
            columns = (column + right).clamp(0, width - 1)
            index = (rows[:, :, None] + columns[:, None, :]).flatten(1)[:, None]
            result += flat.gather(2, index.expand_as(flat)).mul_(weight)
        return result.view(image.shape)


def half_gaussian(radius: float, sigma: float) -> list[float]:
    """2 ⌈radius⌉ + 1 weights that sum to 1, the largest first."""
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * math.ceil(radius) + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]
