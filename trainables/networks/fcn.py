"""A fully convolutional network on the classifier's encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import Pad, cropped, resized
from trustsweep.trainables.networks.resnet import residual_units
from trustsweep.trainables.registry import NetworkKind


class EncoderFamily(NetworkFamily):
    """A head on the residual units of a `ResNetFamily` without units of full size.

    The units bear the names that they have there, so that `encoder` may start from a classifier of
    the same width, depth and convolutions.
    """

    kind: ClassVar[NetworkKind] = "pixels"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")
        self.depth = self.whole("depth")
        self.convolutions = self.whole("convolutions", high=2)

    @property
    def widths(self) -> list[int]:
        """Channels of the units, the finest first."""
        return [self.width * 2**level for level in range(self.depth)]

    def units(self) -> nn.Sequential:
        return residual_units(
            self.dims,
            self.manifest.channels,
            self.width,
            self.depth,
            convolutions=self.convolutions,
        )

    def build(self, outputs: int) -> nn.Module:
        return EncoderNetwork(*super().build(outputs).children())


class EncoderNetwork(nn.Sequential):
    """Standardise, units and a head, which is given the features of every unit, the finest first.

    The image is padded for units that halve it; what the head gives lies on the first unit's grid,
    or a coarser one, and is interpolated.
    """

    def forward(self, image: Tensor) -> Tensor:
        standardise, *units, head = self
        padded = Pad(2 ** len(units))(standardise(image))
        features = [padded]
        for unit in units:
            features.append(unit(features[-1]))
        output = resized(head(features[1:]), padded.shape[2:])
        return cropped(output, image.shape[2:])


class Scores(nn.Linear):
    """Scores of each unit's features, added up from coarse to fine.

    One linear layer, of which each unit has its share of columns: as it commutes with
    interpolation, this is what it gives for all features interpolated to the finest grid and
    joined.
    """

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__(sum(widths), outputs)
        self._widths = list(widths)

    def forward(self, features: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """(B, widths[i], *spatial / 2^i) to (B, outputs, *spatial)."""
        shares = self.weight.split(self._widths, dim=1)
        total: Tensor | None = None
        for feature, weight in zip(reversed(features), reversed(shares), strict=True):
            score = torch.einsum("bc...,oc->bo...", feature, weight)
            total = score if total is None else resized(total, feature.shape[2:]) + score
        assert total is not None
        return total + self.bias.view(-1, *[1] * (total.ndim - 2))


class FcnFamily(EncoderFamily):
    """Fully convolutional network: scores of every unit of an encoder, added up.

    Long et al. 2015, arXiv 1411.4038. Scores are interpolated, where the paper has transposed
    convolutions that begin as that.

    Config: `width` and `depth`, channels of the first unit and units, `convolutions` (1 or 2) of
    each: those of the classifier's `resnet`.
    """

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        return [*self.units(), Scores(self.widths, outputs)]
