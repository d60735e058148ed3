"""Ghosts of MRI: faint copies along the phase-encoding axis, as of breathing or pulsating flow."""

from __future__ import annotations

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption, in_plane
from trustsweep.data_pipelines.corruptions.suites import SUITES

#: Ghosts across the field of view.
FEWEST, MOST = 4, 10
#: Share of the lines, in the middle of k-space, that is left as it is.
RESTORED = 0.02


class Ghosting(ImageCorruption[float]):
    """Scales every n-th line of k-space, but the middle 2 %, by 1 − a.

    n ~ U{4, ..., 10}; the lines run along one of a slice's two axes, chosen with equal chances,
    the same in all slices and channels. The convention of TorchIO's `RandomGhosting`
    (Pérez-García et al., arXiv 2003.04696). The lines are symmetric about the middle one, so that
    the image stays real; the middle one is kept, and with it the brightness.
    """

    name = "ghosting"
    severities = SUITES["mri"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        draw = random.uniform(seeds, (2,))
        period = (FEWEST + (draw[:, 0] * (MOST - FEWEST + 1)).long())[:, None]
        planes = in_plane(image)
        height, width = planes.shape[-2:]
        rows = _attenuation(height, period, parameter)[:, :, None]
        # The transform of a real image holds half of the last axis; the rest is its mirror image.
        columns = _attenuation(width, period, parameter)[:, None, : width // 2 + 1]
        chosen = torch.where(draw[:, 1, None, None] < 0.5, rows, columns)
        spectrum = torch.fft.rfft2(planes) * chosen[:, None]
        return torch.fft.irfft2(spectrum, s=(height, width)).view(image.shape)


def _attenuation(size: int, period: Tensor, amount: float) -> Tensor:
    """(B, size) factors of the lines, in the order of `torch.fft`."""
    line = torch.arange(size, device=period.device)
    line = torch.minimum(line, size - line)
    struck = (line % period == 0) & (line > RESTORED * size / 2)
    return 1 - amount * struck.float()
