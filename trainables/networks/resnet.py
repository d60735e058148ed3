"""Residual networks, and the encoders of other networks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.blocks import ResidualUnit
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets.resnet import ResNetBlock
from torch import nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import group_norm
from trustsweep.trainables.registry import NetworkKind


class ResNetFamily(NetworkFamily):
    """Residual units that halve the image, the mean over pixels, a linear layer.

    He et al. 2016, arXiv 1512.03385.

    Config: `width`, channels of the first unit, doubled by each further one; `depth`, units;
    `convolutions` (1 or 2) of each, `full_size`, how many of them come before the first that halves
    the image; `dropout`, the probability that a pooled feature is left out in training, in [0, 1].
    """

    kind: ClassVar[NetworkKind] = "images"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")
        self.depth = self.whole("depth")
        self.convolutions = self.whole("convolutions", high=2)
        self.full_size = self.whole("full_size", low=0, high=self.depth)
        self.dropout = self.share("dropout")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        units = residual_units(
            self.dims,
            self.manifest.channels,
            self.width,
            self.depth,
            convolutions=self.convolutions,
            full_size=self.full_size,
        )
        features = self.width * 2 ** (self.depth - 1)
        return [*units, *pooled(self.dims, features, outputs, self.dropout)]


def pooled(dims: int, features: int, outputs: int, dropout: float) -> list[nn.Module]:
    """The end of a network for images: the mean over pixels, dropout, a linear layer."""
    pool = Pool["ADAPTIVEAVG", dims](1)
    return [pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, outputs)]


def residual_units(
    dims: int,
    channels: int,
    width: int,
    depth: int,
    *,
    convolutions: int = 1,
    full_size: int = 0,
) -> nn.Sequential:
    """The body of a `ResNetFamily`: images to features of width · 2^(depth − 1) channels.

    Args:
        dims: Spatial dimensions, 2 or 3.
        channels: Of the images.
        width: Channels of the first unit; doubled by each further one.
        depth: Units.
        convolutions: Of each unit beside its shortcut: 1 (MONAI's `ResidualUnit`), or 2 (the basic
            block of He et al. 2016, arXiv 1512.03385, MONAI's `ResNetBlock`).
        full_size: Of the units, the first that do not halve the image, 0 to `depth`.
    """
    norm = group_norm(width)
    widths = [channels, *(width * 2**level for level in range(depth))]
    strides = [1 if unit < full_size else 2 for unit in range(depth)]
    units: list[nn.Module] = []
    for (before, after), stride in zip(itertools.pairwise(widths), strides, strict=True):
        unit: nn.Module
        if convolutions == 1:
            unit = ResidualUnit(
                dims, before, after, strides=stride, subunits=1, act="relu", norm=norm
            )
        else:
            shortcut = nn.Sequential(
                Conv["CONV", dims](before, after, 1, stride=stride, bias=False),
                get_norm_layer(norm, dims, after),
            )
            unit = ResNetBlock(
                before, after, spatial_dims=dims, stride=stride, downsample=shortcut, norm=norm
            )
        units.append(unit)
    return nn.Sequential(*units)
