"""Losses of segmentation: evidential risks, their regulariser, Dice, calibration error.

A pixel's prediction is Dirichlet(α) with α = e + 1 of K evidences ≥ 0, one for each of K classes
that exclude each other; for K = 2 it is a Beta distribution (Sensoy et al. 2018, arXiv 1806.01768).
Below, S = Σ α, p̂ = α / S, and y is the pixel's true class. `true` is α_y, of any shape, and
`others` are the parameters of the K − 1 other classes, (K − 1, ...): the same for one lesion, for
several classes, and for regions, each of which is a Beta of its own.

Everything is written in ratios, so that float32 stays finite, with its gradients, at huge evidence
(tested to 1e30).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: From here on the asymptotic series of lnΓ and ψ are exact to float32, and to 1e-13 in float64.
_SERIES_FROM = 32.0


def split_by_truth(alpha: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(true, others) parameters, (...) and (K − 1, ...), of (K, ...) and long labels (...)."""
    index = label.unsqueeze(0)
    places = torch.arange(len(alpha) - 1, device=label.device).view(-1, *[1] * label.ndim)
    return alpha.gather(0, index)[0], alpha.gather(0, places + (places >= index))


def members(label: Tensor, classes: int) -> Tensor:
    """(B, K − 1, ...) bool: where each class but the background is, of labels (B, ...)."""
    places = torch.arange(1, classes, device=label.device).view(1, -1, *[1] * (label.ndim - 1))
    return label.unsqueeze(1) == places


def type_2_risk(true: Tensor, others: Tensor) -> Tensor:
    """Type-II maximum likelihood, ln S − ln α_y."""
    return torch.log1p(others.sum(0) / true)


def cross_entropy_risk(true: Tensor, others: Tensor) -> Tensor:
    """Bayes risk of the cross-entropy, ψ(S) − ψ(α_y)."""
    return torch.digamma(true + others.sum(0)) - torch.digamma(true)


def squared_error_risk(true: Tensor, others: Tensor) -> Tensor:
    """Bayes risk of the squared error, Σ_k [([k = y] − p̂_k)² + p̂_k(1 − p̂_k)/(S + 1)].

    With m = 1 − p̂_y and q = Σ_{k≠y} p̂_k², m² + q + (2 p̂_y m + m² − q)/(S + 1).
    """
    total = true + others.sum(0)
    miss = others.sum(0) / total
    squares = ((others / total) ** 2).sum(0)
    variance = 2 * (miss * (true / total)) + (miss**2 - squares)
    return miss**2 + squares + variance / (total + 1)


def misleading_evidence(others: Tensor) -> Tensor:
    """KL(Dir(α̃) ‖ Dir(1)) with α̃_y = 1 and the other α̃ = α: without the evidence for the truth.

    The regulariser of Sensoy et al. (2018), eq. 5, in nats. With A = Σ α̃, lnΓ(A) − lnΓ(K) −
    Σ lnΓ(α̃_k) + Σ (α̃_k − 1)(ψ(α̃_k) − ψ(A)); for two classes ln α + 1/α − 1.
    """
    if len(others) == 1:
        evidence = others[0] - 1
        return torch.log1p(evidence) - evidence / others[0]
    # What cancels in float32, x of each G(x) + x = (x − 1)ψ(x) − lnΓ(x), is left out by hand.
    count, total = len(others) + 1, others.sum(0) + 1
    one = _bend(torch.ones_like(total))
    spread = _bend(others).sum(0) + one - _bend(total)
    kl = spread + (count - 1) * torch.digamma(total) - math.lgamma(count)
    # Rounding alone takes it below 0, where no evidence misleads.
    return kl.clamp(min=0)


def _bend(x: Tensor) -> Tensor:
    """G(x) = (x − 1)ψ(x) − lnΓ(x) − x for x ≥ 1, which grows as −½ ln x."""
    near = x.clamp(max=_SERIES_FROM)
    exact = (near - 1) * torch.digamma(near) - torch.lgamma(near) - near
    inverse = 1 / x.clamp(min=_SERIES_FROM)
    square = inverse * inverse
    # ψ(x) = ln x − 1/(2x) − s/x² and lnΓ(x) = (x − ½) ln x − x + ½ ln 2π + r/x.
    s = 1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240))
    r = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))
    rest = inverse * (1 / 2 - s - r) + square * s
    series = inverse.log() / 2 - (1 + math.log(2 * math.pi)) / 2 + rest
    return torch.where(x < _SERIES_FROM, exact, series)


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


def soft_dice(probability: Tensor, member: Tensor) -> Tensor:
    """1 − (2Σp̂y + 1)/(Σp̂ + Σy + 1) of each sample, mean over its C foregrounds.

    On p̂, never on the parameters: Dice of raw parameters rewards the size of the evidence instead
    of the overlap. The 1 is one pixel: an empty mask with an empty prediction costs 0.

    Args:
        probability, member: (B, C, *spatial) of each foreground, and 0 or 1 for where it is. Of K
            classes these are all but the background (Isensee et al. 2021, nnU-Net), which is most
            of an image and overlaps whatever is predicted.

    Returns:
        (B,) in [0, 1).
    """
    p, y = probability.flatten(2), member.flatten(2)
    return (1 - (2 * (p * y).sum(2) + 1) / (p.sum(2) + y.sum(2) + 1)).mean(1)


def marginal_ace(probability: Tensor, member: Tensor, bins: int = 20) -> Tensor:
    """Marginal L1 average calibration error of each sample: (B, C, *) and (B, C, *) to (B,) in
    [0, 1].

    Mean over the classes, and over the bins of p̂ that hold a pixel, of |mean p̂ − share of the
    class| (Barfuss et al. 2024, arXiv 2403.06759, hard-binned; 20 bins as there). Of two classes
    that exclude each other one is enough: the bins of the other are its own mirrored. The gradient
    goes through the mean p̂ of each bin; which bin a pixel is in has none.
    """
    p, y = probability.flatten(2), member.flatten(2)
    place = (p.detach() * bins).long().clamp(0, bins - 1)
    total, filled = torch.zeros_like(p[..., 0]), torch.zeros_like(p[..., 0])
    # Bin by bin, as a scattered sum adds in an order that changes from run to run on a GPU.
    for number in range(bins):
        inside = (place == number).to(p)
        count = inside.sum(2)
        total = total + ((p - y) * inside).sum(2).abs() / count.clamp(min=1)
        filled = filled + (count > 0)
    return (total / filled).mean(1)


def class_weight(weights: Tensor | None, label: Tensor, *, exclusive: bool) -> Tensor | float:
    """What the loss of each element is multiplied by; see `Method.class_weights`.

    Args:
        weights: None for 1.
        label: Long: of classes that exclude each other (B, ...); else 0 or 1, (B, K, ...).
    """
    if weights is None:
        return 1.0
    weights = weights.to(label.device)
    if exclusive:
        return weights[label]
    absent, present = (side.view(1, -1, *[1] * (label.ndim - 2)) for side in weights.unbind(1))
    return torch.where(label > 0, present, absent)


def known_cross_entropy(
    scores: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropies of (B, K) log-odds and labels, summed over those that are known:
    (B,), in nats. NaN stands for unknown; smoothing by s makes the target 1 − s/2 or s/2. `weights`
    are those of `class_weight`."""
    known, truth = ~labels.isnan(), labels.nan_to_num()
    target = truth * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    each = each * class_weight(weights, truth.long(), exclusive=False)
    return (each * known).sum(dim=1)
