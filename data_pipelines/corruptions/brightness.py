"""Too bright or too dark, as of a wrong exposure or window level."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class _Brightness(ImageCorruption[float]):
    draws = False

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        return image * parameter


class BrightnessUp(_Brightness):
    """Brightens, f x with f > 1; what passes white is clipped (Pillow's `Brightness`)."""

    name = "brightness-up"
    severities = SUITES["chest"][name]


class BrightnessDown(_Brightness):
    """Darkens, f x with f < 1 (Pillow's `Brightness`)."""

    name = "brightness-down"
    severities = SUITES["chest"][name]
