"""Blur of a movement during the exposure."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption, in_plane
from trustsweep.data_pipelines.corruptions.suites import SUITES

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
        weights = half_gaussian(*parameter)
        angle = random.symmetric(seeds, (1,)).double() * MAX_ANGLE
        planes = in_plane(image)
        height, width = planes.shape[-2:]
        reach = len(weights) - 1
        aside = math.ceil(reach * math.sin(MAX_ANGLE))
        padded = functional.pad(planes, (0, reach, aside, aside), mode="replicate").contiguous()
        # Every run of `width` pixels, overlapping: a shift of a row is then the choice of another
        # run, and copying runs is five times as fast as gathering pixels.
        runs = padded.view(-1).as_strided((padded.numel() - width + 1, width), (1, 1))
        stride = padded.shape[-1]
        plane = torch.arange(planes.shape[0] * planes.shape[1], device=image.device)
        line = torch.arange(height, device=image.device) + aside
        first = (plane.view(*planes.shape[:2], 1) * padded.shape[-2] + line) * stride
        result = planes.new_zeros(first.numel(), width)
        for step, weight in enumerate(weights):
            down, right = ((step * f(angle)).round().long() for f in (torch.sin, torch.cos))
            shifted = first + (down * stride + right)[:, None]
            result += runs.index_select(0, shifted.flatten()).mul_(weight)
        return result.view(image.shape)


def half_gaussian(radius: float, sigma: float) -> list[float]:
    """2 ⌈radius⌉ + 1 weights that sum to 1, the largest first."""
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * math.ceil(radius) + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]
