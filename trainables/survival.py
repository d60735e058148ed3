"""Discrete-time survival: the hazards of K intervals, and everything that follows from them.

The hazard h_k is the probability of the event in interval k of those who reach it. Models predict
its log-odds z_k, so that S_k = Π_{j≤k} (1 − h_j) is the probability of no event up to the end of
interval k, and f_k = S_{k−1} h_k that of the event within it. An observed event in interval k has
the likelihood f_k; a patient censored in interval k counts as one who survived it, with the
likelihood S_k (Zadeh & Schmid 2020, IEEE TPAMI, arXiv 1904.11217).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Log-odds beyond which float64 has no gradient left.
_MOST = 700.0


def log_survival(scores: Tensor) -> Tensor:
    """(..., K) log-odds of the hazards to (..., K): ln S_k."""
    return F.logsigmoid(-scores).cumsum(dim=-1)


def log_outcomes(scores: Tensor) -> Tensor:
    """(..., K) log-odds of the hazards to (..., K + 1): ln f_k, and ln S_K, of no event, last."""
    survived = log_survival(scores)
    reached = F.pad(survived[..., :-1], (1, 0))
    return torch.cat([reached + F.logsigmoid(scores), survived[..., -1:]], dim=-1)


def log_odds(outcomes: Tensor) -> Tensor:
    """The inverse of `log_outcomes`, of log-probabilities up to a constant: ln f_k − ln S_k."""
    later = outcomes.flip(-1).logcumsumexp(dim=-1).flip(-1)
    return outcomes[..., :-1] - later[..., 1:]


def log_likelihood(outcomes: Tensor, event: Tensor, interval: Tensor) -> Tensor:
    """Of (B, ..., K + 1) log-probabilities as `log_outcomes` has them, (B, ...).

    Args:
        event, interval: (B,) as in `Batch`. Where they are NaN the likelihood is 1.
    """
    known = ~(event.isnan() | interval.isnan())
    place = interval.nan_to_num().long().reshape(-1, *(1,) * (outcomes.ndim - 1))
    place = place.expand(*outcomes.shape[:-1], 1)
    normalised = outcomes.log_softmax(dim=-1)
    later = normalised.flip(-1).logcumsumexp(dim=-1).flip(-1)
    died = normalised.gather(-1, place).squeeze(-1)
    survived = later.gather(-1, place + 1).squeeze(-1)
    shape = (-1, *(1,) * (outcomes.ndim - 2))
    value = torch.where((event == 1).reshape(shape), died, survived)
    return torch.where(known.reshape(shape), value, 0.0)


def hazard_labels(event: Tensor, interval: Tensor, intervals: int) -> Tensor:
    """(B, K) float: whether the event came in each interval that was reached; NaN where the
    interval was not, and where nothing is known.

    The negative log-likelihood is the sum of the binary cross-entropies of the known labels.
    """
    place = torch.arange(intervals, device=interval.device, dtype=interval.dtype)
    here = (place == interval[:, None]).to(interval.dtype) * event[:, None]
    return torch.where(place <= interval[:, None], here, torch.nan)


def risk(scores: Tensor) -> Tensor:
    """(B, K) log-odds of the hazards to (B,) float64: ln((1 − s) / s), s the mean of S_k.

    It orders patients as −Σ S_k does (Chen et al. 2022, arXiv 2108.02278), and has a gradient
    wherever that sum rounds to 0 or K.
    """
    survived = log_survival(scores.double().clamp(-_MOST, _MOST))
    died = torch.log(-torch.expm1(survived))
    return died.logsumexp(dim=1) - survived.logsumexp(dim=1)


def dies_early(labels: Tensor) -> Tensor:
    """(B, K) hazard labels to (B,) bool: whether the event was seen in the first half of them."""
    return (labels[:, : math.ceil(labels.shape[1] / 2)] == 1).any(dim=1)
