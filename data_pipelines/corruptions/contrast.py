"""Loss of contrast."""

from __future__ import annotations

from torch import Tensor

from data_pipelines.corruptions.base import Corruption


class Contrast(Corruption):
    """m + c (x − m), m the image's mean over channels and pixels; the severities are c."""

    name = "contrast"
    severities = (0.9, 0.8, 0.7, 0.6, 0.4)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        mean = image.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
        return mean + parameter * (image - mean)
