"""Ridge regression of a few samples, with the error that it makes on samples it has not seen.

Everything is assessed by leave-one-out residuals, which cost no second fit: with hat matrix H,
``e_i = (y_i - ŷ_i) / (1 - h_ii)``. They choose each target's penalty (an infinite one among the
candidates: then the features say nothing and the mean is all there is), they say how much of a
target's variance the features explain, and, as ``e_i² (1 - h_ii)`` has the noise's variance on
average, they give the variance of a forecast at ``a``: ``s² (1 + h(a))``, where the leverage h
grows with the distance from what was seen.

Source: Hastie, Tibshirani, Friedman (2009), "The elements of statistical learning", 3.4.1, 7.10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from trustsweep.distributed.statistics.front import Floats

#: Candidates, per sample and in units of a feature's variance.
_PENALTIES = np.array([1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf])
_TINY = 1e-12
#: Confidence, one-sided, from which on a skill is no chance.
_SURE = 0.975


@dataclass(frozen=True)
class Forecasts:
    """What a fit says of one more sample: a multivariate Student distribution (with the fit's own
    correlation and degrees of freedom).

    Attributes:
        mean: (k,) centres.
        deviation: (k,) scales.
    """

    mean: Floats
    deviation: Floats


@dataclass(frozen=True)
class Ridge:
    """A fit of k targets on p features.

    Attributes:
        skill: (k,) the part of each target's variance that is foretold: 1 less the ratio of the
            squared leave-one-out errors with and without the features, of measured targets. 0 where
            that is not surely (97.5 %, one-sided) above 0: few samples show skill by chance.
        correlation: (k, k) of a forecast's errors, shrunk towards none where samples are few.
        freedom: Degrees of freedom of a forecast, of the target that has least; at least 2.
    """

    skill: Floats
    correlation: Floats
    freedom: float
    _centre: Floats
    _scale: Floats
    _offset: Floats
    _coefficients: Floats
    _noise: Floats
    _axes: Floats
    _weights: Floats
    _samples: int

    @staticmethod
    def fit(features: Floats, targets: Floats, variances: Floats) -> Ridge:
        """Fit (n, k) targets on (n, p) features, all finite, n at least 3.

        `variances` (n, k) are of targets that are estimates themselves; they add to the noise.
        """
        n = len(features)
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        offset = targets.mean(axis=0)
        left, singular, axes = np.linalg.svd((features - centre) / scale, full_matrices=False)
        outcome = targets - offset
        # (penalties, p): how much of each direction a penalty leaves, and the same of its inverse.
        shares = singular**2 / (singular**2 + n * _PENALTIES[:, None] + _TINY)
        leverages = np.minimum(1 / n + shares @ (left**2).T, 1 - 1e-6)
        fitted = np.einsum("np,lp,pk->lnk", left, shares, left.T @ outcome)
        errors = (outcome - fitted) / (1 - leverages)[:, :, None]
        losses = (errors**2).mean(axis=1)
        best = losses.argmin(axis=0)
        columns = np.arange(targets.shape[1])
        noise = errors[best, :, columns] * np.sqrt(1 - leverages[best])
        return Ridge(
            skill=_skill(errors[best, :, columns].T, errors[-1], (variances == 0).all(axis=1)),
            _centre=centre,
            _scale=scale,
            _offset=offset,
            _coefficients=axes.T
            @ (shares[best].T * (left.T @ outcome) / (singular + _TINY)[:, None]),
            _noise=np.sqrt((noise**2).mean(axis=1) + variances.mean(axis=0)),
            correlation=_correlation(noise),
            freedom=max(2.0, n - float(leverages[best].sum(axis=1).max())),
            _axes=axes,
            _weights=1 / (singular**2 + n * _PENALTIES[best][:, None] + _TINY),
            _samples=n,
        )

    def forecast(self, features: Floats) -> Forecasts:
        """Of one sample's (p,) features."""
        at = (features - self._centre) / self._scale
        leverage = 1 / self._samples + self._weights @ (self._axes @ at) ** 2
        return Forecasts(
            self._offset + at @ self._coefficients,
            self._noise * np.sqrt(1 + leverage),
        )


def _skill(errors: Floats, without: Floats, measured: NDArray[np.bool_]) -> Floats:
    """`Ridge.skill` from (n, k) leave-one-out errors with and without the features."""
    base = (without[measured] ** 2).mean(axis=0)
    gains = without[measured] ** 2 - errors[measured] ** 2
    gain = gains.mean(axis=0)
    n = len(gains)
    surely = gain > stdtrit(n - 1, _SURE) * gains.std(axis=0, ddof=1) / np.sqrt(n)
    skill = np.where(surely, gain / np.maximum(base, _TINY), 0.0)
    # What never varies is foretold by its mean.
    return np.where(base > 0, skill, 1.0)


def _correlation(noise: Floats) -> Floats:
    """Of (k, n) residuals around 0: (k, k), shrunk by n / (n + k + 2)."""
    k, n = noise.shape
    lengths = np.sqrt((noise**2).sum(axis=1))
    lengths = np.where(lengths > 0, lengths, 1.0)
    shrunk = (noise @ noise.T) / np.outer(lengths, lengths) * (n / (n + k + 2))
    np.fill_diagonal(shrunk, 1.0)
    return shrunk
