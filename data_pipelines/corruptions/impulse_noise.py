"""Salt and pepper, as of dead and saturated detector elements or of transmission errors."""

from __future__ import annotations

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class ImpulseNoise(ImageCorruption[float]):
    """Each pixel of each channel becomes 0 with probability p/2 and 1 with probability p/2."""

    name = "impulse-noise"
    severities = SUITES["chest"][name]

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        draw = random.uniform(seeds, image.shape[1:])
        salt = (draw >= parameter / 2).to(image)
        return torch.where(draw < parameter, salt, image)
