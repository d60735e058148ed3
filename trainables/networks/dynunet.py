"""MONAI's DynUNet, the network of nnU-Net, with a decoder that leaves no grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from monai.networks.blocks import Convolution
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import LinearUpsample, PadToMultiple, Smooth
from trustsweep.trainables.registry import NetworkKind


class SmoothDynUNet(DynUNet):
    """MONAI's DynUNet, with a 1 x 1 convolution and linear interpolation for each transposed one.

    See `SmoothUNet` for why. Every stride after the first is 2.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        # Holds the same layers by a second name, which a safetensors file refuses.
        del self.skip_layers

    def get_upsamples(self) -> nn.ModuleList:
        blocks: nn.ModuleList = super().get_upsamples()
        for block, channels in zip(blocks, reversed(self.filters[1:]), strict=True):
            convolution = Convolution(
                self.spatial_dims, channels, channels // 2, kernel_size=1, conv_only=True
            )
            block.transp_conv = nn.Sequential(convolution, LinearUpsample())
        return blocks

    def forward(self, image: Tensor) -> Tensor:
        skips = [self.input_block(image)]
        for block in self.downsamples:
            skips.append(block(skips[-1]))
        features = self.bottleneck(skips[-1])
        for block in self.upsamples:
            features = block(features, skips.pop())
        output: Tensor = self.output_block(features)
        return output


class DynUNetFamily(NetworkFamily):
    """MONAI's DynUNet: two convolutions at each resolution, as in nnU-Net.

    Isensee et al. 2021, Nature Methods 18. Its finest level has all of the image's pixels, and its
    output is smoothed by one.

    Config: `width`, channels at the finest level, doubled at each coarser one; `levels` (3 to 8),
    resolutions, each of which halves the image; `residual`, whether a level adds its input to its
    output.
    """

    kind: ClassVar[NetworkKind] = "pixels"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.width = self.whole("width")
        self.levels = self.whole("levels", low=3, high=8)
        self.residual = self.flag("residual")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        net = SmoothDynUNet(
            spatial_dims=self.dims,
            in_channels=self.manifest.channels,
            out_channels=outputs,
            kernel_size=[3] * self.levels,
            strides=[1] + [2] * (self.levels - 1),
            upsample_kernel_size=[2] * (self.levels - 1),
            filters=[self.width * 2**level for level in range(self.levels)],
            norm_name=("INSTANCE", {"affine": True}),
            res_block=self.residual,
        )
        return [PadToMultiple(net, 2 ** (self.levels - 1)), Smooth()]
