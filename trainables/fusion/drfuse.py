"""DrFuse: what modalities share and what is distinct in each, and attention for each class."""

from __future__ import annotations

import math

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
    softmax_present,
    sum_present,
)
from trustsweep.trainables.fusion.encoders import Encoder
from trustsweep.trainables.settings import number


class DrFuse(FusionMethod):
    """Shared and distinct features, weighed for each class (Yao et al. 2024, arXiv 2403.06197).

    Each modality's features become a shared part h_m, through an MLP of three layers of which the
    first is the modality's own and the others are common to all, and a distinct part d_m. The
    shared parts of the present modalities are pooled to s (see `logit_pool`). The tokens d_1 ...
    d_M and s get one query, a projection of the mean over the present ones, and for each class
    c a key k_c and weights a_c = softmax(q · k_c / √D); the logit of c is row c of a linear layer
    on Σ a_c v. The loss is

        CE + Σ_m CE_m + CE_s + λ [mean JSD(σ(h_i), σ(h_j)) + Σ_m |cos(h_m, d_m)|] + λ_a · rank

    with sums over the present m, CE_m of d_m's own head, CE_s of the head of s, the mean over pairs
    of present modalities (none of a single one) and features, and `rank` of `rank_loss`.

    Departures from the paper: any number of modalities, each of which may be absent, where the
    paper has a series that is always there and an X-ray that may not be; classes exclude each
    other, so a stream has one cross-entropy rather than one for each class; the encoders are those
    of every fusion model here (`encoders`), with a projection instead of a trunk for each part.
    From the published code: the Jensen-Shannon divergence is that of both outcomes and of pairs
    that are there alone (the code's is of one outcome, and of absent X-rays too), and a mean over
    features; the rank loss is a mean over all pairs, not over those in the wrong order, which
    depends on the batch.

    A modality's weight is its distinct token's, averaged over classes, and an equal share of the
    shared token's among the present.

    Config: `lambda_disentangle` (λ) and `lambda_attention` (λ_a), both >= 0, and that of
    `FusionMethod`.
    """

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        self.disentangle_weight = number(config, "lambda_disentangle", low=0)
        self.attention_weight = number(config, "lambda_attention", low=0)

    def network(self) -> FusionNetwork:
        return DrFuseNetwork(self.make_encoders(), self)

    def terms(self, fused: Fused, batch: Batch, present: Tensor) -> dict[str, Tensor]:
        more = fused.more
        own = self.unimodal_cross_entropy(more["unimodal"], batch)
        pooled = -self.head.log_likelihood(self.head.log_outcomes(more["pooled"]), batch)
        overlap = F.cosine_similarity(more["shared"], more["distinct"], dim=-1).abs()
        disentangle = divergence(more["shared"], present) + sum_present(overlap, present)
        errors = torch.cat([own, pooled[:, None]], dim=1).detach()
        rank = rank_loss(more["attention"], errors, _streams(present))
        return {
            "unimodal": sum_present(own, present),
            "shared": pooled,
            "disentangle": self.disentangle_weight * disentangle,
            "attention": self.attention_weight * rank,
        }


class DrFuseNetwork(FusionNetwork):
    """See `DrFuse`. `more` of its output: "shared" and "distinct" (B, M, D) features, the logits
    "unimodal" (1, B, M, K) of the distinct and "pooled" (B, K) of the pooled shared ones, and
    "attention" (B, K, M + 1), the shared token last.
    """

    def __init__(self, encoders: dict[str, Encoder], method: DrFuse) -> None:
        super().__init__(encoders)
        dim, classes = method.dim, method.outputs
        self.shared = nn.ModuleDict({name: nn.Linear(dim, dim) for name in self.encoders})
        self.distinct = nn.ModuleDict({name: nn.Linear(dim, dim) for name in self.encoders})
        # Normalised, as without it the pooled features start so small that learning is slow.
        self.common = nn.Sequential(
            nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.unimodal = nn.ModuleDict({name: nn.Linear(dim, classes) for name in self.encoders})
        self.pooled = nn.Linear(dim, classes)
        self.query = nn.Linear(dim, dim)
        self.keys = nn.Linear(dim, classes * dim)
        self.value = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, values: tuple[Tensor, ...], present: Tensor) -> Fused:
        h = self.features(values)[0]
        shared = self.common(by_modality(self.shared, h))
        distinct = by_modality(self.distinct, h)
        pooled = logit_pool(shared, present)
        tokens, streams = torch.cat([distinct, pooled[:, None]], dim=1), _streams(present)
        attention = self._attention(tokens, streams)
        fused = torch.einsum("bks,bsd->bkd", attention, self.value(tokens))
        logits = torch.einsum("bkd,kd->bk", fused, self.head.weight) + self.head.bias
        equal = softmax_present(torch.zeros_like(attention[:, 0, :-1]), present)
        of_streams = attention.mean(dim=1)
        more = {
            "shared": shared,
            "distinct": distinct,
            "unimodal": by_modality(self.unimodal, distinct)[None],
            "pooled": self.pooled(pooled),
            "attention": attention,
        }
        return Fused(logits[None], of_streams[:, :-1] + of_streams[:, -1:] * equal, more)

    def _attention(self, tokens: Tensor, streams: Tensor) -> Tensor:
        """(B, M + 1, D) to (B, K, M + 1)."""
        dim = tokens.shape[-1]
        equal = softmax_present(torch.zeros_like(tokens[..., 0]), streams)
        query = self.query((equal[..., None] * tokens).sum(dim=1))
        keys = self.keys(tokens).unflatten(-1, (-1, dim))
        scores = torch.einsum("bd,bskd->bks", query, keys) / math.sqrt(dim)
        return softmax_present(scores, streams[:, None])


def logit_pool(shared: Tensor, present: Tensor) -> Tensor:
    """Elementwise logit of the mean of the sigmoids over the present modalities.

    Of two this is the paper's lse(h1 + h2, h1 + h2, h1, h2) − lse(0, 0, h1, h2), and of one the
    features themselves. In terms of log σ, as it is finite there for any h.

    Args:
        shared: (..., M, D).
        present: (..., M) bool. Where none is present, the mean is over all.

    Returns:
        (..., D).
    """
    absent = (~present & present.any(dim=-1, keepdim=True))[..., None]
    yes = F.logsigmoid(shared).masked_fill(absent, -torch.inf).logsumexp(dim=-2)
    no = F.logsigmoid(-shared).masked_fill(absent, -torch.inf).logsumexp(dim=-2)
    return yes - no


def divergence(shared: Tensor, present: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of Bernoulli variables σ(h), over present pairs and features.

    Args:
        shared: (B, M, D), the h.
        present: (B, M) bool.

    Returns:
        (B,) in nats, in [0, ln 2]; 0 where fewer than two modalities are present.
    """
    first, second = _pairs(present)
    pairs = torch.stack([shared[:, first], shared[:, second]], dim=2)
    of_mean = _bernoulli_entropy(logit_pool(pairs, torch.ones_like(pairs[..., 0]).bool()))
    # The entropy is concave, so only rounding takes the difference below 0.
    gap = (of_mean - _bernoulli_entropy(pairs).mean(dim=2)).clamp(min=0).mean(dim=-1)
    return over_present(gap, present[:, first] & present[:, second])


def rank_loss(attention: Tensor, errors: Tensor, streams: Tensor) -> Tensor:
    """How far attention prefers the worse of two streams, mean over present pairs and classes.

    max(0, a_i − a_j) where stream i has the greater error of its own; 0 for equal errors.

    Args:
        attention: (B, K, S), in [0, 1].
        errors: (B, S), without gradient.
        streams: (B, S) bool, which are present.

    Returns:
        (B,) in [0, 1]; 0 where fewer than two streams are present.
    """
    first, second = _pairs(streams)
    sign = (errors[:, first] - errors[:, second]).sign()
    gap = attention[..., first] - attention[..., second]
    wrong = (sign[:, None] * gap).clamp(min=0).mean(dim=1)
    return over_present(wrong, streams[:, first] & streams[:, second])


def _streams(present: Tensor) -> Tensor:
    """(B, M) to (B, M + 1): the distinct tokens and the shared one, there if any modality is."""
    return torch.cat([present, present.any(dim=1, keepdim=True)], dim=1)


def _pairs(present: Tensor) -> Tensor:
    """(2, P) long: every two of the columns of (B, M)."""
    columns = present.shape[1]
    return torch.triu_indices(columns, columns, offset=1, device=present.device)


def _bernoulli_entropy(logit: Tensor) -> Tensor:
    """In nats; other than from the probability, with a finite gradient however sure it is."""
    return F.binary_cross_entropy_with_logits(logit, logit.sigmoid(), reduction="none")
