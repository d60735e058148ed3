"""Inference on differences between methods: paired tests, corrections, bootstrap.

A NaN stands for an evaluation that gave no number. It is left out, its partner in a pair with it,
and `n` says how many are left. SciPy, which takes seconds to load, is loaded by what needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

#: Of samples, of each of several resamples, (r, n), to what is computed from each of these, (r,).
Statistic: TypeAlias = Callable[[Floats], Floats]

#: Resamples drawn at once by the bootstrap: bounds its memory at this many rows of clusters.
CHUNK = 1_000
#: Weights of samples that a chunk may hold.
_MOST_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (ddof = 1) of n values; NaN where n is too small for them."""

    n: int
    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.std:.2g} (n = {self.n})"


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test of a - b.

    Attributes:
        n: Complete pairs.
        difference: Mean of a - b.
        low, high: Ends of the two-sided confidence interval of the difference.
        t, p: Statistic with n - 1 degrees of freedom, and its two-sided p-value.
        effect_size: Cohen's d_z, mean over standard deviation of the differences.
        refused: Why there is no statistic ("constant difference", "fewer than two pairs"); empty
            where there is one. Interval, t, p and effect size are NaN then.
    """

    n: int
    difference: float
    low: float
    high: float
    t: float
    p: float
    effect_size: float
    refused: str = ""

    @property
    def corrected_effect_size(self) -> float:
        """The effect size without its bias in small samples; NaN below three pairs.

        d_z is multiplied by J = Γ(ν/2) / (√(ν/2) Γ((ν-1)/2)) with ν = n - 1. Source: Hedges
        (1981), "Distribution theory for Glass's estimator of effect size", J. Educ. Stat. 6.
        """
        if self.n < 3:
            return np.nan
        half = (self.n - 1) / 2
        from scipy import special

        factor = np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half)
        return float(self.effect_size * factor)


@dataclass(frozen=True)
class Interval:
    """A mean difference and the ends of its confidence interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its confidence interval, NaN where they do not exist."""

    value: float
    low: float
    high: float


def summarise(values: ArrayLike) -> Summary:
    """Mean ± standard deviation (ddof = 1) over seeds."""
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[~np.isnan(array)]
    mean = float(array.mean()) if array.size else np.nan
    return Summary(array.size, mean, _std(array))


def paired_t_test(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedTest:
    """Student's t-test of values paired by seed (and split).

    A difference that is the same in every pair, but for rounding of `a` and `b`, is refused: it
    has no spread to be tested by, and the limit p = 0 would call any such accident certain. A
    difference of 0 in every pair has t = 0 and p = 1.
    """
    differences, exact = _differences(a, b)
    return _t_test(differences, exact, 1.0 / max(differences.size, 1), confidence)


def corrected_t_test(
    a: ArrayLike, b: ArrayLike, *, n_train: int, n_test: int, confidence: float = 0.95
) -> PairedTest:
    """Paired t-test for J resampled splits whose training sets overlap.

    The variance of the mean is (1/J + n_test/n_train) s² instead of s²/J. Source: Nadeau, Bengio
    (2003), "Inference for the generalization error", Machine Learning 52.
    """
    if n_train < 1 or n_test < 1:
        raise ValueError("n_train and n_test are counts of samples and must be positive")
    differences, exact = _differences(a, b)
    factor = 1.0 / max(differences.size, 1) + n_test / n_train
    return _t_test(differences, exact, factor, confidence)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjustment: p̃₍ᵢ₎ = max_{j≤i} min(1, (m - j + 1) p₍ⱼ₎), in input order.

    m counts the p-values that exist; a NaN stays NaN. Source: Holm (1979), Scand. J. Statist. 6.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted


def bootstrap_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of a - b, redrawing whole patients.

    `a` and `b` hold one value per sample, `clusters` the patient of each: images of one patient
    resemble each other, so resampling images alone would make the interval too narrow. The mean
    is over samples. With fewer than two patients the ends are NaN. Source: Field, Welsh (2007),
    "Bootstrapping clustered data", JRSS B 69.
    """
    pairs = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if pairs.ndim != 1 or len(clusters) != pairs.size:
        raise ValueError("a, b and clusters must be as long as each other")
    index, size = _index(clusters)
    kept = ~np.isnan(pairs)
    sums: Floats = np.bincount(index[kept], pairs[kept], minlength=size).astype(np.float64)
    counts = np.bincount(index[kept], minlength=size)
    # A patient with no value left is not drawn: it would only shorten the resample.
    sums, counts = sums[counts > 0], counts[counts > 0]
    difference = float(sums.sum() / counts.sum()) if counts.size else np.nan
    if counts.size < 2:
        return Interval(difference, np.nan, np.nan)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(difference, float(low), float(high))


def bootstrap(
    statistic: Statistic,
    clusters: Sequence[Hashable],
    *,
    resamples: int = 1_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of anything that is computed from samples, redrawing whole patients.

    `statistic` gets how often each sample was drawn, (r, n) for r resamples, and gives (r,) values;
    `clusters` holds the patient of each sample. A resample without a value (an AUROC of a single
    class) is left out; with fewer than two patients, or where half of the resamples have none, the
    ends are NaN. The draws depend on `seed` and the number of patients alone. Source: as
    `bootstrap_difference`.
    """
    index, size = _index(clusters)
    if not size:
        return Estimate(np.nan, np.nan, np.nan)
    value = float(statistic(np.ones((1, len(index))))[0])
    if size < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    share = np.full(size, 1.0 / size)
    step = max(1, min(CHUNK, _MOST_WEIGHTS // len(index)))
    batches = []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(size, share, size=min(step, resamples - start))
        batches.append(statistic(drawn[:, index].astype(np.float64)))
    values = np.concatenate(batches)
    values = values[~np.isnan(values)]
    if values.size * 2 < resamples:
        return Estimate(value, np.nan, np.nan)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))


def _index(clusters: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    """The number of each sample's cluster, in order of appearance, and how many there are."""
    position: dict[Hashable, int] = {}
    index = np.array([position.setdefault(c, len(position)) for c in clusters], dtype=np.intp)
    return index, len(position)


def _resampled_means(
    sums: Floats, counts: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Floats:
    share = np.full(counts.size, 1.0 / counts.size)
    means = []
    for start in range(0, resamples, CHUNK):
        drawn = rng.multinomial(counts.size, share, size=min(CHUNK, resamples - start))
        means.append((drawn @ sums) / (drawn @ counts))
    return np.concatenate(means)


def _differences(a: ArrayLike, b: ArrayLike) -> tuple[Floats, float]:
    """Of the complete pairs, and up to where they differ by rounding alone."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs need two equally long lists, got {first.shape}, {second.shape}")
    differences = first - second
    kept = ~np.isnan(differences)
    return differences[kept], _rounding(first[kept], second[kept])


def _rounding(*arrays: Floats) -> float:
    """The spread up to which values of this size are the same."""
    largest = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0)
    return float(4 * np.finfo(float).eps * largest)


def _std(array: Floats) -> float:
    """Sample standard deviation; exactly 0 for equal values, where the mean's rounding shows."""
    if array.size < 2:
        return np.nan
    spread = float(array.std(ddof=1))
    return 0.0 if spread <= _rounding(array) else spread


def _t_test(
    differences: Floats, exact: float, variance_factor: float, confidence: float
) -> PairedTest:
    n = differences.size
    mean = float(differences.mean()) if n else np.nan
    nothing = (np.nan,) * 5
    if n < 2:
        return PairedTest(n, mean, *nothing, refused="fewer than two pairs")
    spread = float(differences.std(ddof=1))
    if spread <= exact:
        if abs(mean) <= exact:
            return PairedTest(n, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        return PairedTest(n, mean, *nothing, refused="constant difference")
    error = spread * np.sqrt(variance_factor)
    t = mean / error
    from scipy import stats

    reach = float(stats.t.ppf((1.0 + confidence) / 2, n - 1)) * error
    p = 2.0 * float(stats.t.sf(abs(t), n - 1))
    return PairedTest(n, mean, mean - reach, mean + reach, float(t), p, mean / spread)
