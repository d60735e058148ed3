"""Image files to arrays: read with suspicion, brought to one size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.problems import BadFile

#: Raised whenever the same file would give other pixels than before; part of the fingerprint.
VERSION = 1

#: Large detectors have 17 megapixels; what claims far more is a decompression bomb.
MAX_PIXELS = 64_000_000

Pixels = NDArray[np.uint8]

_MODES = {
    "1": "1-bit",
    "I;16": "16-bit grey",
    "I": "16- or 32-bit grey",
    "F": "floating-point grey",
    "LA": "grey with transparency",
    "RGBA": "colour with transparency",
    "P": "a colour palette",
    "RGB": "colour",
}


def read_grey(path: Path) -> Pixels:
    """(H, W) grey values of an 8-bit PNG or JPEG file.

    Grey stored as RGB with equal channels counts as grey. Raises `BadFile` for a file that is
    empty, damaged, truncated, no PNG or JPEG, larger than `MAX_PIXELS`, or of another mode (16-bit,
    transparent, coloured): what an extra bit or channel means is the publisher's to say.
    """
    return _decode(path, ("L", "RGB"))


def read_mask(path: Path, shape: tuple[int, ...]) -> Pixels:
    """(H, W) of 0 and 1, from a file that holds 0 and 255, or 0 and 1.

    Raises `BadFile` as `read_grey`, and for other values or another size than `shape`.
    """
    pixels = _decode(path, ("1", "L", "RGB"))
    if pixels.shape != shape:
        raise BadFile(
            path,
            f"the mask is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
            f"{shape[1]} x {shape[0]}. Give both the same size.",
        )
    values = set(np.unique(pixels).tolist())
    if not (values <= {0, 1} or values <= {0, 255}):
        odd = min(values - {0, 255})
        raise BadFile(
            path,
            f"a mask holds 0 and 255 (or 0 and 1) alone, this one {odd} as well. "
            "Threshold it and store it without loss.",
        )
    return (pixels > 0).astype(np.uint8)


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


def _decode(path: Path, modes: tuple[str, ...]) -> Pixels:
    if path.stat().st_size == 0:
        raise BadFile(path, "the file is empty. Fetch it again.")
    try:
        # `verify` checks PNG's checksums but leaves the image unusable: hence opened twice.
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path, formats=("PNG", "JPEG")) as image,
        ):
            _check_header(path, image, modes)
            image.verify()
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            pixels = np.array(image, dtype=np.uint8)
    except Image.UnidentifiedImageError as error:
        raise BadFile(path, "not a PNG or JPEG image. Convert it, or take it away.") from error
    except Image.DecompressionBombError as error:
        raise BadFile(path, _too_large()) from error
    # For damaged files Pillow's decoders raise SyntaxError and ValueError as well as OSError.
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFile(path, f"damaged or truncated ({error}). Fetch it again.") from error
    return _one_channel(path, pixels)


def _check_header(path: Path, image: Image.Image, modes: tuple[str, ...]) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadFile(path, _too_large())
    if image.mode not in modes:
        raise BadFile(path, _wrong_mode(image.mode))


def _one_channel(path: Path, pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        return pixels
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    raise BadFile(path, _wrong_mode("RGB"))


def _wrong_mode(mode: str) -> str:
    meaning = f" ({_MODES[mode]})" if mode in _MODES else ""
    return f"mode {mode}{meaning} where 8-bit grey is expected. Convert it to 8-bit grey."


def _too_large() -> str:
    return f"claims more than {MAX_PIXELS:,} pixels; not decoded. Scale it down, or take it away."
