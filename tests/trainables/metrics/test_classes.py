"""Metrics of classified images against scikit-learn and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
)

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics import samples
from trustsweep.trainables.metrics.base import MetricState
from trustsweep.trainables.metrics.calibration import ClassCalibration
from trustsweep.trainables.metrics.confusion import Confusion
from trustsweep.trainables.metrics.ranking import Ranking
from trustsweep.trainables.metrics.scores import ClassScores
from trustsweep.trainables.metrics.shift import ClassShift
from trustsweep.trainables.uncertainty import categorical_maps

Array = np.ndarray


def given_to(
    state: MetricState, p: Array, y: Array, uncertainty: Array | None = None
) -> dict[str, float]:
    """What the state computes from probabilities (B, K), classes (B,) and uncertainty (B,)."""
    for rows in np.array_split(np.arange(len(p)), 4):
        state.update(*batch(p[rows], y[rows], None if uncertainty is None else uncertainty[rows]))
    return state.compute()


def batch(p: Array, y: Array, uncertainty: Array | None = None) -> tuple[Prediction, Batch]:
    q = torch.from_numpy(p)
    maps = categorical_maps(q)
    if uncertainty is not None:
        maps = {"entropy": torch.from_numpy(uncertainty)}
    ids = tuple(row.tobytes().hex() for row in p)
    return Prediction.from_probability(q, maps), Batch(
        sample_id=ids, image=q, label=torch.from_numpy(y)
    )


def draw(classes: int, images: int = 400, digits: int = 2, seed: int = 0) -> tuple[Array, Array]:
    """Probabilities that know something of the classes; few digits make many ties."""
    g = np.random.default_rng(seed)
    y = g.integers(0, classes, images)
    score = g.normal(size=(images, classes)) + 1.5 * np.eye(classes)[y]
    p = np.exp(score).round(digits) + 0.01
    return p / p.sum(1, keepdims=True), y


def test_confusion_against_sklearn() -> None:
    p, y = draw(4)
    p[y == 2], y[y == 2] = [0.1, 0.2, 0.3, 0.4], 1  # a class that never occurs, but is predicted
    p[:3] = [0.1, 0.1, 0.7, 0.1]
    found, guess = given_to(Confusion(), p, y), p.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, guess), abs=1e-12)
    assert found["f1"] == pytest.approx(f1_score(y, guess, average="macro"), abs=1e-12)
    with pytest.warns(UserWarning, match="classes not in y_true"):
        balanced = balanced_accuracy_score(y, guess)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_and_auroc_against_sklearn(classes: int) -> None:
    p, y = draw(classes)
    found = given_to(ClassScores(), p, y) | given_to(Ranking(), p, y)
    score = p if classes > 2 else p[:, 1]
    assert found["nll"] == pytest.approx(log_loss(y, p), abs=1e-10)
    brier = brier_score_loss(y, p, scale_by_half=True, labels=range(classes))
    assert found["brier"] == pytest.approx(brier, abs=1e-10)
    auroc = roc_auc_score(y, score, multi_class="ovr", average="macro")
    assert found["auroc"] == pytest.approx(auroc, abs=1e-12)


def test_calibration_against_sklearn() -> None:
    p, y = draw(3, images=3000, digits=6)
    confidence, correct = p.max(1), p.argmax(1) == y
    for name, strategy, state in (
        ("ece", "uniform", ClassCalibration()),
        ("ece_adaptive", "quantile", Ranking()),
    ):
        found = given_to(state, p, y)
        accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy=strategy)
        # Of equally many images each, or as many as fall between the edges.
        edges = np.linspace(0, 1, 16)
        count = np.histogram(confidence, edges)[0] if name == "ece" else np.full(15, 200)
        expected = np.abs(accuracy - mean) @ count[count > 0] / 3000
        assert found[name] == pytest.approx(expected, abs=1e-9)
        if name == "ece":
            assert found["mce"] == pytest.approx(np.abs(accuracy - mean).max(), abs=1e-9)


@pytest.mark.parametrize(
    "make", [Confusion, ClassCalibration, ClassScores, Ranking], ids=lambda cls: cls.__name__
)
def test_one_output_and_two_are_alike(make: Callable[[], MetricState]) -> None:
    p, y = draw(2)
    single = given_to(make(), p[:, 1:], y)
    assert single == pytest.approx(given_to(make(), p, y), abs=1e-12)


def test_a_split_of_one_class() -> None:
    p, _ = draw(3)
    y = np.zeros(len(p), dtype=int)
    ranking, confusion = given_to(Ranking(), p, y), given_to(Confusion(), p, y)
    assert math.isnan(ranking["auroc"])
    assert all(math.isfinite(ranking[name]) for name in ("aurc", "e_aurc", "ece_adaptive"))
    assert confusion["balanced_accuracy"] == confusion["accuracy"]


def test_tied_probabilities_are_the_first_class() -> None:
    half = np.full((4, 1), 0.5)
    assert given_to(Confusion(), half, np.array([0, 0, 0, 1]))["accuracy"] == 0.75


def test_labels_beyond_the_classes_are_refused() -> None:
    p, y = draw(3)
    with pytest.raises(ValueError, match="differ from the 3 classes"):
        given_to(Confusion(), p, y + 1)


def test_auroc_of_a_sample_stays_within_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "CAPACITY", 1000)
    p, y = draw(2, images=8000, digits=6)
    sampled, exact = given_to(Ranking(), p, y)["auroc"], roc_auc_score(y, p[:, 1])
    # Some 500 of either class are kept: four standard errors.
    assert 0 < abs(sampled - exact) < 4 * 0.5 / math.sqrt(450)


# Selective prediction


def known_errors(rate: float, images: int) -> tuple[Array, Array, Array]:
    """Two classes, and which of the images are wrong."""
    wrong = np.arange(images) < rate * images
    p = np.where(wrong[:, None], [0.2, 0.8], [0.8, 0.2])
    return p, np.zeros(images, dtype=int), wrong


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_risk_coverage_closed_forms(rate: float) -> None:
    p, y, wrong = known_errors(rate, 20_000)
    best = rate + (1 - rate) * math.log(1 - rate)
    found = given_to(Ranking(), p, y, wrong + 0.0)
    assert found["aurc"] == pytest.approx(best, abs=1e-3)
    assert found["e_aurc"] == pytest.approx(0, abs=1e-12)
    # Equal uncertainty stands for every order alike.
    found = given_to(Ranking(), p, y, np.ones(len(p)))
    assert found["aurc"] == pytest.approx(rate, abs=1e-12)
    assert found["e_aurc"] == pytest.approx(rate - best, abs=1e-3)


@given(st.integers(0, 10_000))
def test_risk_coverage_against_its_definition(seed: int) -> None:
    p, y = draw(3, images=60, seed=seed)
    uncertainty = np.random.default_rng(seed).permutation(60) / 60
    error = (p.argmax(1) != y)[np.argsort(uncertainty)]
    risk = np.cumsum(error) / np.arange(1, 61)
    found = given_to(Ranking(), p, y, uncertainty)
    assert found["aurc"] == pytest.approx(risk.mean(), abs=1e-12)
    assert 0 <= found["e_aurc"] <= found["aurc"]
    again = given_to(Ranking(), p, y, np.exp(9 * uncertainty))
    assert again["aurc"] == pytest.approx(found["aurc"], abs=1e-12)


def test_equally_many_images_share_a_bin_whatever_their_order() -> None:
    # 30 images in bins of two; the first three are tied, of which one is right.
    confidence = np.concatenate([[0.52] * 3, np.linspace(0.55, 0.99, 27)])
    correct = np.r_[1, np.zeros(2), np.ones(27)]
    p, y = np.stack([1 - confidence, confidence], 1), correct.astype(int)
    gaps = np.r_[np.full(3, 1 / 3 - 0.52), 1 - confidence[3:]]
    expected = np.abs(gaps.reshape(15, 2).sum(1)).sum() / 30
    for order in (np.arange(30), np.r_[2, 1, 0, 3:30], np.arange(30)[::-1]):
        found = given_to(Ranking(), p[order], y[order])
        assert found["ece_adaptive"] == pytest.approx(expected, abs=1e-12)


# Shift under attack


def test_shift_follows_the_probability_of_the_true_class() -> None:
    (p, y), (q, _) = draw(3, digits=6), draw(3, digits=6, seed=1)
    clean, truth_of = batch(p, y)
    worse, _ = batch(q, y)
    state = ClassShift()
    state.update(clean, worse, truth_of)
    before, after = (m.uncertainty["entropy"].numpy() for m in (clean, worse))
    rows = np.arange(len(y))
    expected = stats.spearmanr(after - before, q[rows, y] - p[rows, y]).statistic
    found = state.compute()
    assert found["spearman"] == pytest.approx(expected, abs=1e-12)
    both = np.concatenate([before, after])
    truth = np.repeat([0, 1], len(y))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
