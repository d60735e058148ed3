"""Too much or too little contrast, as of scatter or of a wrong window width."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class _Contrast(ImageCorruption[float]):
    draws = False

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        mean = image.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
        return mean + parameter * (image - mean)


class ContrastUp(_Contrast):
    """Stretches the contrast, m + f (x − m) with f > 1; m is the mean of channels and pixels.

    The formula of Pillow's `Contrast` for grey images, without its rounding of m. For colour
    Pillow weighs the channels by luma; here they count alike, as channels may be sequences.
    """

    name = "contrast-up"
    severities = SUITES["chest"][name]


class ContrastDown(_Contrast):
    """Shrinks the contrast, m + f (x − m) with f < 1; m is the mean of channels and pixels.

    See `ContrastUp` for the mean.
    """

    name = "contrast-down"
    severities = SUITES["chest"][name]
