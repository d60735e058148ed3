"""Random views of training samples: images and masks together, anew in every epoch.

Resampling is MONAI's `AffineTransform`, which takes a matrix for each image of a batch; what is
drawn depends on (seed, epoch, sample_id) alone, not on the batch, the worker or a restart.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import IMAGE, present_channels
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.schema import Batch, Manifest

#: What images may be mirrored along. No anatomy is assumed: a chest has its heart on the left, so
#: nothing is mirrored unless a study asks for it.
FLIPS = ("none", "left-right", "all")
#: The most of each change at strength 1: degrees; share of each side; factors; share of [0, 1].
_ROTATION, _SHIFT, _ZOOM = 20.0, 0.1, 1.25
_GAMMA, _CONTRAST, _BRIGHTNESS = 1.5, 1.5, 0.15
#: Streams of draws.
_GEOMETRY, _MIRROR, _INTENSITY = range(3)


class Augmentation:
    """Small rotations, shifts and zooms, mirror images where allowed, and changes of intensity.

    With strength s, uniform in their ranges: rotation by up to 20 s degrees (of volumes in the
    plane of their slices, whose thickness may be another than the width of a pixel), a shift by up
    to 0.1 s of each side, zoom by up to 1.25^s either way, all in one resampling (linear; nearest
    for masks; edges are repeated); then y = ½ + c (x^g − ½) + b with gamma g and contrast c up to
    1.5^s either way and brightness b up to 0.15 s, clipped to [0, 1]. Each axis of `flips` is
    mirrored with probability ½. Channels of absent modalities keep their values.

    Args:
        strength: s in [0, 1]; 0 changes nothing.
        flips: One of `FLIPS`; "left-right" is the last axis, "all" are all of them.
        seed: The trial's.
        manifest: Of the batches' data set.

    Raises:
        UserError: for an invalid strength or flips.
    """

    def __init__(self, strength: float, flips: str, seed: int, *, manifest: Manifest) -> None:
        if not 0 <= strength <= 1:
            raise UserError(f"config: 'augmentation' is {strength}, outside [0, 1].")
        if flips not in FLIPS:
            known = ", ".join(FLIPS)
            raise UserError(
                f"config: 'flips' is {flips!r}{nearest(str(flips), list(FLIPS))} Known: {known}."
            )
        self._strength = float(strength)
        self._flips = flips
        self._seed = seed
        self._manifest = manifest

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Another view of each sample; tables and series stay as they are."""
        if not (self._strength and len(batch)):
            return batch
        seeds = draw_seeds(batch.sample_id, "augmentation", self._seed, epoch)
        more = {
            column: self._view(image, seeds, column, batch)
            for column, image in batch.more_images.items()
        }
        mask = batch.mask
        if mask is not None:
            mask = self._resampled(mask, seeds, "nearest")
        image = self._view(batch.image, seeds, IMAGE, batch)
        return dataclasses.replace(batch, image=image, mask=mask, more_images=more)

    def _view(self, image: Tensor, seeds: Tensor, column: str, batch: Batch) -> Tensor:
        if not image.numel():
            return image
        moved = self._resampled(image, seeds, "bilinear")
        present = present_channels(batch, self._manifest, column, image.shape[1])
        changed = self._intensity(moved, seeds)
        if present is None:
            return changed
        present = present.to(image.device).view(*present.shape, *(1,) * (image.ndim - 2))
        return torch.where(present, changed, image)

    def _resampled(self, image: Tensor, seeds: Tensor, mode: str) -> Tensor:
        matrices = self._matrices(seeds.to(image.device), image.shape[2:])
        # Loading MONAI takes seconds, which most processes and most trials can do without.
        from monai.networks.layers import AffineTransform

        # Not its `zero_centered`, which takes a pixel for wider than it is (by n / (n − 1)).
        resample = AffineTransform(mode=mode, padding_mode="border", align_corners=False)
        moved: Tensor = resample(image.float(), matrices)
        return moved.to(image.dtype)

    def _matrices(self, seeds: Tensor, size: torch.Size) -> Tensor:
        """(B, d, d + 1) maps of indices: where each pixel of the view comes from."""
        dims, s = len(size), self._strength
        angle, zoom, *shift = random.symmetric(seeds, (2 + dims,), _GEOMETRY).unbind(1)
        angle = angle * (s * math.radians(_ROTATION))
        matrix = torch.eye(dims, device=seeds.device).repeat(len(seeds), 1, 1)
        cos, sin = angle.cos(), angle.sin()
        matrix[:, -2, -2], matrix[:, -2, -1] = cos, -sin
        matrix[:, -1, -2], matrix[:, -1, -1] = sin, cos
        matrix = matrix * torch.exp(zoom * (s * math.log(_ZOOM)))[:, None, None]
        mirrored = random.uniform(seeds, (dims,), _MIRROR) < 0.5
        allowed = {"none": 0, "left-right": 1, "all": dims}[self._flips]
        mirrored[:, : dims - allowed] = False
        matrix = matrix * torch.where(mirrored, -1.0, 1.0)[:, None, :]
        sides = torch.tensor(size, device=seeds.device)
        centre = (sides - 1) / 2
        offset = centre - matrix @ centre + torch.stack(shift, 1) * sides * (s * _SHIFT)
        return torch.cat([matrix, offset[..., None]], dim=2)

    def _intensity(self, image: Tensor, seeds: Tensor) -> Tensor:
        s = self._strength
        draws = random.symmetric(seeds.to(image.device), (3,), _INTENSITY)
        gamma, contrast, brightness = draws.view(-1, 3, *(1,) * (image.ndim - 1)).unbind(1)
        bent = image.clamp(0, 1) ** torch.exp(gamma * (s * math.log(_GAMMA)))
        spread = (bent - 0.5) * torch.exp(contrast * (s * math.log(_CONTRAST))) + 0.5
        return (spread + brightness * (s * _BRIGHTNESS)).clamp(0, 1)
