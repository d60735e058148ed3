"""A wrong tone curve, as of a display or a film that was digitised without its calibration."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class _Gamma(ImageCorruption[float]):
    draws = False

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        # torch's powers differ in the last bit with the place in the batch; these do not.
        return image.log().mul_(parameter).exp_()


class GammaUp(_Gamma):
    """Darkens the middle tones, x^γ with γ > 1; black and white stay."""

    name = "gamma-up"
    severities = SUITES["chest"][name]


class GammaDown(_Gamma):
    """Brightens the middle tones, x^γ with γ < 1; black and white stay."""

    name = "gamma-down"
    severities = SUITES["chest"][name]
