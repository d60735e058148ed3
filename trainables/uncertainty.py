"""Uncertainty maps in closed form, and the score that sums up an image's map.

For a Dirichlet(α) over the probabilities of K classes, S = Σ α and p̂ = α / S (Sensoy et al. 2018,
arXiv:1806.01768); a Beta over the probability of a foreground is K = 2. A classifier's "map" is one
number per image. All entropies are in nats. Every map grows with uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Smallest and largest value that each map can take (for α ≥ 1; the bounds may be limits), of two
#: classes. Of K classes entropy reaches ln K, least-confidence 1 − 1/K, bernoulli-variance half of
#: that.
RANGES: dict[str, tuple[float, float]] = {
    "vacuity": (0.0, 1.0),
    "beta-variance": (0.0, 1 / 12),
    "entropy": (0.0, math.log(2)),
    "expected-entropy": (0.0, math.log(2)),
    "mutual-information": (0.0, math.log(2) - 0.5),
    "bernoulli-variance": (0.0, 0.25),
    "least-confidence": (0.0, 0.5),
}

# From here on the asymptotic series of digamma is exact to float32, and to 1e-11 in float64.
_SERIES_FROM = 16.0
_TOP_SHARE = 0.01


def dirichlet_maps(alpha: Tensor) -> dict[str, Tensor]:
    """The maps that a Dirichlet(α) over K classes offers; vacuity first.

    Args:
        alpha: (B, K, *spatial) parameters ≥ 1.

    Returns:
        Name (of `MAPS`) to (B, *spatial), at least float32. Finite for evidence up to 1e6 and
        beyond: nothing here subtracts digammas, which cancel in float32.
    """
    alpha = _at_least_float32(alpha)
    total = alpha.sum(dim=1)
    p = alpha / total.unsqueeze(1)
    entropy, variance, _ = _categorical(p)
    # H(p̂) − E[H] with ψ(x + 1) = ln x + g(x): the logarithms cancel by hand. As x g(x) ≥ 0.42 for
    # x ≥ 1, the sum stays above 0 and below H(p̂) whatever the rounding.
    information = (p * _digamma_gap(alpha)).sum(dim=1) - _digamma_gap(total)
    return {
        "vacuity": alpha.shape[1] / total,
        "beta-variance": variance / (total + 1),
        "entropy": entropy,
        "expected-entropy": entropy - information,
        "mutual-information": information,
    }


def beta_maps(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """`dirichlet_maps` of two classes: of a Beta(a, b) of each element, in any one shape."""
    maps = dirichlet_maps(torch.stack([a, b]).unsqueeze(0))
    return {name: values[0] for name, values in maps.items()}


def bernoulli_maps(p: Tensor) -> dict[str, Tensor]:
    """The maps that a single foreground probability per pixel offers; the variance first.

    Args:
        p: Probability in [0, 1], any shape.

    Returns:
        Name (of `MAPS`) to map of the same shape, at least float32.
    """
    p = _at_least_float32(p)
    smaller = torch.minimum(p, 1 - p)
    return {
        "bernoulli-variance": smaller * (1 - smaller),
        "entropy": _entropy_of_smaller(smaller),
        "least-confidence": smaller,
    }


def categorical_maps(p: Tensor) -> dict[str, Tensor]:
    """What one distribution over classes per image or pixel offers; the entropy first.

    Args:
        p: (B, K, *spatial) probabilities that sum to 1 over K, or (B, 1, *spatial) for the second
            of two classes.

    Returns:
        Name (of `MAPS`) to (B, *spatial), at least float32.
    """
    p = _at_least_float32(p)
    if p.shape[1] == 1:
        return {name: values[:, 0] for name, values in bernoulli_maps(p).items()}
    entropy, variance, doubt = _categorical(p)
    return {"entropy": entropy, "least-confidence": doubt, "bernoulli-variance": variance}


def mean_maps(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps (B, K, *spatial) of K labels or regions, each on its own, to their means over these,
    (B, *spatial): how unsure the K answers are on average."""
    return {name: values.mean(dim=1) for name, values in maps.items()}


def ensemble_maps(p: Tensor) -> dict[str, Tensor]:
    """What T distributions over classes per image offer, of stochastic passes or of an ensemble.

    The entropy of the mean is the sum of the two others: what the data cause and what the passes
    disagree about (Depeweg et al. 2018, arXiv 1710.07283).

    Args:
        p: (T, ..., K) probabilities that sum to 1 over the last axis.

    Returns:
        "entropy", "expected-entropy" and "mutual-information", each (...), at least float32.
    """
    p = _at_least_float32(p)
    total = torch.special.entr(p.mean(dim=0)).sum(dim=-1)
    expected = torch.special.entr(p).sum(dim=-1).mean(dim=0)
    # The entropy is concave, so only rounding takes the difference below 0.
    information = (total - expected).clamp(min=0)
    return {"entropy": total, "expected-entropy": expected, "mutual-information": information}


def image_score(
    name: str, values: Tensor, threshold: float | None = None, *, measure: str | None = None
) -> Tensor:
    """One number per image from its map.

    Args:
        name: A name of `SCORES`: the mean; the max; the mean of the top 1 % (one pixel at least),
            a max that a single pixel cannot decide; or the share of pixels above `threshold`.
        values: (B, *spatial), or (B,) for one value per image.
        threshold: For "share" alone, in the map's own unit.
        measure: Name of the map (of `MAPS`); "share" without a threshold then uses half of what
            that map can reach.

    Returns:
        (B,) scores; an image with a NaN in its map scores NaN.

    Raises:
        ValueError: unknown score, or "share" with neither threshold nor measure.
    """
    if name not in SCORES:
        raise ValueError(f"unknown image score {name!r}; known: {', '.join(SCORES)}")
    flat = values.reshape(len(values), -1)
    if name != "share":
        return SCORES[name](flat, math.nan)
    if threshold is None:
        if measure is None:
            raise ValueError("the score 'share' needs a threshold, or the name of the measure")
        threshold = RANGES[measure][1] / 2
    return SCORES[name](flat, threshold)


def _top_mean(flat: Tensor, _: float) -> Tensor:
    return flat.topk(max(1, math.ceil(_TOP_SHARE * flat.shape[1])), dim=1).values.mean(dim=1)


def _share_above(flat: Tensor, threshold: float) -> Tensor:
    share = (flat > threshold).to(flat.dtype).mean(dim=1)
    return share.masked_fill(flat.isnan().any(dim=1), math.nan)


#: Image scores: (B, n) map and threshold to (B,).
SCORES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": lambda flat, _: flat.mean(dim=1),
    "max": lambda flat, _: flat.amax(dim=1),
    "top": _top_mean,
    "share": _share_above,
}


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _categorical(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of (B, K, ...): entropy, ½ Σ p(1 − p) and 1 − max p, (B, ...) each."""
    # Without the largest: float32 holds its distance from 1 only as the sum of the others.
    others = p.scatter(1, p.argmax(dim=1, keepdim=True), 0)
    doubt = others.sum(dim=1)
    entropy = torch.special.entr(others).sum(dim=1) - (1 - doubt) * torch.log1p(-doubt)
    variance = ((others * (1 - others)).sum(dim=1) + doubt * (1 - doubt)) / 2
    return entropy, variance, doubt


def _entropy_of_smaller(smaller: Tensor) -> Tensor:
    """Binary entropy from the smaller probability, which float32 holds without cancellation."""
    return torch.special.entr(smaller) - (1 - smaller) * torch.log1p(-smaller)


def _digamma_gap(x: Tensor) -> Tensor:
    """g(x) = ψ(x + 1) − ln x for x ≥ 1, by the asymptotic series where the difference cancels."""
    square = 1 / (x * x)
    series = 0.5 / x - square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return torch.where(x < _SERIES_FROM, torch.digamma(x + 1) - torch.log(x), series)
