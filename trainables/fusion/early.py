"""Early fusion: one network on everything concatenated."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Modality
from trustsweep.trainables.fusion.base import Fused, FusionMethod, FusionNetwork
from trustsweep.trainables.fusion.encoders import Encoder


class EarlyFusion(FusionMethod):
    """Concatenates the modalities' raw values; deterministic.

    Values of one kind that share a grid (the channels of an image, the entries of a table, the
    channels of a series) are one input of one encoder. An image and a table have no common grid, so
    the groups' features are concatenated after their encoders. What is absent is at its mean value
    after standardising (images) or marked as missing (tables, series), and says so in flags, one
    for each modality, that join the features.

    Config: that of `FusionMethod`.
    """

    def network(self) -> FusionNetwork:
        groups: dict[str, list[int]] = {}
        for number, modality in enumerate(self.modalities):
            groups.setdefault(modality.column, []).append(number)
        merged = tuple(self._merged(members) for _, members in sorted(groups.items()))
        return EarlyNetwork(groups, self.make_encoders(merged), self)

    def _merged(self, members: list[int]) -> Modality:
        """The modalities of one column as one, in their order."""
        first, *others = (self.modalities[number] for number in members)
        # Without indices a modality is the whole column, and so the only one of it.
        indices = first.indices + tuple(i for other in others for i in other.indices)
        return dataclasses.replace(first, name=first.column, indices=indices)


class EarlyNetwork(FusionNetwork):
    """See `EarlyFusion`; an encoder for each group."""

    def __init__(
        self, groups: dict[str, list[int]], encoders: dict[str, Encoder], method: EarlyFusion
    ) -> None:
        super().__init__(encoders)
        self._members = [members for _, members in sorted(groups.items())]
        length = len(encoders) * method.dim + len(method.modalities)
        self.head = nn.Sequential(
            nn.Linear(length, method.dim),
            nn.GELU(),
            nn.Dropout(method.dropout),
            nn.Linear(method.dim, method.outputs),
        )

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        joined = tuple(_joined([values[i] for i in members]) for members in self._members)
        features = self.features(joined)[0].flatten(1)
        return Fused(self.head(torch.cat([features, present.to(features)], dim=1))[None])


def _joined(values: list[Tensor]) -> Tensor:
    """Images (B, C, *spatial) and tables (B, F) in axis 1; of series value, mask and delay."""
    if values[0].ndim != 3:
        return torch.cat(values, dim=1)
    parts = [value.chunk(3, dim=2) for value in values]
    return torch.cat([torch.cat(part, dim=2) for part in zip(*parts, strict=True)], dim=2)
