"""Flat images, masks and boxes brought to one square size. The aspect ratio is not kept."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = TypeVar("Pixels", NDArray[np.uint8], NDArray[np.float32])


def resize_image(pixels: Pixels, size: int) -> Pixels:
    """(C, size, size) of the given type, from (H, W) grey or (H, W, C), uint8 or float32.

    Bilinear, which Pillow widens to an average where the image shrinks; no value leaves the range
    of its channel.
    """
    if pixels.dtype not in (np.uint8, np.float32):
        raise ValueError(f"pixels are uint8 or float32, not {pixels.dtype}")
    channels = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    return np.stack([_resized(channel, size) for channel in channels])


def resize_mask(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(1, size, size) from (H, W); nearest neighbour, so that no new value arises."""
    image = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
    return np.array(image)[None]


def resize_boxes(
    xyxy: NDArray[np.float32], shape: tuple[int, ...], size: int
) -> NDArray[np.float32]:
    """(n, 4) pixel edges (x0, y0, x1, y1) of an (H, W) image, where `resize_image` puts them."""
    height, width = shape[:2]
    scale = np.array([size / width, size / height] * 2, np.float32)
    return (np.asarray(xyxy, np.float32).reshape(-1, 4) * scale).astype(np.float32)


def _resized(channel: Pixels, size: int) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(channel))
    scaled = np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    # In floating point the weights of a pixel's neighbours add up to 1 only nearly.
    return np.clip(scaled, channel.min(), channel.max())
