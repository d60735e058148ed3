"""Lossy compression, as of images that went through a messenger or a web viewer."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class Jpeg(ImageCorruption[float]):
    """Encodes at quality q (100 is best) and decodes with Pillow's codec, in 8 bits.

    Images of three channels are coded in colour, with the codec's usual chroma sub-sampling; all
    others one grey picture a channel. Volumes are coded slice by slice. The one corruption that
    takes its images one by one, on the CPU.
    """

    name = "jpeg"
    severities = SUITES["chest"][name]
    symbol = "quality"
    draws = False

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        coloured = image.shape[1] == 3
        # Channels last for colour, in front for grey: either way one picture a leading entry.
        pictures = image.movedim(1, -1) if coloured else image
        tail = pictures.shape[-3 if coloured else -2 :]
        pixels = pictures.reshape(-1, *tail).mul(255).round().to(torch.uint8).cpu().numpy()
        coded = np.stack([_coded(picture, int(parameter)) for picture in pixels])
        decoded = torch.from_numpy(coded).to(image).div_(255).view(pictures.shape)
        return decoded.movedim(-1, 1) if coloured else decoded


def _coded(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
