"""Statistics against SciPy, closed forms and simulation."""

import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustsweep.distributed.statistics.inference import (
    bootstrap_difference,
    corrected_t_test,
    holm,
    paired_t_test,
    summarise,
)

RNG = np.random.default_rng(7)
A = RNG.normal(0.80, 0.02, 5)
B = A - RNG.normal(0.01, 0.01, 5)


def test_summary_is_the_mean_and_the_sample_deviation() -> None:
    summary = summarise([1.0, 2.0, np.nan, 3.0])
    assert (summary.n, summary.mean, summary.std) == (3, 2.0, 1.0)
    assert str(summary) == "2 ± 1 (n = 3)"


def test_one_seed_has_no_deviation_and_none_has_no_mean() -> None:
    assert summarise([0.5]).mean == 0.5
    assert np.isnan(summarise([0.5]).std)
    assert np.isnan(summarise([np.nan]).mean)
    assert summarise([0.1, 0.1, 0.1]).std == 0.0


def test_paired_t_test_is_scipys() -> None:
    ours, oracle = paired_t_test(A, B), stats.ttest_rel(A, B)
    interval = oracle.confidence_interval(0.95)
    assert (ours.t, ours.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.effect_size == pytest.approx(ours.t / np.sqrt(5))


def test_the_critical_t_of_five_seeds_is_2_776() -> None:
    differences = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    shifted = differences + 2.776445 * differences.std(ddof=1) / np.sqrt(5)
    result = paired_t_test(shifted, np.zeros(5))
    assert result.p == pytest.approx(0.05, abs=1e-6)
    assert result.low == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("n", "factor"), [(3, 0.564190), (5, 0.797885), (11, 0.922746)])
def test_the_effect_size_is_corrected_by_hedges_table(n: int, factor: float) -> None:
    differences = np.arange(1.0, n + 1)
    result = paired_t_test(differences, np.zeros(n))
    assert result.corrected_effect_size / result.effect_size == pytest.approx(factor, abs=1e-6)
    assert np.isnan(paired_t_test(differences[:2], np.zeros(2)).corrected_effect_size)


def test_the_corrected_effect_size_is_unbiased() -> None:
    drawn = np.random.default_rng(0).normal(0.8, 1.0, (4_000, 5))
    found = [paired_t_test(row, np.zeros(5)).corrected_effect_size for row in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_pairs_with_a_nan_are_left_out_together() -> None:
    with_gap = paired_t_test([*A, np.nan], [*B, 0.3])
    assert with_gap == paired_t_test(A, B)


def test_one_pair_gives_a_difference_and_nothing_else() -> None:
    result = paired_t_test([0.8], [0.7])
    assert result.n == 1
    assert result.difference == pytest.approx(0.1)
    assert all(np.isnan([result.t, result.p, result.low, result.high, result.effect_size]))
    assert result.refused == "fewer than two pairs"
    assert np.isnan(paired_t_test([np.nan], [1.0]).difference)


def test_a_constant_difference_is_refused_with_its_reason() -> None:
    lower = paired_t_test([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert lower.refused == "constant difference"
    assert lower.difference == pytest.approx(-0.3)
    assert all(np.isnan([lower.t, lower.p, lower.low, lower.high, lower.effect_size]))
    assert np.isnan(corrected_t_test(A, A + 1, n_train=80, n_test=20).p)
    # Holm's correction counts what was tested alone.
    assert holm([lower.p, 0.03]) == pytest.approx([np.nan, 0.03], nan_ok=True)


@given(st.integers(2, 8), st.floats(-0.1, 0.1), st.integers(0, 1000))
def test_rounding_is_no_spread(n: int, shift: float, seed: int) -> None:
    a = np.random.default_rng(seed).uniform(0.5, 1, n)
    result = paired_t_test(a + shift, a)
    assert result.p == 1 if abs(shift) < 1e-16 else np.isnan(result.p) or abs(shift) < 1e-14


def test_no_difference_at_all_is_a_test_without_doubt() -> None:
    same = paired_t_test(A, A)
    assert (same.t, same.p, same.difference, same.refused) == (0.0, 1.0, 0.0, "")


def test_corrected_t_widens_by_nadeau_and_bengios_factor() -> None:
    plain, wide = paired_t_test(A, B), corrected_t_test(A, B, n_train=80, n_test=20)
    assert plain.t / wide.t == pytest.approx(np.sqrt((1 / 5 + 20 / 80) / (1 / 5)))
    assert wide.p > plain.p
    assert wide.low < plain.low < plain.high < wide.high
    with pytest.raises(ValueError, match="positive"):
        corrected_t_test(A, B, n_train=0, n_test=5)


def test_corrected_t_tends_to_the_plain_one_for_small_test_sets() -> None:
    nearly = corrected_t_test(A, B, n_train=10**9, n_test=1)
    assert nearly.t == pytest.approx(paired_t_test(A, B).t)


def test_holm_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).shape == (0,)


def test_holm_leaves_a_missing_p_value_missing() -> None:
    adjusted = holm([0.01, np.nan, 0.04, 0.03])
    assert np.isnan(adjusted[1])
    assert adjusted[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(p_values)
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1.0, np.array(p) * len(p))).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """p̃ᵢ = max over all sets of hypotheses S that hold i of min(1, |S| · min p of S)."""
    sets = [
        chosen for n in range(1, len(p) + 1) for chosen in itertools.combinations(range(len(p)), n)
    ]
    closed = [
        max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))
    ]
    assert holm(p) == pytest.approx(closed)


@pytest.mark.slow  # statsmodels takes long to import
@pytest.mark.skipif(
    importlib.util.find_spec("statsmodels") is None, reason="statsmodels is not installed"
)
@given(p_values)
def test_holm_is_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_bootstrap_of_single_image_patients_is_scipys() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.02, 0.1, 60), np.zeros(60)
    ours = bootstrap_difference(a, b, list(range(60)), resamples=20_000)
    oracle = stats.bootstrap((a,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    expected = oracle.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert ours.difference == pytest.approx(a.mean())


def test_repeating_images_of_a_patient_does_not_narrow_the_interval() -> None:
    a = np.random.default_rng(4).normal(0, 1, 30)
    once = bootstrap_difference(a, 0 * a, list(range(30)))
    eight = np.repeat(a, 8)
    clustered = bootstrap_difference(eight, 0 * eight, list(np.repeat(np.arange(30), 8)))
    naive = bootstrap_difference(eight, 0 * eight, list(range(240)))
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    width = clustered.high - clustered.low
    assert width / (naive.high - naive.low) == pytest.approx(np.sqrt(8), rel=0.15)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 3)
    hits = 0
    for trial in range(200):
        a = rng.normal(0.1, 1.0, 40)[patients] + rng.normal(0, 0.5, 120)
        interval = bootstrap_difference(a, 0 * a, list(patients), resamples=1_000, seed=trial)
        hits += interval.low <= 0.1 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_bootstrap_edges() -> None:
    one = bootstrap_difference([0.5, 0.7], [0.1, 0.1], ["p", "p"])
    assert one.difference == pytest.approx(0.5)
    assert np.isnan(one.low)
    assert np.isnan(one.high)
    gap = bootstrap_difference([0.5, np.nan, 0.7], [0.1, 0.1, 0.1], ["p", "q", "r"])
    assert gap == bootstrap_difference([0.5, 0.7], [0.1, 0.1], ["p", "r"])
    with pytest.raises(ValueError, match="as long"):
        bootstrap_difference([1.0, 2.0], [1.0, 2.0], ["p"])
