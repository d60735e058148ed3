"""PNG, JPEG and TIFF files to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size
from trustsweep.data_pipelines.readers.quiet import quiet, quiet_c

#: Large detectors have 17 megapixels; what claims far more is a decompression bomb.
MAX_PIXELS = 64_000_000

Pixels = NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "TIFF")
_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
_ALPHA = ("LA", "RGBA")
_MODES = {
    "1": "1-bit",
    "L": "8-bit grey",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "16- or 32-bit grey",
    "F": "floating-point grey",
    "LA": "grey with transparency",
    "RGBA": "colour with transparency",
    "PA": "a colour palette with transparency",
    "P": "a colour palette",
    "RGB": "colour",
    "CMYK": "printing colours",
}
# Numbers of TIFF tags.
_PHOTOMETRIC, _SAMPLE_FORMAT, _BITS, _TILE_WIDTH, _TILE_LENGTH = 262, 339, 258, 322, 323
_SIGNED = 2


@overload
def read_grey(
    path: Path, *, deep: Literal[False] = False, constant_alpha: bool = False
) -> Pixels: ...


@overload
def read_grey(
    path: Path, *, deep: Literal[True], constant_alpha: bool = False
) -> NDArray[np.float32]: ...


def read_grey(
    path: Path, *, deep: bool = False, constant_alpha: bool = False
) -> Pixels | NDArray[np.float32]:
    """(H, W) grey values of an 8-bit PNG, JPEG or TIFF file.

    Grey stored as RGB with equal channels counts as grey. With `deep`, 16-bit, 32-bit and float
    grey are read as well, and whatever the depth the values come as stored, in float32 (integers
    above 2**24 are rounded). With `constant_alpha`, a transparency that is the same for all pixels
    is passed over; published sets hold grey images that were stored so by mistake. EXIF's
    orientation is not applied: masks and boxes are drawn on the pixels as stored.

    Raises `BadFile` for a file that is missing, empty, damaged, truncated, of another format, of
    several pages, larger than `MAX_PIXELS`, or of another mode (transparent, coloured, 16-bit
    unless `deep`): what an extra bit or channel means is the publisher's to say. Also for NaN and
    infinite values.
    """
    wanted = "grey" if deep else "8-bit grey"
    modes = ("L", "RGB", *(_DEEP if deep else ()), *(_ALPHA if constant_alpha else ()))
    pixels = _one_channel(path, _without_alpha(path, _decode(path, modes, wanted)))
    if not deep:
        return pixels
    values = pixels.astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise BadFile(path, f"{bad:,} pixels are NaN or infinite. Say what they should be.")
    return values


def read_colour(path: Path) -> Pixels:
    """(H, W, 3) red, green and blue of an 8-bit PNG, JPEG or TIFF file; grey is repeated.

    Raises `BadFile` as `read_grey`, and for transparency in any form.
    """
    pixels = _decode(path, ("L", "RGB"), "8-bit colour", opaque=True)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def read_mask(
    path: Path, shape: tuple[int, ...], values: Mapping[int, int] | None = None
) -> Pixels:
    """(H, W) of classes, 0 and 1 unless `values` says otherwise.

    Args:
        path: A PNG or TIFF file; JPEG is read too, but its losses rarely leave two values alone.
        shape: (H, W) of the image.
        values: Stored value to class (0 to 255), of a grey or palette file, where the index counts.
            None for a file that holds 0 and 255, or 0 and 1.

    Raises `BadFile` as `read_grey`, and for other values or another size than `shape`.
    """
    modes = ("1", "L", "RGB") if values is None else ("1", "L", "RGB", "P", *_DEEP)
    pixels = _one_channel(path, _decode(path, modes, "8-bit grey" if values is None else "grey"))
    if pixels.shape != shape:
        raise BadFile(
            path,
            f"the mask is {pixels.shape[1]} x {pixels.shape[0]} pixels, its image "
            f"{shape[1]} x {shape[0]}. Give both the same size.",
        )
    stored = np.unique(pixels).tolist()
    if values is None:
        return _binary(path, pixels, set(stored))
    return _classes(path, pixels, stored, values)


def _binary(path: Path, pixels: Pixels, stored: set[int]) -> Pixels:
    if not (stored <= {0, 1} or stored <= {0, 255}):
        odd = min(stored - {0, 255})
        raise BadFile(
            path,
            f"a mask holds 0 and 255 (or 0 and 1) alone, this one {odd} as well. "
            "Threshold it and store it without loss.",
        )
    return (pixels > 0).astype(np.uint8)


def _classes(path: Path, pixels: Pixels, stored: list[int], values: Mapping[int, int]) -> Pixels:
    if unknown := [value for value in stored if value not in values]:
        known = ", ".join(map(str, sorted(values)))
        raise BadFile(
            path,
            f"the mask holds {_some(unknown)}, which stands for no class. Known: {known}.",
        )
    classes = np.zeros(pixels.shape, np.uint8)
    for value in stored:
        classes[pixels == value] = values[value]
    return classes


def _some(values: list[int], listed: int = 5) -> str:
    """The first few of several values."""
    more = f" and {len(values) - listed} more" if len(values) > listed else ""
    return ", ".join(f"{value:g}" for value in values[:listed]) + more


def _decode(
    path: Path, modes: tuple[str, ...], wanted: str, *, opaque: bool = False
) -> NDArray[Any]:
    checked_size(path)
    try:
        # `verify` checks PNG's checksums but leaves the image unusable: hence opened twice.
        with quiet("PIL"):
            with Image.open(path, formats=_FORMATS) as image:
                _check_header(path, image, modes, wanted, opaque)
                image.verify()
            with Image.open(path, formats=_FORMATS) as image:
                unsigned = image.mode == "I" and _tag(image, _SAMPLE_FORMAT) != _SIGNED
                pixels = _pixels(image)
    except BadFile:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadFile(
            path, "not a PNG, JPEG or TIFF image. Convert it, or take it away."
        ) from error
    except Image.DecompressionBombError as error:
        raise BadFile(path, _too_large()) from error
    # For damaged files Pillow's decoders raise nearly everything: SyntaxError, ValueError,
    # struct.error, KeyError, TypeError, ZeroDivisionError were all met.
    except Exception as error:
        raise BadFile(path, f"damaged or truncated ({error}). Fetch it again.") from error
    # Pillow keeps unsigned 32-bit values in a signed array.
    return pixels.view(np.uint32) if unsigned and image.format == "TIFF" else pixels


def _pixels(image: Image.Image) -> NDArray[Any]:
    if image.format != "TIFF":
        return np.array(image)
    with quiet_c():
        return np.array(image)


def _check_header(
    path: Path, image: Image.Image, modes: tuple[str, ...], wanted: str, opaque: bool
) -> None:
    tile = (_tag(image, _TILE_WIDTH) or 0) * (_tag(image, _TILE_LENGTH) or 0)
    if max(image.width * image.height, tile) > MAX_PIXELS:
        raise BadFile(path, _too_large())
    if image.mode not in modes:
        raise BadFile(path, _wrong_mode(image.mode, wanted))
    if opaque and "transparency" in image.info:
        raise BadFile(path, "has a transparent colour. Convert it to 8-bit colour without one.")
    if image.mode in ("L", "RGB", *_ALPHA) and (depth := _stored_otherwise(image)):
        raise BadFile(path, f"{depth} where {wanted} is expected. Convert it to {wanted}.")
    if image.mode in _DEEP and _tag(image, _PHOTOMETRIC) == 0:
        raise BadFile(path, "white is stored as 0 in a deep image. Invert and store it again.")
    if _several_pages(image):
        raise BadFile(path, "several pages where one is expected. Store them as files of their own")


def _tag(image: Image.Image, number: int) -> int | None:
    """A whole-number tag of a TIFF file; None where there is none."""
    value = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _stored_otherwise(image: Image.Image) -> str | None:
    """What Pillow would silently turn into unsigned 8 bits."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        raw = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
        if "16" in str(raw):
            return "16-bit colour"
    if _tag(image, _SAMPLE_FORMAT) == _SIGNED:
        return "signed values"
    return None


def _several_pages(image: Image.Image) -> bool:
    """Tried by going to the second: counting would follow a damaged file's links to its end."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _without_alpha(path: Path, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """The channels before the transparency, which is the last of two or four."""
    if pixels.ndim == 2 or pixels.shape[-1] not in (2, 4):
        return pixels
    alpha = pixels[..., -1]
    if (alpha != alpha.flat[0]).any():
        raise BadFile(path, "a transparency that varies over the image. Convert it to 8-bit grey.")
    return pixels[..., :-1]


def _one_channel(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    raise BadFile(path, _wrong_mode("RGB", "8-bit grey"))


def _wrong_mode(mode: str, wanted: str) -> str:
    meaning = f" ({_MODES[mode]})" if mode in _MODES else ""
    return f"mode {mode}{meaning} where {wanted} is expected. Convert it to {wanted}."


def _too_large() -> str:
    return f"claims more than {MAX_PIXELS:,} pixels; not decoded. Scale it down, or take it away."
