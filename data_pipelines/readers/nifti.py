"""NIfTI-1 and NIfTI-2 volumes (nibabel) to arrays that lie the same way."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size
from trustsweep.data_pipelines.readers.inflate import opened

if TYPE_CHECKING:
    import nibabel

#: 512 x 512 x 1024 voxels, 1 GiB in float32.
MAX_VOXELS = 2**28

#: Header extensions stand before the voxels; nothing is read out of them.
_MAX_EXTENSIONS = 2**26
#: Voxels that are held as stored at a time.
_CHUNK = 2**20
#: Of the corners, in voxels: labels drawn on another grid are further off.
_TOLERANCE = 0.1
_EXTENSION = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
#: `sizeof_hdr`, the first field: NIfTI-1 and NIfTI-2.
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_TRUNCATED = "truncated: its header promises more voxels. Fetch it again."
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True)
class Volume:
    """Voxels whose axes point, as nearly as their grid allows, to the right, front and top.

    Attributes:
        values: (X, Y, Z) float32, or (X, Y, Z, T); rescaled by the file's slope and intercept.
        spacing: Distance of neighbouring voxels along X, Y and Z in mm.
        affine: (4, 4) float64, voxel indices to RAS+ millimetres.
    """

    values: NDArray[np.float32]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]


def read_nifti(path: Path, *, dims: int = 3) -> Volume:
    """A .nii or .nii.gz file, reoriented to the nearest RAS+ axes without resampling.

    Args:
        path: Recognised by its content, not by its name.
        dims: 3, or 4 for a file with several volumes. Axes of length 1 beyond them are dropped.

    The affine is the file's sform, else its qform, else nibabel's guess from the voxel sizes; units
    other than mm are converted, none at all counts as mm.

    Raises `BadFile` for a file that is missing, damaged, truncated, longer than its header says, of
    more than `MAX_VOXELS` voxels, of another number of axes, of colours or complex numbers, without
    a usable affine, and for NaN or infinite voxels.
    """
    if dims not in (3, 4):
        raise ValueError(f"dims is 3 or 4, not {dims}")
    size = checked_size(path)
    with opened(path) as (stream, ratio):
        header = _header(path, stream)
        shape = _shape(path, header, dims)
        affine = _affine(path, header)
        dtype = _dtype(path, header)
        if size * ratio < prod(shape) * dtype.itemsize:
            raise BadFile(path, _TRUNCATED)
        values = _voxels(path, stream, header, prod(shape), dtype)
        if stream.read(1):
            raise BadFile(path, "goes on behind the voxels that its header promises.")
    return _canonical(values.reshape(shape, order="F"), affine)


def read_labels(path: Path, reference: Volume, values: Collection[int]) -> NDArray[np.uint8]:
    """(X, Y, Z) labels drawn on `reference`'s voxels, as stored.

    Args:
        path: A NIfTI file.
        reference: The image that the labels belong to.
        values: The labels that may occur, 0 to 255.

    Raises `BadFile` as `read_nifti`, for another shape or affine than `reference`'s (corners more
    than a tenth of a voxel apart), and for values that are no integers or not in `values`.
    """
    if not all(0 <= value <= 255 for value in values):
        raise ValueError("labels are 0 to 255")
    labels = read_nifti(path)
    shape = reference.values.shape[:3]
    if labels.values.shape != shape:
        raise BadFile(
            path,
            f"the labels are {_times(labels.values.shape)} voxels, their image {_times(shape)}. "
            "Resample them to the image.",
        )
    apart = _apart(labels.affine, reference, shape)
    if apart > _TOLERANCE:
        raise BadFile(
            path,
            f"the labels lie up to {apart:.3g} voxels beside their image (other affine). "
            "Resample them to the image.",
        )
    stored = np.unique(labels.values)
    if unknown := [value for value in stored.tolist() if value not in set(values)]:
        listed = ", ".join(f"{value:g}" for value in unknown[:5])
        known = ", ".join(map(str, sorted(values)))
        raise BadFile(path, f"labels {listed} are unknown. Known: {known}.")
    return labels.values.astype(np.uint8)


def volume_name(path: Path) -> str:
    """A file's name without .nii or .nii.gz, in small letters or capitals."""
    return _EXTENSION.sub("", path.name)


def check_grid(path: Path, volume: Volume, first: Volume) -> None:
    """Raises `BadFile` where a case's volumes have other shapes or affines (as `read_labels`)."""
    shape = first.values.shape[:3]
    if volume.values.shape[:3] != shape or _apart(volume.affine, first, shape) > _TOLERANCE:
        raise BadFile(path, "on another grid than the case's first sequence. Fetch it again.")


def _header(path: Path, stream: IO[bytes]) -> nibabel.Nifti1Header:
    """Leaves `stream` at the first voxel."""
    import nibabel

    start = stream.read(4)
    for order in ("<", ">"):
        length = int(np.frombuffer(start, f"{order}i4")[0]) if len(start) == 4 else 0
        if length in _HEADER_BYTES:
            break
    else:
        raise BadFile(path, "no NIfTI file. Convert it, or take it away.")
    block = start + stream.read(length - 4)
    if len(block) < length:
        raise BadFile(path, "truncated within its header. Fetch it again.")
    header = getattr(nibabel, _HEADER_BYTES[length])(block, endianness=order, check=False)
    if bytes(header["magic"])[:3] != _MAGIC[length]:
        raise BadFile(path, "no single-file NIfTI (such as .hdr with .img). Convert it to .nii.gz.")
    offset = float(header["vox_offset"])
    if not length + 4 <= offset <= _MAX_EXTENSIONS:
        raise BadFile(path, f"its voxels cannot start at byte {offset:g}. Fetch it again.")
    _skip(path, stream, int(offset) - length)
    return header


def _skip(path: Path, stream: IO[bytes], count: int) -> None:
    while count:
        passed = len(stream.read(min(count, _CHUNK)))
        if not passed:
            raise BadFile(path, "truncated before its voxels. Fetch it again.")
        count -= passed


def _shape(path: Path, header: nibabel.Nifti1Header, dims: int) -> tuple[int, ...]:
    from nibabel.spatialimages import HeaderDataError

    if not 1 <= int(header["dim"][0]) <= 7:
        raise BadFile(path, "its header states no usable shape. Fetch it again.")
    try:
        shape = tuple(int(length) for length in header.get_data_shape())
    except (HeaderDataError, ValueError, IndexError, TypeError) as error:
        raise BadFile(path, "its header states no usable shape. Fetch it again.") from error
    while len(shape) > dims and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != dims or min(shape) < 1:
        raise BadFile(path, f"{_times(shape) or 0} voxels where {dims} axes are expected.")
    if prod(shape) > MAX_VOXELS:
        raise BadFile(
            path, f"claims {_times(shape)} voxels, more than {MAX_VOXELS:,}; not read. Crop it."
        )
    return shape


def _dtype(path: Path, header: nibabel.Nifti1Header) -> np.dtype[np.generic]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise BadFile(path, "its header states no known data type. Fetch it again.") from error
    if dtype.kind not in "iuf" or dtype.itemsize not in (1, 2, 4, 8):
        raise BadFile(path, f"voxels of type {dtype}; only integers and floats are read.")
    return dtype


def _affine(path: Path, header: nibabel.Nifti1Header) -> NDArray[np.float64]:
    """(4, 4) in mm."""
    from nibabel.spatialimages import HeaderDataError

    unusable = "its affine cannot be used (not finite, or flat). Correct sform or qform."
    try:
        with np.errstate(all="ignore"):
            affine = np.array(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise BadFile(path, unusable) from error
    try:
        affine[:3] *= _MILLIMETRES[header.get_xyzt_units()[0]]
    except KeyError as error:
        raise BadFile(path, "its voxel sizes are no lengths. Correct xyzt_units.") from error
    with np.errstate(all="ignore"):
        # Relative to the voxel sizes, so that small voxels are no flat ones.
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        unit = affine[:3, :3] / lengths
        usable = np.isfinite(affine).all() and np.isfinite(unit).all()
    if not usable or abs(np.linalg.det(unit)) < 1e-3:
        raise BadFile(path, unusable)
    return affine


def _voxels(
    path: Path,
    stream: IO[bytes],
    header: nibabel.Nifti1Header,
    count: int,
    dtype: np.dtype[np.generic],
) -> NDArray[np.float32]:
    """(count,) rescaled. Holds the stored values in pieces alone."""
    slope, intercept = _scaling(path, header)
    values = np.empty(count, np.float32)
    bad = 0
    for start in range(0, count, _CHUNK):
        wanted = min(_CHUNK, count - start)
        content = stream.read(wanted * dtype.itemsize)
        if len(content) < wanted * dtype.itemsize:
            raise BadFile(path, _TRUNCATED)
        stored = np.frombuffer(content, dtype)
        with np.errstate(all="ignore"):
            piece = (stored * slope + intercept).astype(np.float32)
        values[start : start + wanted] = piece
        bad += int(wanted - np.isfinite(piece).sum())
    if bad:
        raise BadFile(path, f"{bad:,} voxels are NaN or infinite. Say what they should be.")
    return values


def _scaling(path: Path, header: nibabel.Nifti1Header) -> tuple[np.float64, np.float64]:
    from nibabel.spatialimages import HeaderDataError

    unusable = "its slope or intercept is no number. Correct it."
    # NaN, like 0, is how a file says that nothing is to be rescaled.
    if np.isinf(header["scl_slope"]):
        raise BadFile(path, unusable)
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise BadFile(path, unusable) from error
    return np.float64(1 if slope is None else slope), np.float64(intercept or 0)


def _canonical(values: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    from nibabel import orientations
    from nibabel.affines import voxel_sizes

    turn = orientations.io_orientation(affine)
    turned = affine @ orientations.inv_ornt_aff(turn, values.shape[:3])
    x, y, z = (float(length) for length in voxel_sizes(turned))
    return Volume(
        np.ascontiguousarray(orientations.apply_orientation(values, turn)), (x, y, z), turned
    )


def _apart(affine: NDArray[np.float64], reference: Volume, shape: tuple[int, ...]) -> float:
    """How far the corners lie from the reference's, in voxels of the reference."""
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shape])).reshape(3, -1)
    offset = (affine - reference.affine) @ np.vstack([corners, np.ones((1, corners.shape[1]))])
    inverse = np.linalg.inv(reference.affine[:3, :3])
    return float(np.abs(inverse @ offset[:3]).max())


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
