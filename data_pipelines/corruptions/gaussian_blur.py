"""Gaussian blur."""

from __future__ import annotations

import torch
from monai.networks.layers.simplelayers import separable_filtering
from torch import Tensor

from data_pipelines.corruptions.base import Corruption


class GaussianBlur(Corruption):
    """x * g(σ) with a window of k pixels, mirrored at the border; the severities are k.

    σ = 0.3 ((k − 1)/2 − 1) + 0.8, OpenCV's rule for a window of k, which MedMNIST-C's blur uses.
    """

    name = "gaussian-blur"
    severities = (3, 5, 7, 9, 11)

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        window = int(parameter)
        sigma = 0.3 * ((window - 1) / 2 - 1) + 0.8
        places = torch.arange(window, dtype=image.dtype, device=image.device) - window // 2
        kernel = torch.exp(-0.5 * (places / sigma) ** 2)
        return separable_filtering(
            image, [kernel / kernel.sum()] * (image.ndim - 2), mode="reflect"
        )
