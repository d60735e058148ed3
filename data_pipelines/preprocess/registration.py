"""Scans brought onto a template's grid by SimpleITK."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.readers.nifti import Volume, read_nifti

#: ITK's axes point to left and posterior where NIfTI's point to right and anterior.
_FLIP = np.diag([-1.0, -1.0, 1.0])
_BINS = 32
_SAMPLED = 0.2
#: Not 0, which stands for the clock.
_SEED = 1


def to_template(
    template: Path,
    volumes: Mapping[str, Volume],
    mask: NDArray[np.uint8] | None,
    *,
    model: str,
) -> tuple[dict[str, Volume], NDArray[np.uint8] | None]:
    """Every sequence, and the mask, on the template's grid; 0 where the scan does not reach.

    The first sequence is registered by mutual information (Mattes et al. 2003,
    doi 10.1109/TMI.2002.803888): rigidly, then, for `model` "affine", affinely from there. The
    others and the mask, which lies on the first one's grid, follow it. The same input gives the
    same output on any number of cores.

    Raises:
        UserError: without SimpleITK, and for a template that cannot be read.
        ValueError: where no overlap is found, or a grid is sheared; the text is the end of a
            sentence about the file.
    """
    sitk = _sitk()
    fixed = _image(sitk, _template(template))
    moving = {name: _image(sitk, volume) for name, volume in volumes.items()}
    first = next(iter(volumes))
    transform = _registered(sitk, fixed, moving[first], model)
    grid = _template(template)
    aligned = {}
    for name, image in moving.items():
        onto = sitk.Resample(image, fixed, transform, sitk.sitkLinear, 0.0)
        aligned[name] = Volume(values=_values(sitk, onto), spacing=grid.spacing, affine=grid.affine)
    if mask is None:
        return aligned, None
    labels = _image(sitk, dataclasses.replace(volumes[first], values=mask.astype(np.float32)))
    onto = sitk.Resample(labels, fixed, transform, sitk.sitkNearestNeighbor, 0.0)
    return aligned, _values(sitk, onto).astype(np.uint8)


def _sitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(
            "registration to a template needs SimpleITK: pip install 'trustsweep[registration]'."
        ) from error
    return SimpleITK


@lru_cache(maxsize=1)
def _template(path: Path) -> Volume:
    return read_nifti(path)


def _image(sitk: ModuleType, volume: Volume) -> Any:
    """An image of ITK, whose direction must be a rotation."""
    linear = _FLIP @ volume.affine[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    direction = linear / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise ValueError("its grid is sheared (axes not at right angles); resample it first")
    # ITK wants orthonormal to 1e-6, headers keep less: the nearest rotation.
    left, _, right = np.linalg.svd(direction)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.values.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin((_FLIP @ volume.affine[:3, 3]).tolist())
    return image


def _values(sitk: ModuleType, image: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T, np.float32)


def _registered(sitk: ModuleType, fixed: Any, moving: Any, model: str) -> Any:
    """The transform from points of `fixed` to points of `moving`."""
    try:
        start = sitk.CenteredTransformInitializer(
            fixed,
            moving,
            sitk.Euler3DTransform(),
            sitk.CenteredTransformInitializerFilter.MOMENTS,
        )
        rigid = _optimised(sitk, fixed, moving, sitk.Euler3DTransform(start))
        if model == "rigid":
            return rigid
        affine = sitk.AffineTransform(3)
        affine.SetCenter(rigid.GetCenter())
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        return _optimised(sitk, fixed, moving, affine)
    except RuntimeError as error:  # ITK's only class: samples outside, or nothing above 0.
        raise ValueError(
            "cannot be registered to the template: empty, or they hardly overlap"
        ) from error


def _optimised(sitk: ModuleType, fixed: Any, moving: Any, transform: Any) -> Any:
    """`transform`, changed to what fits best."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # Sums over threads depend on how many there are.
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLED, _SEED)  # Points are jittered.
    method.SetInterpolator(sitk.sitkLinear)
    # Steps of a length given beforehand led affine fits of small scans far astray.
    method.SetOptimizerAsGradientDescentLineSearch(
        learningRate=1.0,
        numberOfIterations=100,
        convergenceMinimumValue=1e-5,
        convergenceWindowSize=10,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    # A level of fewer than 16 voxels a side shows no anatomy.
    factors = [factor for factor in (4, 2, 1) if min(fixed.GetSize()) >= 16 * factor] or [1]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([factor // 2 for factor in factors])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform
