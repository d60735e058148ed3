"""What a corruption is.

MedMNIST-C (Di Salvo et al., arXiv 2406.17536) and common failures of MRI and of clinical records,
re-implemented in torch for whole batches. What a lens, a file format or a table does to an image
is done to a volume slice by slice, in its last two axes; blur, noise and fields take all axes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.suites import Five
from trustsweep.data_pipelines.needs import IMAGES, Needs
from trustsweep.data_pipelines.schema import Batch, Kind, Manifest

SEVERITIES = (1, 2, 3, 4, 5)
IMAGE, SERIES, TABULAR, PRESENT = "image", "series", "tabular", "present"

#: The parameter of a severity: a float, or a pair of them.
P = TypeVar("P")


class Corruption(ABC, Generic[P]):
    """A degradation of data, in five severities.

    A subclass sets `name`, the `severities` (the parameter at 1 to 5 where a suite lists none) and
    `touches`: the parts of a batch that it needs, among "image" (`more_images` as well), "series",
    "tabular" and "present" (several modalities). `needs` names the data that it can change,
    `symbol` its parameter; both stand in the line that registers it as well. `draws` is False for
    one that does the same to every sample.
    """

    name: ClassVar[str]
    severities: ClassVar[Five]
    touches: ClassVar[frozenset[str]]
    needs: ClassVar[Needs]
    symbol: ClassVar[str] = "parameter"
    draws: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, batch: Batch, parameter: P, seeds: Tensor, manifest: Manifest) -> Batch:
        """Corrupt a batch.

        Args:
            batch: Any samples; left as it is.
            parameter: How strongly; see the class for its meaning.
            seeds: (B,) long; the draws of a sample depend on its own seed alone, not on the
                batch it is in or on the device.
            manifest: Of the batch's data set.

        Returns:
            A new batch of the same samples, shapes, types and device.

        Raises:
            ValueError: for a number of seeds that is not the batch's.
        """

    @classmethod
    def acts_on(cls, manifest: Manifest) -> bool:
        """Whether data of this manifest have anything that the corruption changes."""
        return cls.needs.met(manifest)

    def _check_seeds(self, seeds: Tensor, count: int) -> None:
        if seeds.shape != (count,):
            raise ValueError(f"{self.name}: {tuple(seeds.shape)} seeds for {count} samples")


class ImageCorruption(Corruption[P]):
    """A corruption of pixels: of the image and of every further image alike."""

    touches = frozenset({IMAGE})
    needs = IMAGES

    def __call__(self, batch: Batch, parameter: P, seeds: Tensor, manifest: Manifest) -> Batch:
        """As `Corruption.__call__`. Channels of modalities that are absent stay as they are."""
        self._check_seeds(seeds, len(batch))
        more = {
            column: self._column(
                image, parameter, random.fork(seeds, column), column, batch, manifest
            )
            for column, image in batch.more_images.items()
        }
        image = self._column(batch.image, parameter, seeds, IMAGE, batch, manifest)
        return dataclasses.replace(batch, image=image, more_images=more)

    @abstractmethod
    def apply(self, image: Tensor, parameter: P, seeds: Tensor) -> Tensor:
        """The corrupted images.

        Args:
            image: (B, C, *spatial) float32 in [0, 1], two or three spatial dimensions.
            parameter: As for `__call__`.
            seeds: (B,) long, on the image's device.

        Returns:
            A new tensor of that shape; it may leave [0, 1], and is clamped afterwards.
        """

    def _column(
        self,
        image: Tensor,
        parameter: P,
        seeds: Tensor,
        column: str,
        batch: Batch,
        manifest: Manifest,
    ) -> Tensor:
        if not image.numel():
            return image
        # Mixed precision is the network's business: in bfloat16 a blur would also add noise.
        with torch.autocast(image.device.type, enabled=False):
            corrupted = self.apply(image.float(), parameter, seeds.to(image.device))
            corrupted = corrupted.clamp(0, 1).to(image.dtype)
        present = present_channels(batch, manifest, column, image.shape[1])
        if present is None:
            return corrupted
        present = present.to(image.device).view(*present.shape, *(1,) * (image.ndim - 2))
        return torch.where(present, corrupted, image)


def present_channels(batch: Batch, manifest: Manifest, column: str, channels: int) -> Tensor | None:
    """(B, C) bool, whether each channel of an image is present; None where all of them are."""
    if batch.present is None:
        return None
    present = torch.ones(len(batch), channels, dtype=torch.bool, device=batch.present.device)
    for number, modality in enumerate(manifest.modalities):
        if modality.kind is Kind.IMAGE and modality.column == column:
            indices = list(modality.indices or range(channels))
            present[:, indices] = (batch.present[:, number] > 0)[:, None]
    return present


def in_plane(image: Tensor) -> Tensor:
    """(B, C, H, W) as it is, (B, C, D, H, W) as (B, C·D, H, W): a view where possible."""
    return image.reshape(len(image), -1, *image.shape[-2:])
