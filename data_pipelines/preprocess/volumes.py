"""Sequences of one scan brought to one grid, one scale and one size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.readers.nifti import Volume

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: Image axes point to superior, posterior and left: slices from the feet up, each as radiologists
#: look at it.
_AXES = "SPL"
_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, kw_only=True)
class VolumeRecipe:
    """What is done to every scan of a data set.

    Attributes:
        size: Target (D, H, W) in voxels, D along the body's axis; None for D keeps the slices that
            there are.
        spacing: Voxel (D, H, W) in mm to resample to, before `size`; None keeps the scan's.
        crop: Keep only the bounding box of the voxels above 0 in any sequence.
        margin: Voxels around that box, as far as the scan goes.
        clip: Percentiles of a sequence's voxels other than 0 that become 0 and 1.
        stretch_depth: Scale D on its own, for slices whose thickness is unknown; else all axes
            shrink or grow alike, and the rest is padded with 0.
        template: NIfTI file that every scan is registered to.
        registration: "rigid" or "affine".

    Raises `UserError` for invalid values.
    """

    size: tuple[int | None, int, int]
    spacing: tuple[float, float, float] | None = None
    crop: bool = True
    margin: int = 0
    clip: tuple[float, float] = (0.5, 99.5)
    stretch_depth: bool = False
    template: Path | None = None
    registration: str = "affine"

    def __post_init__(self) -> None:
        depth, *plane = self.size
        if min(plane) < 1 or (depth is not None and depth < 1):
            raise UserError(f"a volume's size is at least 1 along each axis, not {self.size}.")
        if self.spacing and not all(0 < width < math.inf for width in self.spacing):
            raise UserError(f"spacing is a width in mm above 0, not {self.spacing}.")
        if self.margin < 0:
            raise UserError(f"margin is a number of voxels, 0 or more, not {self.margin}.")
        if not 0 <= self.clip[0] < self.clip[1] <= 100:
            raise UserError(f"clip is two percentiles, the lower first, not {self.clip}.")
        if self.registration not in ("rigid", "affine"):
            raise UserError(f"registration is 'rigid' or 'affine', not {self.registration!r}.")
        if self.template and not self.template.is_file():
            raise UserError(f"{self.template}: no such template. Give a NIfTI file.")


@dataclass(frozen=True, kw_only=True)
class PreparedVolume:
    """A scan on its final grid.

    Attributes:
        image: (C, D, H, W) float32 in [0, 1]; channels in the order of the sequences. Slice d is
            `image[:, d]`; d runs from inferior to superior, rows from anterior to posterior and
            columns from the patient's right to left, as far as the affine is true.
        mask: (1, D, H, W) uint8 with the values that it had; None where there was none.
        notes: As `Sample.notes`.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()


def apply(
    recipe: VolumeRecipe, volumes: Mapping[str, Volume], mask: NDArray[np.uint8] | None = None
) -> PreparedVolume:
    """Register, orient, resample, crop, scale to [0, 1] and resize, in this order.

    Images are interpolated linearly (averaged where they shrink to `size`), masks by the nearest
    voxel. The box of the crop is common to all; percentiles are each sequence's own.

    Args:
        recipe: What to do.
        volumes: Sequence to its volume, at least one. Those on another grid than the first are
            resampled onto it by their affines, 0 where they do not reach.
        mask: (X, Y, Z) on the first volume's grid.

    Raises:
        ValueError: for a mask of another shape, and for scans that cannot be registered; the text
            is the end of a sentence about the file.
        UserError: when the recipe wants registration and SimpleITK is not installed, or the
            template cannot be read.
    """
    from monai.transforms.utils import generate_spatial_bounding_box

    first = next(iter(volumes.values()))
    if mask is not None and mask.shape != first.values.shape:
        raise ValueError(f"the mask has {mask.shape} voxels, its scan {first.values.shape}")
    if recipe.template is not None:
        from trustsweep.data_pipelines.preprocess.registration import to_template

        volumes, mask = to_template(recipe.template, volumes, mask, model=recipe.registration)
    image, labels = _on_one_grid(recipe, volumes, mask)
    if recipe.crop and image.any():
        low, high = generate_spatial_bounding_box(image, margin=recipe.margin)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        image = image[:, *box]
        labels = labels if labels is None else labels[:, *box]
    scaled, notes = _scaled(image, tuple(volumes), recipe.clip)
    return PreparedVolume(
        image=np.clip(_resized(recipe, scaled, labels=False), 0, 1),
        mask=None if labels is None else _resized(recipe, labels, labels=True).astype(np.uint8),
        notes=notes,
    )


def _on_one_grid(
    recipe: VolumeRecipe, volumes: Mapping[str, Volume], mask: NDArray[np.uint8] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The sequences (C, D, H, W) and the mask (1, D, H, W), oriented and resampled."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Orientation, ResampleToMatch, Spacing

    def placed(values: NDArray[np.float32] | NDArray[np.uint8], affine: Any) -> MetaTensor:
        return MetaTensor(np.ascontiguousarray(values, np.float32)[None], affine=affine)

    def finished(tensor: MetaTensor, mode: str) -> NDArray[np.float32]:
        turned = Orientation(axcodes=_AXES, labels=_LABELS)(tensor)
        if recipe.spacing is not None:
            turned = Spacing(recipe.spacing, mode=mode, dtype=np.float32)(turned)
        return np.asarray(turned, np.float32)

    grids = [placed(volume.values, volume.affine) for volume in volumes.values()]
    match = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=np.float32)
    matched = [grid if _same(grid, grids[0]) else match(grid, grids[0]) for grid in grids]
    image = MetaTensor(
        torch.cat([torch.as_tensor(np.asarray(m)) for m in matched]), affine=grids[0].affine
    )
    if mask is None:
        return finished(image, "bilinear"), None
    return finished(image, "bilinear"), finished(placed(mask, grids[0].affine), "nearest")


def _same(one: MetaTensor, other: MetaTensor) -> bool:
    """Whether two tensors lie on one grid, to a hundredth of a millimetre."""
    return one.shape == other.shape and bool((one.affine - other.affine).abs().max() < 1e-2)


def _scaled(
    image: NDArray[np.float32], names: tuple[str, ...], clip: tuple[float, float]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Each sequence from its percentiles to [0, 1]; one without contrast becomes 0."""
    out = np.zeros_like(image)
    notes = []
    for sequence, scaled, name in zip(image, out, names, strict=True):
        voxels = sequence[sequence != 0]
        low, high = np.percentile(voxels, clip) if voxels.size else (0.0, 0.0)
        if high > low:
            scaled[...] = np.clip((sequence - low) / (high - low), 0, 1)
        else:
            notes.append(f"images have a {name} of one value alone; set to 0")
    return out, tuple(notes)


def _resized(
    recipe: VolumeRecipe, values: NDArray[np.float32], *, labels: bool
) -> NDArray[np.float32]:
    """(C, D, H, W) at the recipe's size: scaled as a whole, the rest padded with 0."""
    import torch
    from monai.transforms import Resize, ResizeWithPadOrCrop

    shape = np.array(values.shape[1:])
    target = np.array([recipe.size[0] or shape[0], *recipe.size[1:]])
    ratio = target / shape
    if recipe.size[0] is None or recipe.stretch_depth:
        ratio[1:] = ratio[1:].min()
    else:
        ratio[:] = ratio.min()
    scaled = np.clip(np.rint(shape * ratio).astype(int), 1, target)
    # Averaging alone would repeat voxels where an axis grows, interpolating skip some where it
    # shrinks: hence first the one, then the other.
    steps = (
        [(scaled, "nearest-exact")]
        if labels
        else [(np.minimum(shape, scaled), "area"), (scaled, "trilinear")]
    )
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    for size, mode in steps:
        tensor = Resize(size.tolist(), mode=mode)(tensor)
    return np.asarray(ResizeWithPadOrCrop(target.tolist())(tensor), np.float32)
