"""HEALNet: a shared latent array that attends to the modalities in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.contract import Config
from trustsweep.trainables.fusion.base import Fused, FusionMethod, FusionNetwork
from trustsweep.trainables.fusion.encoders import Encoder
from trustsweep.trainables.fusion.tokens import TokenNetwork
from trustsweep.trainables.settings import whole

#: Fourier features of a coordinate: bands from 1 to half of `MAX_FREQUENCY`, as published.
BANDS = 2
MAX_FREQUENCY = 10.0
#: What the published code divides the logits of attention by, beside √d.
TEMPERATURE = 0.5
#: The widths of the gate and of what it gates, in latent dimensions.
_EXPANSION = 4


class HealNet(FusionMethod):
    """Hybrid early fusion by iterative attention (Hemker et al. 2024, arXiv 2311.09115).

    A learned array S of `latents` vectors is, in each of `layers` fusion layers and for each
    modality m in turn, updated by

        S ← S + CrossAttention(LN(S), LN(X_m)),  S ← S + FF(LN(S))

    and then, `self_attention` times, by the same with S itself in place of X_m. X_m are the
    modality's tokens with Fourier features of their positions; the feed-forward network is gated by
    SELU; the prediction is a linear layer on LN of the mean of S. Attention is, as in the published
    code, twice as sharp as the usual softmax(q · k / √d). Cross-attention and its feed-forward
    network are each layer's and modality's own, self-attention is shared by a layer's modalities.

    A sample skips the whole update, self-attention included, of each modality that it lacks. The
    published code means to, for whole batches, but runs self-attention for missing modalities.

    Departures from the paper: tokens are those of the encoders that all fusion models here share
    (`encoders`), not raw pixels; the loss has no L1 penalty and, of survival, weighs censored and
    other patients alike (the code: 0.6 to 1), as models are to differ in their fusion alone; a head
    is `latent_dim` / `heads` wide, not 64.

    Config: `layers`, `latents`, `latent_dim` (a multiple of `heads`), `heads`, all >= 1,
    `self_attention` >= 0, and that of `FusionMethod`, whose `dropout` is also that of attention
    weights and feed-forward networks.
    """

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.layers = whole(config, "layers", low=1)
        self.latents = whole(config, "latents", low=1)
        self.latent_dim = whole(config, "latent_dim", low=1)
        self.heads = whole(config, "heads", low=1)
        self.self_attention = whole(config, "self_attention", low=0)
        if self.latent_dim % self.heads:
            raise UserError(
                f"config: 'latent_dim' is {self.latent_dim}, which 'heads', {self.heads}, does not "
                "divide; choose a multiple."
            )

    def network(self) -> FusionNetwork:
        return HealNetwork(self.make_encoders(), self)


class HealNetwork(TokenNetwork):
    """See `HealNet`."""

    def __init__(self, encoders: dict[str, Encoder], method: HealNet) -> None:
        super().__init__(encoders)
        widths = [stem.channels + stem.axes * (2 * BANDS + 1) for stem in self.stems]
        self.latents = nn.Parameter(torch.randn(method.latents, method.latent_dim))
        self.layers = nn.ModuleList(FusionLayer(widths, method) for _ in range(method.layers))
        self.head = nn.Sequential(
            nn.LayerNorm(method.latent_dim), nn.Linear(method.latent_dim, method.outputs)
        )

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        contexts = self.contexts(values)
        latents = self.latents.expand(len(present), -1, -1)
        for layer in self.layers:
            for number, context in enumerate(contexts):
                here = present[:, number, None, None]
                latents = torch.where(here, layer(latents, context, number), latents)
        return Fused(self.head(latents.mean(dim=1))[None])

    def contexts(self, values: tuple[Tensor, ...]) -> list[Tensor]:
        """(B, L, C + axes · (2 · BANDS + 1)) of each modality: tokens and where they are."""
        placed = []
        for stem, value, tokens in zip(self.stems, values, self.tokens(values), strict=True):
            positions = fourier_positions(stem.grid(value)).to(tokens)
            placed.append(torch.cat([tokens, positions.expand(len(tokens), -1, -1)], dim=2))
        return placed


class FusionLayer(nn.Module):
    """One update of the latents for each modality.

    Args:
        widths: Of each modality's tokens with positions.
    """

    def __init__(self, widths: Sequence[int], method: HealNet) -> None:
        super().__init__()
        self.cross = nn.ModuleList(AttentionBlock(width, method) for width in widths)
        self.own = nn.ModuleList(
            AttentionBlock(method.latent_dim, method) for _ in range(method.self_attention)
        )

    def forward(self, latents: Tensor, context: Tensor, number: int) -> Tensor:
        """The latents after the update by modality `number`, of which `context` is."""
        latents = self.cross[number](latents, context)
        for block in self.own:
            latents = block(latents, latents)
        return latents


class AttentionBlock(nn.Module):
    """Attention of the latents to a context, then a gated feed-forward network; both residual."""

    def __init__(self, width: int, method: HealNet) -> None:
        super().__init__()
        dim = method.latent_dim
        self.norm, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(width)
        self.attention = Attention(dim, width, method.heads, method.dropout)
        self.enter = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * _EXPANSION * dim))
        self.leave = nn.Sequential(nn.Linear(_EXPANSION * dim, dim), nn.Dropout(method.dropout))

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """(B, N, D) and (B, L, width) to (B, N, D)."""
        latents = latents + self.attention(self.norm(latents), self.norm_context(context))
        content, gate = self.enter(latents).chunk(2, dim=-1)
        return latents + self.leave(content * F.selu(gate))


class Attention(nn.Module):
    """softmax(q · k / (`TEMPERATURE` √d)) over the context, then a linear layer and a leaky ReLU.

    Args:
        dim: D of the latents, a multiple of `heads`.
        width: Of the context.
        dropout: Probability that an attention weight is left out in training.
    """

    def __init__(self, dim: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(width, dim, bias=False)
        self.value = nn.Linear(width, dim, bias=False)
        self.leave = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.01))

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """(B, N, D) and (B, L, width) to (B, N, D)."""
        projected = self.query(latents), self.key(context), self.value(context)
        query, key, value = (p.unflatten(-1, (self._heads, -1)).transpose(1, 2) for p in projected)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self._dropout if self.training else 0.0,
            scale=1 / (TEMPERATURE * math.sqrt(query.shape[-1])),
        )
        return self.leave(attended.transpose(1, 2).flatten(2))


def fourier_positions(grid: Sequence[int]) -> Tensor:
    """(L, axes · (2 · BANDS + 1)) of a grid's points, row by row.

    A coordinate u of each axis runs from −1 to 1 (−1 where there is one point) and gives
    sin(π f u) and cos(π f u) of the bands f, and itself.
    """
    axes = [torch.linspace(-1, 1, size) for size in grid]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)[..., None]
    angles = math.pi * points * torch.linspace(1, MAX_FREQUENCY / 2, BANDS)
    return torch.cat([angles.sin(), angles.cos(), points], dim=-1).flatten(1)
