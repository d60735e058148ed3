"""Loss of contrast, as of scatter or a wrong window."""

from __future__ import annotations

from torch import Tensor

from data_pipelines.corruptions.base import Corruption


class Contrast(Corruption):
    """Shrinks the contrast, m + f (x − m), where m is the image's mean over channels and pixels.

    The formula of Pillow's `ImageEnhance.Contrast` for grey images, without its rounding of m.
    """

    name = "contrast"
    severities = (0.9, 0.8, 0.7, 0.6, 0.4)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        mean = image.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
        return mean + parameter * (image - mean)
