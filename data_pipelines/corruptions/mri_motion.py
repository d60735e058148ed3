"""Motion artefacts of MRI: the patient moves while k-space is filled line by line."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption, in_plane
from trustsweep.data_pipelines.corruptions.suites import SUITES

#: The moves fall into these parts of the scan: before and after the middle of k-space.
FIRST, SECOND = (0.15, 0.45), (0.55, 0.85)


class MriMotion(ImageCorruption[float]):
    """The magnitude of a k-space whose first and last lines are of moved copies.

    A copy is turned by U(−p, p) degrees and shifted by U(−p, p) per cent of the side along both
    axes of the slice, linearly interpolated, edges repeated. Lines run along the last axis and are
    filled in order of frequency; the first move ends at U(0.15, 0.45) of the scan, the second
    begins at U(0.55, 0.85). After TorchIO's `RandomMotion` (arXiv 2003.04696); the middle of
    k-space, which says where the anatomy is, is always of the image itself, so that masks fit.
    """

    name = "mri-motion"
    severities = SUITES["mri"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        planes = in_plane(image)
        height = planes.shape[-2]
        frequency = torch.fft.fftfreq(height, device=image.device) + 0.5
        draw = random.uniform(seeds, (2,), stream=2)
        starts = FIRST[0] + (FIRST[1] - FIRST[0]) * draw[:, :1]
        ends = SECOND[0] + (SECOND[1] - SECOND[0]) * draw[:, 1:]
        lines = torch.fft.fft(planes, dim=-2)
        for stream, filled in enumerate((frequency < starts, frequency >= ends)):
            moved = _moved(planes, random.symmetric(seeds, (3,), stream) * parameter)
            chosen = filled[:, None, :, None]
            lines = torch.where(chosen, torch.fft.fft(moved, dim=-2), lines)
        return torch.fft.ifft(lines, dim=-2).abs().view(image.shape)


def _moved(planes: Tensor, move: Tensor) -> Tensor:
    """Planes (B, P, H, W) moved by (B, 3): degrees, and per cent of the width and the height."""
    height, width = planes.shape[-2:]
    turn = move[:, 0] * (math.pi / 180)
    cosine, sine = turn.cos(), turn.sin()
    # Coordinates of grid_sample run from −1 to 1 along each side, so a shift of 1 % is 0.02.
    shift = move[:, 1:] * 0.02
    theta = torch.stack(
        [
            torch.stack([cosine, -sine * height / width, shift[:, 0]], dim=1),
            torch.stack([sine * width / height, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(planes.shape), align_corners=False)
    return functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
