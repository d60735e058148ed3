"""One encoder for each kind of modality, the same for every fusion model.

An encoder has two parts. The *stem* turns a modality into tokens and draws nothing; the *tail*
pools them into one feature vector and holds all of the dropout. So T stochastic passes cost one
pass of the stem and T of the tail, which are done as one batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Feature, Kind, Manifest, Modality
from trustsweep.trainables.networks import Standardise, residual_units

#: Attention heads of the transformer over a series.
_HEADS = 4


class McDropout(nn.Module):
    """Dropout over passes (Gal & Ghahramani 2016, arXiv 1506.02142).

    In training, a mask for each pass and sample. In evaluation, one mask for each pass, the same
    for all samples and at every call: T networks drawn once from the posterior, so that what is
    predicted for a sample does not depend on the batch it is in. A single pass in evaluation is
    the deterministic network.

    Args:
        rate: Probability that a feature is left out, in [0, 1).
        seed: Tells its masks from those of other layers.
    """

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__()
        self.rate = rate
        self.seed = seed

    def forward(self, features: Tensor) -> Tensor:
        """(T, B, ..., F) to the same."""
        if self.training:
            return F.dropout(features, self.rate)
        if len(features) == 1 or not self.rate:
            return features
        draws = torch.Generator().manual_seed(self.seed)
        shape = (len(features), *(1,) * (features.ndim - 2), features.shape[-1])
        kept = torch.rand(shape, generator=draws) >= self.rate
        return features * kept.to(features) / (1 - self.rate)


class Stem(nn.Module):
    """A modality as `inputs.gather` gives it to tokens (B, L, C), which lie on a grid, row by row.

    Attributes:
        channels: C.
        axes: Of the grid.
    """

    def __init__(self, channels: int, axes: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.axes = axes

    @abstractmethod
    def grid(self, value: Tensor) -> tuple[int, ...]:
        """The grid's size along each axis; their product is L."""


class Encoder(nn.Module):
    """A modality's stem and tail.

    Args:
        stem: See `Stem`.
        dim: D, length of the feature vector.
        dropout: Probability that a feature is left out, before each of the tail's two layers.
        seed: Of the masks of evaluation.
    """

    def __init__(self, stem: Stem, dim: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.stem = stem
        channels = stem.channels
        self.first = nn.Sequential(
            nn.LayerNorm(channels), McDropout(dropout, 2 * seed), nn.Linear(channels, dim)
        )
        # Without scale and shift: a network could undo a weight of fusion by a feature's length.
        self.second = nn.Sequential(
            nn.GELU(),
            McDropout(dropout, 2 * seed + 1),
            nn.Linear(dim, dim),
            nn.LayerNorm(dim, elementwise_affine=False),
        )

    def tail(self, tokens: Tensor, passes: int) -> Tensor:
        """(B, L, C) to (T, B, D), each vector of mean 0 and variance 1."""
        pooled = tokens.mean(dim=1)
        return self.second(self.first(pooled.expand(passes, *pooled.shape)))

    def forward(self, value: Tensor, passes: int = 1) -> Tensor:
        """The modality as `inputs.gather` gives it to (T, B, D)."""
        return self.tail(self.stem(value), passes)


class ImageStem(Stem):
    """Residual units, each of which halves the image; the pixels left are the tokens.

    A pixel that is no finite number is taken for the channel's mean.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], dims: int, width: int, depth: int
    ) -> None:
        super().__init__(channels=width * 2 ** (depth - 1), axes=dims)
        self.standardise = Standardise(mean, std, dims)
        self.units = residual_units(dims, len(mean), width, depth)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *spatial) in [0, 1] to (B, L, width · 2^(depth − 1))."""
        features = self.units(self.standardise(image).nan_to_num(0, 0, 0))
        return features.flatten(2).transpose(1, 2)

    def grid(self, value: Tensor) -> tuple[int, ...]:
        return tuple(-(-size // 2 ** len(self.units)) for size in value.shape[2:])


class SeriesStem(Stem):
    """A transformer layer over the steps of a series, each with its values, mask and delays.

    Values are standardised with the train split's statistics and 0 where unobserved; delays enter
    as log(1 + hours); steps have sinusoidal positions (Vaswani et al. 2017, arXiv 1706.03762).
    """

    def __init__(self, features: Sequence[Feature], channels: int) -> None:
        super().__init__(channels)
        self.scale = _Scale(features)
        self.enter = nn.Linear(3 * len(features), channels)
        self.mix = nn.TransformerEncoderLayer(
            channels,
            math.gcd(channels, _HEADS),
            dim_feedforward=2 * channels,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, series: Tensor) -> Tensor:
        """(B, T, 3F): value, mask and hours since the last observation, to (B, T, C)."""
        value, mask, delta = series.chunk(3, dim=2)
        known = torch.cat([self.scale(value), mask, delta.clamp(min=0).log1p()], dim=2)
        tokens = self.enter(known)
        return self.mix(tokens + _positions(*tokens.shape[1:]).to(tokens))

    def grid(self, value: Tensor) -> tuple[int, ...]:
        return (value.shape[1],)


class TabularStem(Stem):
    """One token of a table: standardised numbers, one-hot categories, flags of missing values."""

    def __init__(self, features: Sequence[Feature], channels: int) -> None:
        super().__init__(channels)
        self.scale = _Scale(features)
        self.sizes = [len(feature.vocabulary) for feature in features]
        self.enter = nn.Sequential(
            nn.Linear(len(features) + sum(s or 1 for s in self.sizes), channels), nn.GELU()
        )

    def forward(self, table: Tensor) -> Tensor:
        """(B, F), NaN where missing, to (B, 1, C)."""
        missing = ~table.isfinite()
        scaled = self.scale(table)
        columns = [missing.to(table)]
        for number, size in enumerate(self.sizes):
            if not size:
                columns.append(scaled[:, number : number + 1])
                continue
            # One-hot by comparison: a missing value and an unknown index are in no category.
            codes = torch.arange(size, device=table.device)
            columns.append((table[:, number : number + 1] == codes).to(table))
        return self.enter(torch.cat(columns, dim=1)).unsqueeze(1)

    def grid(self, value: Tensor) -> tuple[int, ...]:
        return (1,)


class _Scale(nn.Module):
    """z-score in the last axis; missing values (NaN) become the mean, 0.

    A feature that never varies (deviation 0) is centred only.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        deviations = [feature.std if feature.std > 0 else 1.0 for feature in features]
        self.register_buffer("mean", torch.tensor([feature.mean for feature in features]))
        self.register_buffer("std", torch.tensor(deviations))

    def forward(self, values: Tensor) -> Tensor:
        return ((values - self.mean) / self.std).nan_to_num(0, 0, 0)


def encoder(
    manifest: Manifest,
    modality: Modality,
    *,
    width: int,
    depth: int,
    dim: int,
    dropout: float,
    seed: int,
) -> Encoder:
    """A fresh encoder for one modality of the manifest.

    Args:
        width, depth: Channels of the first residual unit of an image, and how many units.
        dim: D of the features; also C of the tokens of tables and series.
        dropout: See `Encoder`.
        seed: Another for each modality.
    """
    if modality.kind is Kind.IMAGE:
        return Encoder(_image_stem(manifest, modality, width, depth), dim, dropout, seed)
    series = modality.kind is Kind.SERIES
    features = manifest.series if series else manifest.tabular
    chosen = [features[i] for i in modality.indices] if modality.indices else features
    stem = SeriesStem(chosen, dim) if series else TabularStem(chosen, dim)
    return Encoder(stem, dim, dropout, seed)


def _image_stem(manifest: Manifest, modality: Modality, width: int, depth: int) -> Stem:
    mean, std, shape = manifest.mean, manifest.std, manifest.image_shape
    if modality.column != "image":
        spec = manifest.more_images[modality.column]
        mean, std, shape = spec.mean, spec.std, spec.shape
    channels = modality.indices or range(shape[0])
    picked = [mean[i] for i in channels], [std[i] for i in channels]
    return ImageStem(*picked, len(shape) - 1, width, depth)


def _positions(steps: int, channels: int) -> Tensor:
    """(steps, channels): sines and cosines of wavelengths from 2π to 10,000 · 2π."""
    pairs = -(-channels // 2)
    rates = torch.exp(-math.log(10_000) * torch.arange(pairs) / pairs)
    angles = torch.arange(steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :channels]
