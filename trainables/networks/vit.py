"""The vision transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.networks.base import NetworkFamily
from trustsweep.trainables.networks.layers import Pad, resized
from trustsweep.trainables.registry import NetworkKind

#: Features between a block's two last layers, in those of a token.
_EXPANSION = 4


class Block(nn.Module):
    """Attention among tokens, then two layers for each; both normalised first and residual.

    Attention is written out: the fused kernels of a GPU add in an order that changes from run to
    run.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, 3 * features)
        self.join = nn.Linear(features, features)
        self.mix = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, _EXPANSION * features),
            nn.GELU(),
            nn.Linear(_EXPANSION * features, features),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, features) to the same."""
        projected = self.project(self.norm(tokens)).unflatten(-1, (3, self._heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        tokens = tokens + self.join((weights @ value).transpose(1, 2).flatten(2))
        return tokens + self.mix(tokens)


class VisionTransformer(nn.Module):
    """Tokens of square patches, a class token, blocks, and a linear layer on the class token.

    Positions are learned on the grid of patches of images of `size`, and interpolated for others.

    Args:
        size: *spatial, in multiples of `patch`.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        *,
        patch: int,
        layers: int,
        heads: int,
        features: int,
        dropout: float,
        outputs: int,
    ) -> None:
        super().__init__()
        grid = [side // patch for side in size]
        self.positions = nn.Parameter(torch.empty(1, features, *grid))
        self.summary = nn.Parameter(torch.empty(1, 1, features))
        self.enter = Conv["CONV", len(grid)](channels, features, patch, stride=patch)
        self.blocks = nn.Sequential(*(Block(features, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, outputs)
        for parameter in (self.positions, self.summary):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *spatial), in multiples of `patch`, to (B, outputs)."""
        entered = self.enter(image)
        tokens = (entered + resized(self.positions, entered.shape[2:])).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], dim=1)
        outputs: Tensor = self.head(self.dropout(self.norm(self.blocks(tokens)[:, 0])))
        return outputs


class ViTFamily(NetworkFamily):
    """Vision transformer: attention among patches of the image.

    Dosovitskiy et al. 2021, arXiv 2010.11929. MONAI's takes images of one size alone, which early
    rungs of a search make smaller.

    Config: `vit_patch`, the side of a patch in pixels; `vit_layers`; `vit_heads` of attention, and
    `vit_head_features` of each, which together are those of a token; `dropout`, the probability
    that a feature of the class token is left out before the last layer in training, in [0, 1].
    """

    kind: ClassVar[NetworkKind] = "images"

    def __init__(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(config, manifest)
        self.patch = self.whole("vit_patch")
        self.blocks = self.whole("vit_layers")
        self.heads = self.whole("vit_heads")
        self.head_features = self.whole("vit_head_features")
        self.dropout = self.share("dropout")

    def layers(self, outputs: int) -> Sequence[nn.Module]:
        pad = Pad(self.patch)
        size = pad(torch.empty(1, 1, *self.manifest.image_shape[1:])).shape[2:]
        transformer = VisionTransformer(
            self.manifest.channels,
            size,
            patch=self.patch,
            layers=self.blocks,
            heads=self.heads,
            features=self.heads * self.head_features,
            dropout=self.dropout,
            outputs=outputs,
        )
        return [pad, transformer]
