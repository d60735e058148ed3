"""The U-Net with a decoder that leaves no grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.blocks import Convolution
from monai.networks.nets import UNet
from torch import nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import LinearUpsample, PadToMultiple
from trustsweep.trainables.registry import NetworkKind

#: Resolutions of the U-Net. On one CPU core a 64 x 64 epoch of 320 images takes 0.5, 0.6 and 0.7 s
#: with 3, 4 and 5 at width 16; on discs among distractors they reach Dice 0.74, 0.83 and 0.84 in
#: eight epochs (measured with transposed convolutions). Residual units double the time (1.0 to
#: 1.5 s) and gain nothing there.
LEVELS = 4


class SmoothUNet(UNet):
    """MONAI's U-Net, with a convolution and linear interpolation for each transposed convolution.

    A transposed convolution of stride 2 adds more terms at every other pixel, which leaves a grid
    of 2 pixels in the output, trained or not (Odena et al. 2016, "Deconvolution and checkerboard
    artifacts", Distill). Linear interpolation has a zero at that frequency. It comes after the
    convolution, at the coarse resolution: parameters and time are those of MONAI's network,
    whereas convolving at the fine one takes three times as long. Every stride is 2, or building it
    raises ValueError.
    """

    def _get_up_layer(
        self, in_channels: int, out_channels: int, strides: int, is_top: bool
    ) -> nn.Module:
        if strides != 2:
            raise ValueError(f"a stride of {strides}: the decoder doubles")
        convolution = Convolution(
            self.dimensions,
            in_channels,
            out_channels,
            kernel_size=self.up_kernel_size,
            act=self.act,
            norm=self.norm,
            dropout=self.dropout,
            bias=self.bias,
            conv_only=is_top,
            adn_ordering=self.adn_ordering,
        )
        return nn.Sequential(convolution, LinearUpsample())


class UNetFamily(NetworkFamily):
    """MONAI's U-Net of four resolutions, with interpolation for transposed convolutions.

    Ronneberger et al. 2015, arXiv 1505.04597; instance normalisation.

    Config: `width`, channels at the finest level, doubled at each coarser one.
    """

    kind: ClassVar[NetworkKind] = "pixels"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        net = SmoothUNet(
            spatial_dims=self.dims,
            in_channels=self.manifest.channels,
            out_channels=outputs,
            channels=[self.width * 2**level for level in range(LEVELS)],
            strides=[2] * (LEVELS - 1),
            norm=("INSTANCE", {"affine": True}),
        )
        return [PadToMultiple(net, 2 ** (LEVELS - 1))]
