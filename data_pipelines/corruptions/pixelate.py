"""Loss of resolution, as of a thumbnail that was enlarged again."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions.base import ImageCorruption
from trustsweep.data_pipelines.corruptions.suites import SUITES


class Pixelate(ImageCorruption[float]):
    """Shrinks height and width by a factor f with a box filter, and enlarges to the old size.

    floor(n f) pixels are left of n, at least one. The formula is Pillow's `resize` with `BOX`:
    small pixel j is the mean of the pixels whose centre lies within half a window, n / (2 ⌊n f⌋),
    of its own, and pixel i shows small pixel floor((i + ½) ⌊n f⌋ / n).
    """

    name = "pixelate"
    severities = SUITES["chest"][name]
    draws = False

    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        sides = image.shape[-2:]
        # Rows are copied whole, columns pixel by pixel: those while there are few rows.
        for axis, size in zip((-2, -1), sides, strict=True):
            image = _shrink(image, max(int(size * parameter), 1), axis)
        for axis, size in zip((-1, -2), reversed(sides), strict=True):
            small = image.shape[axis]
            # Pillow's order of operations: where a centre is on an edge, rounding decides.
            shown = ((torch.arange(size, dtype=torch.float64) + 0.5) * (small / size)).long()
            image = image.index_select(axis, shown.to(image.device))
        return image


def _shrink(image: Tensor, small: int, axis: int) -> Tensor:
    """Window means along an axis, summed in one order whatever the batch."""
    index, weight = (torch.from_numpy(part.T) for part in _windows(image.shape[axis], small))
    shape = [1] * image.ndim
    shape[axis] = small
    terms = (
        image.index_select(axis, taken).mul_(share.view(shape))
        for taken, share in zip(index.to(image.device), weight.to(image), strict=True)
    )
    return functools.reduce(torch.add, terms)


def _windows(size: int, small: int) -> tuple[np.ndarray, np.ndarray]:
    """(small, widest) indices and weights; each row of weights sums to 1, padded with zeros."""
    scale = size / small
    centre = (np.arange(small) + 0.5) * scale
    first = np.floor(centre - scale / 2 + 0.5).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    # Pillow's order of operations, as above.
    offset = (index - centre[:, None] + 0.5) * (1 / scale)
    inside = (offset > -0.5) & (offset <= 0.5) & (index < size)
    weight = inside / inside.sum(axis=1, keepdims=True)
    return index.clip(0, size - 1), weight
