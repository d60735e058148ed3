"""Missing modalities, as of a sequence that was not acquired or a table that was not sent."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import IMAGE, PRESENT, Corruption, present_channels
from trustsweep.data_pipelines.corruptions.observations import without_series, without_tabular
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.needs import MODALITIES
from trustsweep.data_pipelines.schema import Batch, Kind, Manifest


class ModalityDrop(Corruption[float]):
    """Each present modality goes missing with probability p, but never all that a sample has.

    Where all of a sample's modalities would go, the one with the largest draw stays. What goes is
    0 in `present`, in `severity` and in images, NaN in series and tables.
    """

    name = "modality-drop"
    severities = SUITES["clinical"][name]
    symbol = "p_miss"
    touches = frozenset({PRESENT})
    needs = MODALITIES

    def __call__(self, batch: Batch, parameter: float, seeds: Tensor, manifest: Manifest) -> Batch:
        self._check_seeds(seeds, len(batch))
        count = len(manifest.modalities)
        if not count or not len(batch):
            return batch
        present = (
            batch.image.new_ones(len(batch), count) if batch.present is None else batch.present
        )
        mask = present > 0
        draw = random.uniform(seeds.to(present.device), (count,)).masked_fill(~mask, -1)
        largest = torch.arange(count, device=draw.device) == draw.argmax(dim=1, keepdim=True)
        kept = mask & ((draw >= parameter) | largest)
        severity = None if batch.severity is None else batch.severity * kept
        batch = dataclasses.replace(batch, present=kept.to(present), severity=severity)
        batch = _without_images(batch, manifest)
        for kind, without in ((Kind.SERIES, without_series), (Kind.TABULAR, without_tabular)):
            values = batch.series if kind is Kind.SERIES else batch.tabular
            if values is not None:
                gone = _features(~kept, values.shape[-1], manifest, kind)
                shape = (len(batch), *(1,) * (values.ndim - 2), values.shape[-1])
                batch = without(batch, gone.view(shape).expand_as(values))
        return batch


def _without_images(batch: Batch, manifest: Manifest) -> Batch:
    def kept(image: Tensor, column: str) -> Tensor:
        if not image.numel():
            return image
        present = present_channels(batch, manifest, column, image.shape[1])
        if present is None:
            return image
        return image.masked_fill(~present.view(*present.shape, *(1,) * (image.ndim - 2)), 0)

    more = {column: kept(image, column) for column, image in batch.more_images.items()}
    return dataclasses.replace(batch, image=kept(batch.image, IMAGE), more_images=more)


def _features(gone: Tensor, count: int, manifest: Manifest, kind: Kind) -> Tensor:
    """(B, count) bool: the features of the modalities of a kind that are gone (B, M)."""
    features = torch.zeros(len(gone), count, dtype=torch.bool, device=gone.device)
    for number, modality in enumerate(manifest.modalities):
        if modality.kind is kind:
            indices = list(modality.indices or range(count))
            features[:, indices] |= gone[:, number, None]
    return features
