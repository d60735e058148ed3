"""A head like DeepLabV3's on the classifier's encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.fcn import EncoderFamily
from trustsweep.trainables.networks.layers import group_norm


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling of the coarsest features, then a 1 x 1 convolution.

    Four branches, a 1 x 1 convolution and three of 3 x 3 with dilations d, 2d and 3d, and the mean
    over the image, are joined, mixed and scored. The branch of the mean has one pixel, and no
    normalisation: of a channel alone nothing would be left.
    """

    def __init__(self, dims: int, channels: int, dilation: int, outputs: int) -> None:
        super().__init__()

        def convolution(before: int, size: int, rate: int = 1) -> nn.Module:
            return Convolution(
                dims, before, channels, kernel_size=size, dilation=rate, act="relu",
                norm=group_norm(channels), bias=False,
            )  # fmt: skip

        rates = [dilation * step for step in (1, 2, 3)]
        self.branches = nn.ModuleList(
            [convolution(channels, 1), *(convolution(channels, 3, rate) for rate in rates)]
        )
        self.whole = nn.Sequential(nn.Linear(channels, channels), nn.ReLU())
        self.mix = convolution(5 * channels, 1)
        self.score = Conv["CONV", dims](channels, outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The encoder's features, the coarsest last, to (B, outputs) on the coarsest grid."""
        last = features[-1]
        mean = self.whole(last.flatten(2).mean(dim=2))
        mean = mean.view(*mean.shape, *[1] * (last.ndim - 2)).expand_as(last)
        joined = torch.cat([*(branch(last) for branch in self.branches), mean], dim=1)
        scores: Tensor = self.score(self.mix(joined))
        return scores


class DeepLabV3Family(EncoderFamily):
    """Dilated convolutions at several rates on an encoder, as in DeepLabV3.

    Chen et al. 2017, arXiv 1706.05587. Unlike there, no unit of the encoder is dilated: with
    `depth` 3, the default, it ends at one in eight pixels anyway.

    Config: `width`, `depth`, `convolutions` as for `FcnFamily`; `dilation`, the lowest of three
    rates d, 2d and 3d, in pixels of the coarsest features.
    """

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.dilation = self.whole("dilation")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        head = AtrousPyramid(self.dims, self.widths[-1], self.dilation, outputs)
        return [*self.units(), head]
