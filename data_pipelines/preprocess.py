"""Arrays of any size to arrays of one size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Raised whenever the same file would give other pixels than before; part of the fingerprint.
VERSION = 1

Pixels = NDArray[np.uint8]


def resize_image(pixels: Pixels, size: int) -> Pixels:
    """(1, size, size); bilinear, which Pillow widens to an average where the image shrinks.

    An image that is not square loses its aspect ratio.
    """
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)[None]


def resize_mask(mask: Pixels, size: int) -> Pixels:
    """(1, size, size); nearest neighbour, so that 0 and 1 stay 0 and 1."""
    image = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
    return np.array(image)[None]
