"""Networks that take images as the manifest describes them: (B, C, *spatial) in [0, 1]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.layers.factories import Pool
from monai.networks.nets import UNet
from torch import Tensor, nn

from data_pipelines.schema import Manifest

#: Resolutions of the U-Net. On one CPU core a 64 x 64 epoch of 320 images takes 0.5, 0.6 and 0.7 s
#: with 3, 4 and 5 at width 16; on discs among distractors they reach Dice 0.74, 0.83 and 0.84 in
#: eight epochs (measured with transposed convolutions). Residual units double the time (1.0 to
#: 1.5 s) and gain nothing there.
LEVELS = 4
#: Most groups of channels that are normalised apart (Wu & He 2018, arXiv 1803.08494, use 32).
_GROUPS = 8


class Standardise(nn.Module):
    """z-score per channel with the statistics of the train split, kept with the weights.

    A channel that never varies (deviation 0) is centred only.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int) -> None:
        super().__init__()
        shape = (1, -1, *([1] * spatial_dims))
        deviation = torch.tensor(std, dtype=torch.float32)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", deviation.view(shape))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class PadToMultiple(nn.Module):
    """Runs a network on images padded at their far edges to a multiple of `factor`, and crops.

    Edge values are repeated. At least two strides a side, as instance normalisation needs more than
    one pixel at the coarsest level.
    """

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        target = [max(2, -(-n // self.factor)) * self.factor for n in size]
        if list(size) == target:
            return self.network(image)
        # F.pad lists the last dimension first.
        pad = [p for n, t in zip(reversed(size), reversed(target), strict=True) for p in (0, t - n)]
        output = self.network(F.pad(image, pad, mode="replicate"))
        return output[(..., *(slice(n) for n in size))]


class LinearUpsample(nn.Module):
    """Doubles every spatial side by linear interpolation, in any number of dimensions.

    Gives what `F.interpolate(..., scale_factor=2, align_corners=False)` gives, as a product with a
    fixed matrix for each side: on a GPU the gradient of torch's own adds in an order that changes
    from run to run, and a trial must repeat to the bit.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) to (B, C, *(2 · spatial))."""
        for dim in range(2, features.ndim):
            unit = torch.eye(features.shape[dim], dtype=features.dtype, device=features.device)
            weights = F.interpolate(unit[None], scale_factor=2.0, mode="linear")[0]
            features = (features.movedim(dim, -1) @ weights).movedim(-1, dim)
        return features


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


def unet(manifest: Manifest, width: int, outputs: int) -> nn.Module:
    """A `SmoothUNet` for the manifest's images, 2-D or 3-D, standardising first.

    Instance normalisation, as it is the same in training and evaluation and keeps every sample
    independent of its batch: an attack on one image then never moves another.

    Args:
        width: Channels at the finest level; doubled at each of the `LEVELS` − 1 coarser ones.
        outputs: Output channels, at full resolution.
    """
    dims = manifest.spatial_dims
    net = SmoothUNet(
        spatial_dims=dims,
        in_channels=manifest.channels,
        out_channels=outputs,
        channels=[width * 2**level for level in range(LEVELS)],
        strides=[2] * (LEVELS - 1),
        norm=("INSTANCE", {"affine": True}),
    )
    return nn.Sequential(
        Standardise(manifest.mean, manifest.std, dims), PadToMultiple(net, 2 ** (LEVELS - 1))
    )


def resnet(manifest: Manifest, width: int, depth: int, outputs: int, dropout: float) -> nn.Module:
    """A residual network of MONAI's units for images of any size, 2-D or 3-D, standardising first.

    Each unit halves the image and holds one convolution beside its shortcut. On one CPU core an
    epoch of 500 images of 28 x 28 then takes 0.09 s at width 8 and depth 3; AUROC on PneumoniaMNIST
    is 0.977 after eight. A second convolution doubles the time and gives 0.978; not halving in the
    first unit doubles it again and gives 0.915.

    Group normalisation, as it keeps every sample independent of its batch (as in `unet`) and, other
    than instance normalisation, works down to a single pixel.

    Args:
        width: Channels of the first unit, at half the image's size; doubled by each further one.
        depth: Units.
        outputs: Raw outputs, (B, outputs).
        dropout: Probability that a pooled feature is left out in training, in [0, 1].
    """
    dims = manifest.spatial_dims
    head = [Pool["ADAPTIVEAVG", dims](1), nn.Flatten(), nn.Dropout(dropout)]
    return nn.Sequential(
        Standardise(manifest.mean, manifest.std, dims),
        *residual_units(dims, manifest.channels, width, depth),
        *head,
        nn.Linear(width * 2 ** (depth - 1), outputs),
    )


def residual_units(dims: int, channels: int, width: int, depth: int) -> nn.Sequential:
    """The body of `resnet`: images to features of width · 2^(depth − 1) channels.

    Args:
        dims: Spatial dimensions, 2 or 3.
        channels: Of the images.
        width, depth: As for `resnet`.
    """
    norm = ("GROUP", {"num_groups": math.gcd(width, _GROUPS)})
    widths = [channels, *(width * 2**level for level in range(depth))]
    return nn.Sequential(
        *(
            ResidualUnit(dims, before, after, strides=2, subunits=1, act="relu", norm=norm)
            for before, after in itertools.pairwise(widths)
        )
    )
