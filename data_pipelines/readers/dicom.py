"""DICOM files of one grey frame (pydicom) to what a viewer would show, and nothing of the patient.

Only the tags of `_TAGS` are ever taken from a file; names, numbers, dates and UIDs are passed over
as bytes. What the libraries say of a file they cannot read may quote such values, so that neither
their messages nor their warnings are passed on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.codestreams import frame_size, run_length_size
from trustsweep.data_pipelines.readers.files import checked_size
from trustsweep.data_pipelines.readers.images import MAX_PIXELS
from trustsweep.data_pipelines.readers.quiet import quiet

if TYPE_CHECKING:
    from pydicom import Dataset

#: The largest image at 32 bits, and what surrounds it.
MAX_BYTES = 300_000_000

_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelSpacing", "ImagerPixelSpacing"),
    *("ViewPosition", "Modality", "PatientSex", "PatientAge"),
)
#: Without these the pixels cannot be interpreted.
_REQUIRED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_LOGGERS = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "PIL")
_DEFLATED, _EXPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"
_RUN_LENGTH = "1.2.840.10008.1.2.5"
#: Preamble, "DICM", and the element that holds the length of the meta information behind it.
_META_START = 128 + 4 + 12
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_SEX = {"F": "female", "M": "male", "O": "other"}


@dataclass(frozen=True)
class DicomImage:
    """A frame as it is meant to be displayed.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; air is dark (MONOCHROME1 is inverted).
        spacing: Distance of rows and of columns in mm: in the patient, or on the detector where the
            file gives only that. None where it gives neither.
        view: Such as "PA", "AP", "LL"; None where unknown.
        modality: Such as "DX", "CR", "CT"; None where unknown.
        sex: "female", "male" or "other"; None where unknown.
        age: In years; None where unknown.
    """

    pixels: NDArray[np.float32]
    spacing: tuple[float, float] | None
    view: str | None
    modality: str | None
    sex: str | None
    age: float | None


@dataclass(frozen=True)
class _Layout:
    """How pixels are stored."""

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    inverted: bool
    syntax: str

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest value that the stored bits can hold."""
        if self.signed:
            return -(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1
        return 0, 2**self.stored - 1


def read_dicom(path: Path) -> DicomImage:
    """The one grey frame of a DICOM file.

    Stored values pass the modality LUT or the rescale slope and intercept, then the VOI LUT or the
    first window (PS3.3 C.11.1, C.11.2); without either, the range of the stored bits becomes
    [0, 1]. Values beyond the window are clipped. A view, modality, sex or age that is not in
    DICOM's form counts as unknown.

    Raises `BadFile` for a file that is missing, damaged, truncated, no DICOM, larger than
    `MAX_BYTES` (inflated as well), of more than `MAX_PIXELS`, without an image, with several
    frames, with colours, with a transfer syntax that no installed package decodes, and for a
    rescale or a window that makes no sense.
    """
    checked_size(path, MAX_BYTES)
    with quiet(*_LOGGERS):
        dataset, syntax = _dataset(path)
        with _guarded(path, "its tags cannot be read"):
            layout = _layout(path, dataset, syntax)
        stored = _stored(path, dataset, layout)
        with _guarded(path, "its grey scale cannot be worked out"):
            pixels = _shown(path, dataset, layout, stored)
        with _guarded(path, "its tags cannot be read"):
            return DicomImage(
                pixels,
                _spacing(dataset),
                _code(dataset, "ViewPosition"),
                _code(dataset, "Modality"),
                _SEX.get(str(dataset.get("PatientSex", ""))),
                _age(str(dataset.get("PatientAge", ""))),
            )


@contextmanager
def _guarded(path: Path, problem: str) -> Iterator[None]:
    """pydicom and its decoders raise nearly everything on damaged files, quoting their values."""
    try:
        yield
    except BadFile:
        raise
    # `from None`: a traceback would quote them as well.
    except Exception as error:  # noqa: BLE001
        raise BadFile(
            path,
            f"{problem} ({type(error).__name__}): damaged, truncated or of a rare kind. "
            "Fetch it again, or convert it.",
        ) from None


def _dataset(path: Path) -> tuple[Dataset, str]:
    """The tags of `_TAGS`, and the transfer syntax that the pixels are in."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_dataset, read_file_meta_info
    from pydicom.tag import BaseTag, Tag

    tags: list[int | BaseTag] = [Tag(keyword) for keyword in _TAGS]
    # From memory: lengths that a damaged file claims reserve nothing then.
    content = path.read_bytes()
    with _guarded(path, "its header cannot be read"):
        try:
            meta = read_file_meta_info(path)
        except InvalidDicomError:
            raise BadFile(path, "no DICOM file. Convert it, or take it away.") from None
        syntax = str(meta.get("TransferSyntaxUID", ""))
        if not syntax:
            raise BadFile(path, "states no transfer syntax. Export it again.")
        if syntax == _DEFLATED:
            start = _META_START + int(meta.FileMetaInformationGroupLength)
            inflated = BytesIO(_inflated(path, content[start:]))
            return read_dataset(inflated, False, True, specific_tags=tags), _EXPLICIT
        return dcmread(BytesIO(content), specific_tags=tags), syntax


def _inflated(path: Path, content: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(content, MAX_BYTES)
    if inflater.unconsumed_tail:
        raise BadFile(path, f"inflates to more than {MAX_BYTES:,} bytes; not read.")
    if not inflater.eof:
        raise BadFile(path, "truncated. Fetch it again.")
    return inflated


def _layout(path: Path, dataset: Dataset, syntax: str) -> _Layout:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise BadFile(path, "holds floating-point pixels. Convert it to integers.")
    if "PixelData" not in dataset:
        raise BadFile(path, "holds no image. Take it away.")
    if absent := [keyword for keyword in _REQUIRED if dataset.get(keyword) in (None, "")]:
        raise BadFile(path, f"lacks {', '.join(absent)}. Export it again.")
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    meaning = str(dataset.PhotometricInterpretation)
    layout = _Layout(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        allocated=int(dataset.BitsAllocated),
        stored=int(dataset.BitsStored),
        signed=int(dataset.PixelRepresentation) == 1,
        inverted=meaning == "MONOCHROME1",
        syntax=syntax,
    )
    if layout.rows * layout.columns * max(frames, 1) * max(samples, 1) > MAX_PIXELS:
        raise BadFile(path, f"claims more than {MAX_PIXELS:,} pixels; not decoded. Scale it down.")
    if frames != 1:
        raise BadFile(path, f"{frames} frames where one is expected. Store them as files.")
    if samples != 1 or meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadFile(path, "a colour image where grey is expected. Convert it to MONOCHROME2.")
    if min(layout.rows, layout.columns) < 1:
        raise BadFile(path, "an image without rows or columns. Fetch it again.")
    if (
        layout.allocated not in (8, 16, 32)
        or not 0 < layout.stored <= layout.allocated
        or int(dataset.get("HighBit", layout.stored - 1)) != layout.stored - 1
    ):
        raise BadFile(
            path,
            f"{layout.stored} bits stored of {layout.allocated}, which is not read. "
            "Store 8, 16 or 32 bits with the lowest ones in use.",
        )
    return layout


def _stored(path: Path, dataset: Dataset, layout: _Layout) -> NDArray[Any]:
    """(H, W) integers as stored, without what other bits may hold (overlays)."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(layout.syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise BadFile(path, f"its transfer syntax ({_name(syntax)}) is not read.") from None
    if not decoder.is_available:
        raise BadFile(
            path,
            f"compressed as {_name(syntax)}, which needs a decoder: install pylibjpeg with "
            "pylibjpeg-libjpeg and pylibjpeg-openjpeg (the extra 'dicom').",
        )
    with _guarded(path, "its pixels cannot be decoded"):
        if syntax.is_compressed:
            _check_frame(path, dataset.PixelData, layout)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        pixels, _ = decoder.as_array(dataset, index=0, raw=True)
    if pixels.shape != (layout.rows, layout.columns) or pixels.dtype.kind not in "iu":
        raise BadFile(path, "its pixels are not what its header says. Fetch it again.")
    spare = pixels.dtype.itemsize * 8 - layout.stored
    # A signed shift to the right brings the sign along.
    return (pixels << spare) >> spare if spare > 0 else pixels


def _name(syntax: Any) -> str:
    """Of a registered transfer syntax: another UID may be made of a hospital's own."""
    return syntax.name if syntax.name != str(syntax) else "private"


def _check_frame(path: Path, encapsulated: bytes, layout: _Layout) -> None:
    """A compressed frame states its size again, and decoders believe it."""
    from pydicom.encaps import get_frame

    frame = get_frame(encapsulated, 0, number_of_frames=1)
    if layout.syntax == _RUN_LENGTH:
        agrees = run_length_size(frame) <= layout.rows * layout.columns * layout.allocated // 8 + 64
    else:
        agrees = frame_size(frame) == (layout.rows, layout.columns, 1)
    if not agrees:
        raise BadFile(path, "its compressed pixels are of another size than its header says.")


def _shown(
    path: Path, dataset: Dataset, layout: _Layout, stored: NDArray[Any]
) -> NDArray[np.float32]:
    """(H, W) in [0, 1]."""
    values, limits = _rescaled(path, dataset, layout, stored)
    if dataset.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        table = dataset.VOILUTSequence[0].LUTDescriptor
        shown = apply_voi(np.rint(values).astype(np.int64), dataset) / (2.0 ** int(table[2]) - 1)
    else:
        shown = _windowed(path, dataset, values, limits)
    shown = np.clip(shown, 0, 1)
    return (1 - shown if layout.inverted else shown).astype(np.float32)


def _rescaled(
    path: Path, dataset: Dataset, layout: _Layout, stored: NDArray[Any]
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Values of the modality, and the lowest and the highest that could occur."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        table = dataset.ModalityLUTSequence[0].LUTDescriptor
        return apply_modality_lut(stored, dataset), (0.0, 2.0 ** int(table[2]) - 1)
    slope = _number(dataset, "RescaleSlope", 1.0)
    intercept = _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0 or not isfinite(slope) or not isfinite(intercept):
        raise BadFile(path, "its rescale slope and intercept make no sense. Correct them.")
    precise = np.float64 if layout.stored > 16 else np.float32
    low, high = sorted(limit * slope + intercept for limit in layout.limits)
    return stored * precise(slope) + precise(intercept), (low, high)


def _windowed(
    path: Path, dataset: Dataset, values: NDArray[Any], limits: tuple[float, float]
) -> NDArray[Any]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, scaled to [0, 1]; may lie beyond."""
    centre = _number(dataset, "WindowCenter", None)
    width = _number(dataset, "WindowWidth", None)
    if centre is None and width is None:
        low, high = limits
        return (values - low) / (high - low)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    narrowest = 1.0 if function == "LINEAR" else 0.0
    sound = centre is not None and width is not None and isfinite(centre) and isfinite(width)
    if (
        centre is None
        or width is None
        or not sound
        or width < narrowest
        or width == 0
        or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID")
    ):
        raise BadFile(path, "its window makes no sense (centre, width, function). Correct it.")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(np.float32)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _number(dataset: Dataset, keyword: str, default: Any) -> Any:
    """The first of a tag's numbers; `default` where it has none."""
    value = dataset.get(keyword)
    if value is None or isinstance(value, str | bytes):
        return default if not value else float(value)
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else default


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(keyword)
        if value is not None and not isinstance(value, str) and len(value) == 2:
            rows, columns = (float(distance) for distance in value)
            if 0 < rows < np.inf and 0 < columns < np.inf:
                return rows, columns
    return None


def _code(dataset: Dataset, keyword: str) -> str | None:
    """A code in DICOM's form, so that no free text slips through."""
    value = str(dataset.get(keyword) or "").strip()
    return value if _CODE.fullmatch(value) else None


def _age(text: str) -> float | None:
    match = _AGE.fullmatch(text.strip())
    return int(match[1]) / _PER_YEAR[match[2]] if match else None
