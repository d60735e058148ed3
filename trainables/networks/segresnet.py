"""MONAI's SegResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.nets import SegResNet
from torch import nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import LinearUpsample, PadToMultiple, Smooth, group_norm
from trustsweep.trainables.registry import NetworkKind

#: Residual blocks at each resolution of the encoder and of the decoder, as published.
_DOWN, _UP = (1, 2, 2, 4), (1, 1, 1)


class SegResNetFamily(NetworkFamily):
    """MONAI's SegResNet: a deep residual encoder, a light decoder.

    Myronenko 2018, arXiv 1810.11654. It interpolates where others convolve transposed, here with
    `LinearUpsample`, whose gradient repeats on a GPU. Its finest level has all of the image's
    pixels, and its output is smoothed by one.

    Config: `width`, channels at the finest level, doubled at each coarser one.
    """

    kind: ClassVar[NetworkKind] = "pixels"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        net = SegResNet(
            spatial_dims=self.dims,
            init_filters=self.width,
            in_channels=self.manifest.channels,
            out_channels=outputs,
            norm=group_norm(self.width),
            blocks_down=_DOWN,
            blocks_up=_UP,
        )
        for upsample in net.up_samples:
            upsample[1] = LinearUpsample()
        return [PadToMultiple(net, 2 ** len(_UP)), Smooth()]
