"""Dynamic reliability-aware fusion: modalities weighed by how sure their own heads are.

Own formulation of the proposal "Dynamic Reliability-Aware Multi-Modal Fusion for Trustworthy
Clinical Decision Support"; where it departs, the class says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest
from trustsweep.trainables.contract import Config
from trustsweep.trainables.fusion.base import (
    Fused,
    FusionMethod,
    FusionNetwork,
    by_modality,
    over_present,
    softmax_present,
)
from trustsweep.trainables.fusion.encoders import Encoder
from trustsweep.trainables.fusion.inputs import flags
from trustsweep.trainables.settings import number, whole, word
from trustsweep.trainables.uncertainty import ensemble_maps

#: What the weights follow: the entropy of a head's mean prediction, or either part of it.
UNCERTAINTIES = {
    "total": "entropy",
    "aleatoric": "expected-entropy",
    "epistemic": "mutual-information",
}


class Draf(FusionMethod):
    """Weights r = softmax over the present modalities of −α U_m − β ĉ_m.

    Each modality has T stochastic passes h_m^(t), a head of its own p_m^(t) = softmax φ_m(h_m^(t)),
    and a corruption detector ĉ_m = σ(u_m · h̄_m + b_m). U_m is the entropy of the mean of p_m^(t)
    over ln K, in [0, 1], or its aleatoric or epistemic part. The prediction is the mean over t of
    softmax g(Σ r_m h_m^(t)). The loss is

        CE(p, y) + λ · mean_m BCE(ĉ_m, c_m) + λ_u · mean_m CE(p_m, y)

    with means over the present m and c_m = 1 where training corrupted the modality.

    Departures from the proposal: its U_m is the epistemic variance alone and has neither head nor
    loss; with variances (at most 0.25, mostly 1e-3) any usual α gives equal weights, hence
    entropies over ln K; U is detached unless `through_uncertainty`, as the network could lower it
    to no purpose; feature vectors have a fixed length, as a head could undo r; absent modalities
    are masked, not zero; terms over modalities are each sample's own mean, so that an attack on one
    sample does not move another; dropout stands in the encoders' tails (see `encoders`).

    r is relative: where all modalities are bad it is as it is where all are good. Abstain on the
    prediction's entropy instead.

    Config: `passes` (T >= 1), `alpha`, `beta`, `lambda_corruption` (λ) and `lambda_unimodal` (λ_u),
    all >= 0, `weigh_by` (of `UNCERTAINTIES`), `through_uncertainty`, and those of
    `FusionMethod`. α = β = 0 weighs all present modalities equally.
    """

    uncertainties = ("entropy", "expected-entropy", "mutual-information", "least-confidence")

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.passes = whole(config, "passes", low=1)
        self.alpha = number(config, "alpha", low=0)
        self.beta = number(config, "beta", low=0)
        self.corruption_weight = number(config, "lambda_corruption", low=0)
        self.unimodal_weight = number(config, "lambda_unimodal", low=0)
        self.weigh_by = UNCERTAINTIES[word(config, "weigh_by", UNCERTAINTIES)]
        through = config.get("through_uncertainty")
        if not isinstance(through, bool):
            raise UserError(
                f"config: 'through_uncertainty' must be true or false, not {through!r}."
            )
        self.through_uncertainty = through

    def network(self) -> FusionNetwork:
        return DrafNetwork(self.make_encoders(), self)

    def gradients(self, network: nn.Module) -> dict[str, Callable[[Batch], Tensor]]:
        """The weights with and without their own gradient: either alone can hide what turns them.

        With it, U saturates where a head is sure; without it, nothing shows that a weight can move.
        """
        ways = super().gradients(network)
        assert isinstance(network, DrafNetwork)
        if not (self.alpha or self.beta):
            return ways

        def otherwise(batch: Batch) -> Tensor:
            network.through = not self.through_uncertainty
            try:
                return self.scores(network, batch)
            finally:
                network.through = self.through_uncertainty

        name = "weights held" if self.through_uncertainty else "through the weights"
        return ways | {name: otherwise}

    def terms(self, fused: Fused, batch: Batch, present: Tensor) -> dict[str, Tensor]:
        corrupted = F.binary_cross_entropy_with_logits(
            fused.more["corruption"], flags(batch, self.manifest), reduction="none"
        )
        own = self.unimodal_cross_entropy(fused.more["unimodal"], batch)
        return {
            "corruption": self.corruption_weight * over_present(corrupted, present),
            "unimodal": self.unimodal_weight * over_present(own, present),
        }


class DrafNetwork(FusionNetwork):
    """See `Draf`. Gradients pass the weights where `through` says so.

    `more` of its output: "unimodal" (T, B, M, K) and "corruption" (B, M) logits, "uncertainty"
    (B, M) in [0, 1].
    """

    def __init__(self, encoders: dict[str, Encoder], method: Draf) -> None:
        super().__init__(encoders)
        self._passes, self._alpha, self._beta = method.passes, method.alpha, method.beta
        self._weigh_by, self.through = method.weigh_by, method.through_uncertainty
        self._log_outcomes = method.head.log_outcomes
        dim, classes = method.dim, method.outputs
        self.unimodal = nn.ModuleDict({name: nn.Linear(dim, classes) for name in self.encoders})
        self.detectors = nn.ModuleDict({name: nn.Linear(dim, 1) for name in self.encoders})
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, classes))

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        h = self.features(values, self._passes)
        own = by_modality(self.unimodal, h)
        corruption = by_modality(self.detectors, h.mean(dim=0)).squeeze(-1)
        uncertainty = self._uncertainty(own)
        scores = -self._alpha * uncertainty - self._beta * corruption.sigmoid()
        if not self.through:
            scores = scores.detach()
        weights = softmax_present(scores, present)
        fused = (weights[..., None] * h).sum(dim=2)
        more = {"unimodal": own, "corruption": corruption, "uncertainty": uncertainty}
        return Fused(self.head(fused), weights, more)

    def _uncertainty(self, own: Tensor) -> Tensor:
        outcomes = self._log_outcomes(own.float()).exp()
        return ensemble_maps(outcomes)[self._weigh_by] / math.log(outcomes.shape[-1])
