"""Late fusion: a model for each modality, and their predictions combined."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch, Manifest
from trustsweep.trainables.contract import Config
from trustsweep.trainables.fusion.base import (
    Fused,
    FusionMethod,
    FusionNetwork,
    by_modality,
    over_present,
)
from trustsweep.trainables.fusion.encoders import Encoder
from trustsweep.trainables.settings import word

#: How predictions are combined.
RULES = ("mean", "majority")


class LateFusion(FusionMethod):
    """A network for each modality, trained on its own; predictions are combined.

    "mean" averages the probabilities of the present modalities. "majority" gives each class the
    share of them whose likeliest class it is (of a modality's tie, the first); as votes have no
    gradient, attacks follow that of the mean. The loss is the mean over the present modalities of
    each one's own cross-entropy, the same for both rules.

    Config: `rule`, and that of `FusionMethod`.
    """

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.rule = word(config, "rule", RULES)

    def network(self) -> FusionNetwork:
        return LateNetwork(self.make_encoders(), self)

    def cross_entropy(self, fused: Fused, batch: Batch, present: Tensor) -> Tensor:
        return over_present(self.unimodal_cross_entropy(fused.more["unimodal"], batch), present)

    def combine(self, fused: Fused, present: Tensor) -> Tensor:
        own, there = self.head.log_outcomes(fused.more["unimodal"][0]), present[..., None]
        count = there.sum(dim=1).clamp(min=1)
        mean = own.masked_fill(~there, -torch.inf).logsumexp(dim=1) - count.log()
        if self.rule == "mean":
            return mean
        votes = F.one_hot(own.argmax(dim=-1), own.shape[-1]).to(own)
        # The smallest normal number keeps the logarithm of a class without a vote finite.
        share = over_present(votes, there).clamp(min=torch.finfo(own.dtype).tiny)
        return share.log() + (mean - mean.detach())


class LateNetwork(FusionNetwork):
    """See `LateFusion`. `more` of its output: "unimodal" (1, B, M, K) logits."""

    def __init__(self, encoders: dict[str, Encoder], method: LateFusion) -> None:
        super().__init__(encoders)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(method.dim, method.outputs) for name in self.encoders}
        )

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        own = by_modality(self.heads, self.features(values))
        return Fused(own.mean(dim=2), more={"unimodal": own})
