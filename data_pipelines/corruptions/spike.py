"""Stripes of MRI (herringbone), as of a spark that spoils one point of k-space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES

#: Cycles per pixel of the spoilt point.
LOWEST, HIGHEST = 0.05, 0.4


class Spike(ImageCorruption[float]):
    """Adds a m_c cos(2π Σ_d k_d r_d / n_d + φ), m_c the mean of channel c.

    What adding a n_1 n_2 ... m_c e^{iφ} / 2, a times half of the largest entry of the channel's
    spectrum, to the points k and −k of k-space does. One point a sample for all channels, its
    frequency ~ U(0.05, 0.4) cycles per pixel in a random direction, rounded to a point of k-space;
    φ ~ U(0, 2π). TorchIO's `RandomSpike` (arXiv 2003.04696) adds 1 to 3 times the largest entry to
    one point; half of that keeps the anatomy readable in the mild severities.
    """

    name = "spike"
    severities = SUITES["mri"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        sides = image.shape[2:]
        phase = random.uniform(seeds, (1,), stream=1)[:, 0].double() * 2 * math.pi
        angle = phase.view(-1, *(1,) * len(sides))
        for axis, (size, cycles) in enumerate(zip(sides, position(seeds, sides).T, strict=True)):
            shape = [1] * len(sides)
            shape[axis] = size
            ramp = torch.arange(size, dtype=torch.float64, device=image.device).view(shape)
            turn = (2 * math.pi / size) * cycles.view(-1, *(1,) * len(sides))
            angle = angle + turn * ramp
        stripes = torch.cos(angle).to(image)[:, None]
        mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
        return image + parameter * mean * stripes


def position(seeds: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(B, axes) float64 whole cycles across the image: the point of k-space, never its middle."""
    direction = random.normal(seeds, (len(sides),), stream=2).double()
    direction = direction / direction.norm(dim=1, keepdim=True)
    frequency = LOWEST + (HIGHEST - LOWEST) * random.uniform(seeds, (1,), stream=3).double()
    cycles = (frequency * direction * torch.tensor(sides, device=seeds.device)).round()
    # A small image may round to the middle, which would only brighten it.
    cycles[:, -1] += (cycles == 0).all(dim=1)
    return cycles
