"""MONAI's DenseNet, with its normalisation and its strides changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.layers.factories import Conv
from monai.networks.nets import DenseNet
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import Pad, group_norm
from trustsweep.trainables.networks.resnet import pooled
from trustsweep.trainables.registry import NetworkKind

#: Channels of a layer's 1 x 1 convolution, in growths; MONAI's own.
_BOTTLENECK = 4


class Halve(nn.Module):
    """The mean of each 2 x 2 (x 2) pixels; sides are even.

    What average pooling gives, whose gradient of volumes a GPU adds in an order that changes from
    run to run.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) to (B, C, *spatial / 2)."""
        for dim in range(2, features.ndim):
            features = features.unflatten(dim, (-1, 2)).mean(dim=dim + 1)
        return features


class DenseNetFamily(NetworkFamily):
    """MONAI's DenseNet: each layer sees all those before it in its block.

    Huang et al. 2017, arXiv 1608.06993. Group normalisation instead of batch normalisation; the
    first pooling is a mean.

    Config: `width`, channels of the first convolution; `growth`, channels that each layer adds;
    `blocks`, each of which but the last halves the image after it, and `layers` of each; `stem` (1,
    2 or 4), by how much the image is made smaller before the first: 1 as published for 32 pixels, 4
    for 224; `dropout`, the probability that a pooled feature is left out in training, in [0, 1].
    """

    kind: ClassVar[NetworkKind] = "images"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")
        self.growth = self.whole("growth")
        self.blocks = self.whole("blocks")
        self.layers_of_block = self.whole("layers")
        self.stem = self.whole("stem", high=4)
        if self.stem == 3:
            raise UserError("config: 'stem' is 3; choose 1, 2 or 4.")
        self.dropout = self.share("dropout")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        normalised, last = self._channels()
        features = DenseNet(
            spatial_dims=self.dims,
            in_channels=self.manifest.channels,
            out_channels=outputs,
            init_features=self.width,
            growth_rate=self.growth,
            block_config=[self.layers_of_block] * self.blocks,
            bn_size=_BOTTLENECK,
            norm=group_norm(*normalised),
        ).features
        features.pool0 = Halve() if self.stem == 4 else nn.Identity()
        if self.stem == 1:
            first = Conv["CONV", self.dims](
                self.manifest.channels, self.width, 3, padding=1, bias=False
            )
            nn.init.kaiming_normal_(first.weight)
            features.conv0 = first
        for name, module in features.named_children():
            if name.startswith("transition"):
                module.pool = Halve()
        factor = self.stem * 2 ** (self.blocks - 1)
        return [Pad(factor), features, nn.ReLU(), *pooled(self.dims, last, outputs, self.dropout)]

    def _channels(self) -> tuple[list[int], int]:
        """Of everything that is normalised, and at the end."""
        at = self.width
        normalised = [at, _BOTTLENECK * self.growth]
        for block in range(self.blocks):
            normalised += [at + layer * self.growth for layer in range(self.layers_of_block + 1)]
            at += self.layers_of_block * self.growth
            if block < self.blocks - 1:
                at //= 2
        return normalised, at
