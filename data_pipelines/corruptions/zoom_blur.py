"""Blur of a camera that comes nearer during the exposure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trustsweep.data_pipelines.corruptions.base import ImageCorruption, in_plane
from trustsweep.data_pipelines.corruptions.suites import SUITES


class ZoomBlur(ImageCorruption[tuple[float, float]]):
    """Averages the image with itself enlarged by 1, 1 + s, 1 + 2 s, ... up to z; (z, s).

    y = (x + Σ_k zoom(x, 1 + k s)) / (n + 1) with n factors; zoom enlarges each slice around its
    centre by linear interpolation and keeps the frame (ImageNet-C, arXiv 1903.12261). The
    sampling is exactly centred, where ImageNet-C first crops whole pixels. Severities of
    MedMNIST-C's dermatoscopic images.
    """

    name = "zoom-blur"
    severities = SUITES["derma"][name]
    draws = False

    def apply(self, image: Tensor, parameter: tuple[float, float], seeds: Tensor) -> Tensor:
        factors = zoom_factors(*parameter)
        planes = in_plane(image)
        total = planes + planes
        # The first factor is 1, the image itself.
        for factor in factors[1:]:
            total += _enlarge(planes, factor)
        return (total / (len(factors) + 1)).view(image.shape)


def zoom_factors(largest: float, step: float) -> list[float]:
    """1, 1 + step, ... up to `largest`."""
    # What binary fractions lose must not lose the last factor.
    return [1 + k * step for k in range(int((largest - 1) / step + 1e-6) + 1)]


def _enlarge(planes: Tensor, factor: float) -> Tensor:
    """The middle 1/factor of both axes on as many pixels; edges are repeated."""
    theta = torch.eye(2, 3, device=planes.device) / factor
    grid = functional.affine_grid(theta[None], [1, *planes.shape[1:]], align_corners=False)
    grid = grid.expand(len(planes), -1, -1, -1)
    return functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
