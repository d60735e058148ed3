"""Losses of binary segmentation: Beta evidential risks, their regulariser, Dice, cross-entropy.

A pixel's prediction is Beta(a, b) with a = e⁺ + 1, b = e⁻ + 1 of two evidences ≥ 0 (Sensoy et al.
2018, arXiv 1806.01768, for two classes). Below, S = a + b, p̂ = a / S is the probability of the
foreground, and `true`, `other` are the parameters of the pixel's true and of the other class.

Everything works element by element on float tensors of one shape and is written in ratios, so that
float32 stays finite, with its gradients, at huge evidence (tested to 1e30).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def split_by_truth(a: Tensor, b: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(true, other) parameters of each pixel, for a mask of 0 and 1 of the same shape."""
    foreground = mask > 0.5
    return torch.where(foreground, a, b), torch.where(foreground, b, a)


def type_2_risk(true: Tensor, other: Tensor) -> Tensor:
    """Type-II maximum likelihood, ln S − ln α_y = ln(1 + other / true)."""
    return torch.log1p(other / true)


def cross_entropy_risk(true: Tensor, other: Tensor) -> Tensor:
    """Bayes risk of the cross-entropy, ψ(S) − ψ(α_y)."""
    return torch.digamma(true + other) - torch.digamma(true)


def squared_error_risk(true: Tensor, other: Tensor) -> Tensor:
    """Bayes risk of the squared error over both classes, 2[(1 − α_y/S)² + p̂(1 − p̂)/(S + 1)]."""
    total = true + other
    miss = other / total
    return 2 * (miss**2 + miss * (true / total) / (total + 1))


def misleading_evidence(other: Tensor) -> Tensor:
    """KL(Beta(1, α_ȳ) ‖ Beta(1, 1)) = ln α_ȳ + 1/α_ȳ − 1, without the evidence for the truth.

    The regulariser of Sensoy et al. (2018), eq. 5, collapsed for two classes.
    """
    evidence = other - 1
    return torch.log1p(evidence) - evidence / other


def kl_to_uniform(a: Tensor, b: Tensor) -> Tensor:
    """KL(Beta(a, b) ‖ Beta(1, 1)), the negative differential entropy, in nats.

    Computed in float64: lnΓ of the evidence is some 1e7 at 1e6, and float32 would keep no digit of
    the difference. Returned in the dtype of `a`.
    """
    x, y = a.double(), b.double()
    total = x + y
    log_beta = torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(total)
    drift = (x - 1) * (torch.digamma(x) - torch.digamma(total))
    drift = drift + (y - 1) * (torch.digamma(y) - torch.digamma(total))
    return (drift - log_beta).to(a.dtype)


def annealing(epoch: float, full_at: float) -> float:
    """λ_t = min(1, t / t₀) with t₀ = `full_at` epochs; 1 throughout where t₀ is 0."""
    return min(1.0, epoch / full_at) if full_at > 0 else 1.0


def soft_dice(probability: Tensor, mask: Tensor) -> Tensor:
    """1 − (2Σp̂y + 1)/(Σp̂ + Σy + 1) of each sample: (B, *) and (B, *) to (B,), in [0, 1).

    On p̂, never on the Beta parameters: Dice of raw parameters rewards the size of the evidence
    instead of the overlap. The 1 is one pixel: an empty mask with an empty prediction costs 0.
    """
    p, y = probability.flatten(1), mask.flatten(1)
    return 1 - (2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)


def marginal_ace(probability: Tensor, mask: Tensor, bins: int = 20) -> Tensor:
    """Marginal L1 average calibration error of each sample: (B, *) and (B, *) to (B,), in [0, 1].

    Mean over the bins of p̂ that hold a pixel of |mean p̂ − share of foreground| (Barfuss et al.
    2024, arXiv 2403.06759, hard-binned; 20 bins as there). Of two classes one is enough: the bins
    of the background are those of the foreground mirrored. The gradient goes through the mean p̂
    of each bin; which bin a pixel is in has none.
    """
    p, y = probability.flatten(1), mask.flatten(1)
    place = (p.detach() * bins).long().clamp(0, bins - 1)
    total, filled = torch.zeros_like(p[:, 0]), torch.zeros_like(p[:, 0])
    # Bin by bin, as a scattered sum adds in an order that changes from run to run on a GPU.
    for number in range(bins):
        inside = (place == number).to(p)
        count = inside.sum(1)
        total = total + ((p - y) * inside).sum(1).abs() / count.clamp(min=1)
        filled = filled + (count > 0)
    return total / filled


def cross_entropy(logit: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel from its logit, in nats."""
    return F.binary_cross_entropy_with_logits(logit, mask, reduction="none")


def known_cross_entropy(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropies of (B, K) log-odds and labels, summed over those that are known:
    (B,), in nats. NaN stands for unknown; smoothing by s makes the target 1 − s/2 or s/2."""
    target = labels.nan_to_num() * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return (each * ~labels.isnan()).sum(dim=1)
