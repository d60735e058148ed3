"""Risk against coverage, thresholds chosen elsewhere, and what they leave."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score, roc_auc_score

from trustsweep.trainables.metrics.ranking import Answers
from trustsweep.trainables.metrics.selective import accepted, risk_coverage, threshold

SHARES = (0.95, 0.9, 0.8, 0.7, 0.5)


def answers(seed: int, n: int = 200, classes: int = 3, levels: int | None = None) -> Answers:
    """Right more often where certain; uncertainties in so many levels, or all different."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    doubt = 1 - p.max(axis=1)
    return Answers(truth, doubt if levels is None else np.floor(doubt * levels), p)


def binary(wrong: np.ndarray, uncertainty: np.ndarray) -> Answers:
    """All of class 1, said to be of class 0 where wrong."""
    p = np.where(wrong, 0.1, 0.9)
    return Answers(np.ones(len(wrong), int), uncertainty, np.stack([1 - p, p], axis=1))


def test_the_perfect_order_has_the_area_of_the_closed_form() -> None:
    n, rate = 100_000, 0.2
    wrong = np.arange(n) >= n * (1 - rate)
    coverage, risk = risk_coverage(binary(wrong, np.arange(n, dtype=float)))
    assert risk.mean() == pytest.approx(rate + (1 - rate) * math.log(1 - rate), abs=1e-4)
    assert risk.mean() == pytest.approx(0.0215, abs=1e-4)
    assert (coverage[-1], risk[-1]) == (1.0, pytest.approx(rate))
    assert not risk[: int(n * (1 - rate))].any()


@pytest.mark.parametrize("tied", [True, False])
def test_an_order_without_meaning_has_the_error_rate_everywhere(tied: bool) -> None:
    rng, n = np.random.default_rng(0), 20_000
    wrong = rng.random(n) < 0.2
    _, risk = risk_coverage(binary(wrong, np.zeros(n) if tied else rng.random(n)))
    assert risk.mean() == pytest.approx(wrong.mean(), abs=1e-12 if tied else 0.01)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_ties_count_as_in_random_order(cases: list[tuple[int, bool]]) -> None:
    """Against the mean over every order that the uncertainties allow."""
    doubt, wrong = np.array([d for d, _ in cases], float), np.array([w for _, w in cases])
    orders = [
        o for o in map(list, permutations(range(len(cases)))) if (np.diff(doubt[o]) >= 0).all()
    ]
    brute = [[wrong[order[:i]].mean() for i in range(1, len(cases) + 1)] for order in orders]
    _, risk = risk_coverage(binary(wrong, doubt))
    assert risk == pytest.approx(np.mean(brute, axis=0))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n", [1, 7, 10, 20, 101])
def test_a_threshold_reaches_its_share_where_it_was_chosen(share: float, n: int) -> None:
    whole = answers(n, n=n)
    reached = accepted(whole, threshold(whole.uncertainty, share))["coverage"]
    assert share - 1e-9 <= reached < share + 1 / n
    coarse = answers(n, n=n, levels=3)
    limit = threshold(coarse.uncertainty, share)
    assert accepted(coarse, limit)["coverage"] >= share - 1e-9
    assert np.mean(coarse.uncertainty < limit) < share  # no lower threshold would do


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("share", SHARES)
def test_what_is_accepted_is_as_good_as_scikit_learn_finds(classes: int, share: float) -> None:
    validation, test = answers(1, classes=classes), answers(2, n=300, classes=classes)
    limit = threshold(validation.uncertainty, share)
    kept = test.uncertainty <= limit
    truth, p = test.truth[kept], test.probability[kept]
    found = accepted(test, limit)
    precision = precision_score(truth, p.argmax(1), average="macro", zero_division=np.nan)
    ranked = (
        roc_auc_score(truth, p[:, 1])
        if classes == 2
        else roc_auc_score(truth, p, multi_class="ovr", average="macro")
    )
    assert found["coverage"] == kept.mean()
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, p.argmax(1)))
    assert found["precision"] == pytest.approx(precision)
    assert found["auroc"] == pytest.approx(ranked)


def test_abstaining_helps_where_uncertainty_means_something() -> None:
    limit = threshold(answers(1).uncertainty, 0.5)
    assert accepted(answers(2), limit)["precision"] > answers(2).quality()["precision"] + 0.05


def test_what_does_not_exist_is_nan() -> None:
    none = Answers(np.zeros(0, int), np.zeros(0), np.zeros((0, 2)))
    assert [len(part) for part in risk_coverage(none)] == [0, 0]
    assert math.isnan(threshold(none.uncertainty, 0.9))
    assert all(map(math.isnan, accepted(none, 1.0).values()))
    whole = answers(0)
    refused = accepted(whole, -1.0)
    assert refused.pop("coverage") == 0
    assert all(map(math.isnan, refused.values()))
    assert all(map(math.isnan, accepted(whole, math.nan).values()))


def test_one_class_only_has_an_accuracy_and_no_auroc() -> None:
    found = binary(np.array([True, False, False]), np.zeros(3)).quality()
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(0.5)  # of 0 none, of 1 all
    assert math.isnan(found["auroc"])


def test_nan_is_refused_and_never_orders() -> None:
    whole = answers(3, n=10)
    whole.uncertainty[4] = math.nan
    assert np.isnan(risk_coverage(whole)[1]).all()
    assert math.isnan(threshold(whole.uncertainty, 0.5))
    assert accepted(whole, 1.0)["coverage"] == pytest.approx(0.9)
    whole.probability[5] = math.nan
    assert all(map(math.isnan, whole.quality().values()))
