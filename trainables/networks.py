"""Networks that take images as the manifest describes them: (B, C, *spatial) in [0, 1]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import UNet
from monai.networks.nets.resnet import ResNetBlock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest

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


def resnet(
    manifest: Manifest,
    width: int,
    depth: int,
    outputs: int,
    dropout: float,
    *,
    convolutions: int = 1,
    full_size: int = 0,
) -> nn.Module:
    """A residual network for images of any size, 2-D or 3-D, standardising first.

    Group normalisation, as it keeps every sample independent of its batch (as in `unet`) and, other
    than instance normalisation, works down to a single pixel.

    Args:
        width: Channels of the first unit; doubled by each further one.
        depth: Units.
        outputs: Raw outputs, (B, outputs).
        dropout: Probability that a pooled feature is left out in training, in [0, 1].
        convolutions, full_size: See `residual_units`.
    """
    dims = manifest.spatial_dims
    head = [Pool["ADAPTIVEAVG", dims](1), nn.Flatten(), nn.Dropout(dropout)]
    return nn.Sequential(
        Standardise(manifest.mean, manifest.std, dims),
        *residual_units(
            dims, manifest.channels, width, depth, convolutions=convolutions, full_size=full_size
        ),
        *head,
        nn.Linear(width * 2 ** (depth - 1), outputs),
    )


def load_encoder(network: nn.Module, file: Path) -> None:
    """Fill a network with the weights of a safetensors file that have the names of its own.

    The last layer stays as it is where the file's has another shape or is missing, as of other
    classes. So do weights that the file lacks, and buffers: images are standardised by the
    statistics of the data that are trained on.

    Raises:
        UserError: for a file that cannot be read, one without any of the network's weights, and for
            a weight of another shape.
    """
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"encoder: {file}: cannot be read as safetensors ({error}).") from error
    own = dict(network.named_parameters())
    last = next(reversed(own)).rpartition(".")[0]
    shared = {n: t for n, t in stored.items() if n in own}
    shared = {
        n: t for n, t in shared.items() if t.shape == own[n].shape or n.rpartition(".")[0] != last
    }
    if not any(name.rpartition(".")[0] != last for name in shared):
        raise UserError(
            f"encoder: {file}: holds no weight of this network, such as {next(iter(own))!r}."
        )
    for name, tensor in shared.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"encoder: {file}: {name!r} is {tuple(tensor.shape)}, here "
                f"{tuple(own[name].shape)}. Give the network the width and depth of the file's."
            )
    with torch.no_grad():
        for name, tensor in shared.items():
            own[name].copy_(tensor)


def residual_units(
    dims: int,
    channels: int,
    width: int,
    depth: int,
    *,
    convolutions: int = 1,
    full_size: int = 0,
) -> nn.Sequential:
    """The body of `resnet`: images to features of width · 2^(depth − 1) channels.

    Args:
        dims: Spatial dimensions, 2 or 3.
        channels: Of the images.
        width, depth: As for `resnet`.
        convolutions: Of each unit beside its shortcut: 1 (MONAI's `ResidualUnit`), or 2 (the basic
            block of He et al. 2016, arXiv 1512.03385, MONAI's `ResNetBlock`).
        full_size: Of the units, the first that do not halve the image, 0 to `depth`.
    """
    norm = ("GROUP", {"num_groups": math.gcd(width, _GROUPS)})
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
