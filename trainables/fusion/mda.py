"""MDA-style fusion: attention over the modalities of each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.trainables.contract import Config
from trustsweep.trainables.fusion.base import (
    Fused,
    FusionMethod,
    FusionNetwork,
    by_modality,
    softmax_present,
)
from trustsweep.trainables.fusion.encoders import Encoder
from trustsweep.trainables.settings import word

#: How scores become weights.
NORMALISATIONS = ("softmax", "sigmoid")


class MdaStyle(FusionMethod):
    """Weights from attention between a sample's modalities, after MDA (arXiv 2406.10569).

    A re-implementation of the idea: neither code nor details of "Modal-Domain Attention" were
    published. Tokens z_m = LayerNorm(W_m h_m + e_m); the query q is a projection of their mean over
    the present modalities, scores s_m = q · k_m / √D; weights w = softmax(s), or σ(s_m) / Σ σ(s_j)
    for `normalise: sigmoid`, over the present ones; the prediction is of Σ w_m V z_m.

    Config: `normalise`, and that of `FusionMethod`.
    """

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.normalise = word(config, "normalise", NORMALISATIONS)

    def network(self) -> FusionNetwork:
        return MdaNetwork(self.make_encoders(), self)


class MdaNetwork(FusionNetwork):
    """See `MdaStyle`."""

    def __init__(self, encoders: dict[str, Encoder], method: MdaStyle) -> None:
        super().__init__(encoders)
        dim = method.dim
        self._sigmoid = method.normalise == "sigmoid"
        # The bias is the modality's own embedding e_m.
        self.enter = nn.ModuleDict({name: nn.Linear(dim, dim) for name in self.encoders})
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, method.outputs)

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        z = self.norm(by_modality(self.enter, self.features(values)[0]))
        equal = softmax_present(torch.zeros_like(present, dtype=z.dtype), present)
        query = self.query((equal[..., None] * z).sum(dim=1))
        scores = torch.einsum("bd,bmd->bm", query, self.key(z)) / math.sqrt(z.shape[-1])
        if self._sigmoid:
            # σ(s_m) / Σ σ(s_j) is the softmax of log σ(s_m).
            scores = nn.functional.logsigmoid(scores)
        weights = softmax_present(scores, present)
        return Fused(self.head((weights[..., None] * self.value(z)).sum(dim=1))[None], weights)
