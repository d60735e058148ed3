"""Uncertainty maps in closed form, and the score that sums up an image's map.

For a Beta(a, b) over the probability of the foreground, S = a + b and p̂ = a / S (Sensoy et al.
2018, arXiv:1806.01768). A classifier's "map" is one number per image. All entropies are in nats.
Every map grows with uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Smallest and largest value that each map can take (for a, b ≥ 1; the bounds may be limits), of
#: two classes. Of K classes entropy reaches ln K, least-confidence 1 − 1/K.
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


def beta_maps(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The maps that a Beta(a, b) per pixel offers; vacuity first.

    Args:
        a, b: Parameters of the foreground and of the background, ≥ 1, any one shape.

    Returns:
        Name (of `MAPS`) to map of the same shape, at least float32. Finite for evidence up to 1e6
        and beyond: nothing here subtracts digammas, which cancel in float32.
    """
    a, b = _at_least_float32(a), _at_least_float32(b)
    total = a + b
    smaller = torch.minimum(a, b) / total
    entropy = _entropy_of_smaller(smaller)
    # H(p̂) − E[H] with ψ(x + 1) = ln x + g(x): the logarithms cancel by hand. As x g(x) ≥ 0.42 for
    # x ≥ 1, the sum stays above 0 and below H(p̂) whatever the rounding.
    information = (a / total) * _digamma_gap(a) + (b / total) * _digamma_gap(b)
    information = information - _digamma_gap(total)
    return {
        "vacuity": 2 / total,
        "beta-variance": smaller * (1 - smaller) / (total + 1),
        "entropy": entropy,
        "expected-entropy": entropy - information,
        "mutual-information": information,
    }


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
    }


def categorical_maps(p: Tensor) -> dict[str, Tensor]:
    """What one distribution over classes per image offers; the entropy first.

    Args:
        p: (B, K) probabilities that sum to 1, or (B, 1) for the second of two classes.

    Returns:
        Name (of `MAPS`) to (B,), at least float32.
    """
    p = _at_least_float32(p)
    # Without the predicted class: float32 holds its distance from 1 only as the sum of the others.
    others = torch.minimum(p, 1 - p) if p.shape[1] == 1 else p.sort(dim=1).values[:, :-1]
    doubt = others.sum(dim=1)
    return {
        "entropy": torch.special.entr(others).sum(dim=1) - (1 - doubt) * torch.log1p(-doubt),
        "least-confidence": doubt,
    }


def label_maps(p: Tensor) -> dict[str, Tensor]:
    """Maps of the probabilities of several labels, each label on its own.

    Args:
        p: (B, K) in [0, 1].

    Returns:
        "entropy", the mean over the labels of H(p), and "least-confidence", the mean of
        min(p, 1 − p), (B,) each, at least float32.
    """
    p = _at_least_float32(p)
    smaller = torch.minimum(p, 1 - p)
    return {
        "entropy": _entropy_of_smaller(smaller).mean(dim=1),
        "least-confidence": smaller.mean(dim=1),
    }


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


def _entropy_of_smaller(smaller: Tensor) -> Tensor:
    """Binary entropy from the smaller probability, which float32 holds without cancellation."""
    return torch.special.entr(smaller) - (1 - smaller) * torch.log1p(-smaller)


def _digamma_gap(x: Tensor) -> Tensor:
    """g(x) = ψ(x + 1) − ln x for x ≥ 1, by the asymptotic series where the difference cancels."""
    square = 1 / (x * x)
    series = 0.5 / x - square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return torch.where(x < _SERIES_FROM, torch.digamma(x + 1) - torch.log(x), series)
