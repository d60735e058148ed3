"""Gaussian blur, as of a patient or detector slightly out of place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from data_pipelines.corruptions.base import Corruption


class GaussianBlur(Corruption):
    """Convolves each axis with a Gaussian of k taps, σ = 0.15 k + 0.35 pixels.

    The link between k and σ is the one of OpenCV and torchvision, which MedMNIST-C uses at
    224 pixels. The kernel is not scaled with the image, so a smaller image is blurred more.
    Edge pixels are repeated outwards, which also works for volumes of few slices.
    """

    name = "gaussian-blur"
    severities = (3, 5, 7, 9, 11)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        kernel = gaussian_kernel(int(parameter)).to(image)
        for axis in range(2, image.ndim):
            image = _convolve(image, kernel, axis)
        return image


def gaussian_kernel(taps: int) -> Tensor:
    """(taps,) float64 that sums to 1, σ = 0.15 taps + 0.35; `taps` is odd."""
    sigma = 0.15 * taps + 0.35
    offset = torch.arange(taps, dtype=torch.float64) - taps // 2
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    return weight / weight.sum()


def _convolve(image: Tensor, kernel: Tensor, axis: int) -> Tensor:
    lines = image.movedim(axis, -1)
    flat = lines.reshape(-1, 1, lines.shape[-1])
    padded = functional.pad(flat, (len(kernel) // 2,) * 2, mode="replicate")
    # The kernel is symmetric, so that correlation, which torch computes, is convolution.
    blurred = functional.conv1d(padded, kernel[None, None])
    return blurred.reshape(lines.shape).movedim(-1, axis)
