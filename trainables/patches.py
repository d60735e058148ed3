"""Images and volumes too large for a network at once: it sees patches, and what it gives for
windows that overlap is blended to the output of the whole image.

What is blended is the network's raw output, before any sigmoid, softmax or softplus. So scores and
uncertainty maps of a pixel come from one and the same blended output; scores stay in log space,
where nothing saturates (the mean of log-odds, rather than of probabilities that may have been
rounded to 0 or 1); and an attack follows the gradient of the very prediction that is judged.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.settings import number, whole

#: Deviation of a window's Gaussian weights in its sides, and the least weight: MONAI's own.
_SIGMA, _LEAST = 0.125, 1e-3
#: A space's defaults, for runs from before there were patches.
_DEFAULTS = {"patch_size": 0, "patch_overlap": 0.5, "patch_foreground": 0.5}


@dataclass(frozen=True)
class Patches:
    """How images are cut into patches; those that are no larger stay whole along that side.

    Attributes:
        size: Of a patch along every side, in pixels.
        overlap: Share of a side that neighbouring windows have in common, in [0, 1).
        foreground: How often a patch of a training image lies around foreground, in [0, 1].
    """

    size: int
    overlap: float
    foreground: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Of `patch_size`, `patch_overlap` and `patch_foreground`; None for a size of 0.

        Raises:
            UserError: for an impossible value.
        """
        config = {**_DEFAULTS, **config}
        size = whole(config, "patch_size", low=0)
        overlap = number(config, "patch_overlap", low=0, high=0.9)
        foreground = number(config, "patch_foreground", low=0, high=1)
        return cls(size, overlap, foreground) if size else None

    def stitched(self, network: nn.Module, image: Tensor) -> Tensor:
        """The network's output for a whole image: the weighted mean over all windows.

        Windows and weights are those of MONAI's `sliding_window_inference` with Gaussian weights,
        which are largest in a window's middle, so that no seam is left where one ends. Where
        gradients are asked for, what is inside a window is computed once more for its own gradient
        (Chen et al. 2016, arXiv 1604.06174): memory grows with a window, not with the image.

        Args:
            network: (B, C, *spatial) to (B, K, *spatial).
            image: (B, C, *spatial).

        Returns:
            (B, K, *spatial), at least float32; of an image of one window what the network gives.
        """
        spatial = image.shape[2:]
        windows = list(self.windows(spatial))
        if len(windows) == 1:
            output: Tensor = network(image)
            return output
        weight = self.weights(spatial).to(image.device)
        total: Tensor | None = None
        seen = torch.zeros(spatial, device=image.device)
        for window in windows:
            index: tuple[Any, ...] = (..., *window)
            part = image[index]
            found: Tensor
            if torch.is_grad_enabled():
                found = checkpoint(network, part, use_reentrant=False)
            else:
                found = network(part)
            found = found.to(torch.promote_types(found.dtype, torch.float32))
            if total is None:
                total = found.new_zeros(*found.shape[:2], *spatial)
            total[index] += weight * found
            seen[index] += weight
        assert total is not None
        return total / seen

    def windows(self, spatial: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """Every window of an image of that size, row by row; the last of a side ends with it."""
        sides = []
        for side, length in zip(spatial, self.shape(spatial), strict=True):
            step = max(1, int(length * (1 - self.overlap)))
            starts = [*range(0, side - length, step), side - length]
            sides.append([slice(start, start + length) for start in starts])
        yield from itertools.product(*sides)

    def shape(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Of a window of an image of that size."""
        return tuple(min(self.size, side) for side in spatial)

    def weights(self, spatial: Sequence[int]) -> Tensor:
        """Of each pixel of a window, in (0, 1]."""
        weight = torch.ones(())
        for length in self.shape(spatial):
            place = torch.arange(length) - (length - 1) / 2
            along = torch.exp(-(place**2) / (2 * (_SIGMA * length) ** 2))
            weight = weight[..., None] * along
        return weight.clamp(min=max(float(weight.min()), _LEAST))

    def sample(self, batch: Batch, seeds: Tensor) -> Batch:
        """One patch of each sample to train on, image and mask alike.

        With probability `foreground` it lies around a pixel of a class of the foreground, or
        region, each of those present alike; otherwise, and where there is none, anywhere.

        Args:
            seeds: (B,) integers, fresh for every epoch: a sample's patch depends on its own alone.
        """
        spatial = batch.image.shape[2:]
        shape = self.shape(spatial)
        if shape == tuple(spatial):
            return batch
        images, masks = [], []
        for row, seed in enumerate(seeds.tolist()):
            mask = None if batch.mask is None else batch.mask[row]
            index: tuple[Any, ...] = (..., *self._place(spatial, shape, mask, seed))
            images.append(batch.image[row][index])
            if mask is not None:
                masks.append(mask[index])
        mask = torch.stack(masks) if masks else None
        return dataclasses.replace(batch, image=torch.stack(images), mask=mask)

    def _place(
        self, spatial: Sequence[int], shape: Sequence[int], mask: Tensor | None, seed: int
    ) -> list[slice]:
        draws = torch.Generator().manual_seed(seed)
        chance, which, *place = torch.rand(3 + len(spatial), generator=draws, dtype=torch.float64)
        pixel, *anywhere = place
        starts = [int(p * (n - m + 1)) for p, n, m in zip(anywhere, spatial, shape, strict=True)]
        if mask is not None and chance < self.foreground:
            # Of one channel, its classes beside the background; of several, the regions.
            one = len(mask) == 1
            classes = [c for c in mask.unique().tolist() if c > 0] if one else range(len(mask))
            members = [mask[0] == c if one else mask[int(c)] > 0.5 for c in classes]
            present = [member for member in members if bool(member.any())]
            if present:
                pixels = present[int(which * len(present))].nonzero()
                centre = pixels[int(pixel * len(pixels))].tolist()
                starts = [
                    min(max(c - m // 2, 0), n - m)
                    for c, n, m in zip(centre, spatial, shape, strict=True)
                ]
        return [slice(start, start + m) for start, m in zip(starts, shape, strict=True)]
