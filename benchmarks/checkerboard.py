"""The 2-pixel grid of a decoder: its measure, and the network that shows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks import PadToMultiple, Standardise
from trustsweep.trainables.networks.unet import LEVELS, UNetFamily


def nyquist_share(maps: Tensor) -> float:
    """The share of the maps' spectral power that lies at the Nyquist frequency of either axis.

    Each map less its mean is weighed with a Hann window, so that its edges, which the transform
    joins, add nothing. The window spreads a frequency over the bins beside it, which are counted
    with it. Power is summed over all maps.

    Args:
        maps: (n, H, W) of even sides.

    Returns:
        In [0, 1]: 1 for a checkerboard, 0 for what does not vary.
    """
    height, width = maps.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"maps of {height} x {width}: an odd side has no Nyquist frequency")
    sides = (torch.hann_window(n, dtype=torch.float64, device=maps.device) for n in (height, width))
    window = torch.outer(*sides)
    mean = (maps.double() * window).sum((-2, -1), keepdim=True) / window.sum()
    power = torch.fft.fft2((maps - mean) * window).abs().square().sum(0)
    rows, columns = (
        (torch.arange(n, device=maps.device) - n // 2).abs() <= 1 for n in (height, width)
    )
    total = power.sum()
    return float(power[rows[:, None] | columns].sum() / total) if total else 0.0


def smoothed(mask: Tensor) -> Tensor:
    """The truth (n, H, W) smoothed by one pixel: the mean of each pixel and those around it."""
    padded = F.pad(mask.unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, 3, stride=1)[:, 0]


def truth_shares(mask: Tensor) -> dict[str, float]:
    """Nyquist shares of the smoothed truth q as a probability, and of q(1 − q), its uncertainty."""
    truth = smoothed(mask)
    return {
        "probability": nyquist_share(truth),
        "uncertainty": nyquist_share(truth * (1 - truth)),
    }


def smooth_unet(manifest: Manifest, width: int, outputs: int) -> nn.Module:
    """The U-Net as methods have it."""
    return UNetFamily({"width": width}, manifest).build(outputs)


def transposed_unet(manifest: Manifest, width: int, outputs: int) -> nn.Module:
    """The same with MONAI's decoder of transposed convolutions."""
    dims = manifest.spatial_dims
    net = UNet(
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
