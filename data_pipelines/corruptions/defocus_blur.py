"""Blur of a lens out of focus, as of a microscope, a fundus camera or a dermatoscope."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.gaussian_blur import gaussian_kernel
from trustsweep.data_pipelines.corruptions.suites import SUITES

#: MedMNIST-C smooths the disk with so many taps an axis (for radii up to 8, which all are).
_SMOOTHING = 3


class DefocusBlur(ImageCorruption[tuple[float, float]]):
    """Convolves each slice with a disk of radius r that is smoothed by a Gaussian of σ; (r, σ).

    The disk is 1 where x² + y² ≤ r², divided by its sum; the smoothing keeps its edge from
    aliasing (ImageNet-C, Hendrycks & Dietterich, arXiv 1903.12261). Pixels; edge pixels are
    repeated outwards. Severities of MedMNIST-C's dermatoscopic images, the widest range there.
    """

    name = "defocus-blur"
    severities = SUITES["derma"][name]
    draws = False

    def apply(self, image: Tensor, parameter: tuple[float, float], seeds: Tensor) -> Tensor:
        kernel = disk(*parameter).to(image)
        reach = len(kernel) // 2
        # Slices as channels of one image, each with its own copy of the kernel: torch convolves
        # that ten times as fast on a CPU as single-channel images.
        planes = image.reshape(1, -1, *image.shape[-2:])
        padded = functional.pad(planes, (reach,) * 4, mode="replicate")
        kernels = kernel.expand(planes.shape[1], 1, -1, -1)
        return functional.conv2d(padded, kernels, groups=len(kernels)).view(image.shape)


def disk(radius: float, sigma: float) -> Tensor:
    """(k, k) float64 that sums to 1, k = 2 ⌊radius⌋ + 3."""
    reach = int(radius) + _SMOOTHING // 2
    square = torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2
    sharp = (square[:, None] + square <= radius**2).double()
    line = gaussian_kernel(_SMOOTHING, sigma)
    smooth = functional.conv2d(sharp[None, None], torch.outer(line, line)[None, None], padding=1)
    return smooth[0, 0] / sharp.sum()
