"""Several labels: scikit-learn as oracle, label by label, over those that are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.distributed.statistics.estimates import estimates, group_estimates
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.catalog import METRICS, all_names, state_classes
from trustsweep.trainables.metrics.labels import LabelCalibration, LabelMetrics, LabelShift
from trustsweep.trainables.metrics.skill import BEST_CONSTANT, LABEL_PRIOR, triviality
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

MULTILABEL = task_named(TaskName.MULTILABEL)
STATES = state_classes(METRICS, TaskName.MULTILABEL)
N, K = 80, 4
Pair = tuple[Prediction, Batch]


def pair(p: np.ndarray, truth: np.ndarray) -> Pair:
    probability = torch.from_numpy(p)
    batch = Batch(
        sample_id=tuple(f"s{i}" for i in range(len(p))),
        image=torch.zeros(len(p), 0),
        label=torch.from_numpy(truth).float(),
        groups={"sex": tuple("fm"[i % 2] for i in range(len(p)))},
    )
    doubt = torch.minimum(probability, 1 - probability).mean(dim=1)
    said = Prediction.from_probability(probability, {"entropy": doubt}, exclusive=False)
    return said, batch


def draw(seed: int, n: int = N, unknown: float = 0.2, constant: bool = False) -> tuple:
    """Probabilities with ties (n, K) and truths, some unknown; the last label nobody has."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, K)) < [0.5, 0.3, 0.1, 0.0]).astype(float)
    truth[0, :3], truth[1, :3] = 1, 0
    p = np.round(np.clip(0.3 * truth + 0.7 * rng.random((n, K)), 0.01, 0.99), 2)
    if constant:
        p = np.tile(rng.random(K), (n, 1))
    truth[2:][rng.random((n - 2, K)) < unknown] = math.nan
    return p, truth


def state_of(*pairs: Pair) -> LabelMetrics:
    state = LabelMetrics()
    for prediction, batch in pairs:
        state.update(prediction, batch)
    return state


def part(whole: Pair, rows: list[int]) -> Pair:
    prediction, batch = whole
    maps = {k: v[rows] for k, v in prediction.uncertainty.items()}
    return Prediction(prediction.scores[rows], maps, exclusive=False), batch.select(rows)


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn_label_by_label(seed: int) -> None:
    p, truth = draw(seed)
    found = state_of(pair(p, truth)).compute()
    known = ~np.isnan(truth)
    columns = [(truth[known[:, k], k], p[known[:, k], k]) for k in range(K)]
    both = columns[:3]  # the last label nobody has
    assert found["auroc"] == pytest.approx(np.mean([roc_auc_score(*c) for c in both]))
    assert found["average_precision"] == pytest.approx(
        np.mean([average_precision_score(*c) for c in both])
    )
    assert found["brier"] == pytest.approx(np.mean([brier_score_loss(*c) for c in columns]))
    assert found["nll"] == pytest.approx(np.mean([log_loss(*c, labels=[0, 1]) for c in columns]))
    right = (p > 0.5) == (truth > 0.5)
    assert found["accuracy"] == pytest.approx(right[known].mean())


@pytest.mark.parametrize("cls", STATES, ids=lambda cls: cls.__name__)
def test_what_is_not_known_counts_nowhere(cls: type) -> None:
    p, truth = draw(0)
    twisted = np.where(np.isnan(truth), 1 - p, p)
    # What an image is unsure of changes with it; the order of images is of another metric.
    for name in ("accuracy", "auroc", "average_precision", "nll", "brier", "ece", "mce"):
        values = []
        for said in (p, twisted):
            state = cls()
            state.update(*pair(said, truth))
            values.append(state.compute().get(name))
        assert values[0] == values[1]


@pytest.mark.parametrize("cls", STATES, ids=lambda cls: cls.__name__)
def test_an_image_of_which_nothing_is_known_counts_nowhere(cls: type) -> None:
    p, truth = draw(4)
    rng = np.random.default_rng(4)
    nothing = np.full((7, K), math.nan)
    more = np.concatenate([p, rng.random((7, K))]), np.concatenate([truth, nothing])
    plain, padded = cls(), cls()
    plain.update(*pair(p, truth))
    padded.update(*pair(*more))
    assert padded.compute() == pytest.approx(plain.compute(), abs=1e-12)


def test_a_shift_is_of_images_of_which_something_is_known() -> None:
    p, truth = draw(5)
    truth[3:9] = math.nan
    attacked, kept = np.clip(p - 0.2, 0.01, 0.99), [*range(3), *range(9, N)]
    whole, part_of = LabelShift(), LabelShift()
    whole.update(pair(p, truth)[0], pair(attacked, truth)[0], pair(p, truth)[1])
    few = pair(p, truth), pair(attacked, truth)
    part_of.update(part(few[0], kept)[0], *part(few[1], kept))
    assert whole.compute() == part_of.compute()


@pytest.mark.parametrize("cls", STATES, ids=lambda cls: cls.__name__)
def test_order_and_split_over_workers_do_not_matter(cls: type) -> None:
    whole = pair(*draw(1))
    one = cls()
    one.update(*whole)
    left, right = cls(), cls()
    left.update(*part(whole, list(range(50, 20, -1))))
    right.update(*part(whole, [*range(51, N), *range(21)]))
    sent = cls.from_state_dict(right.state_dict())
    left.merge(sent)
    assert left.compute() == pytest.approx(one.compute(), abs=1e-12)
    assert all(math.isnan(value) for value in cls().compute().values())


def test_the_confidence_in_every_known_label_is_calibrated_over_all_of_them() -> None:
    p, truth = draw(2)
    state = LabelCalibration()
    state.update(*pair(p, truth))
    known = ~np.isnan(truth)
    sure = np.maximum(p, 1 - p)[known]
    right = ((p > 0.5) == (truth > 0.5))[known]
    bins = np.ceil(np.round(sure * 15, 9))
    gaps = [abs((right - sure)[bins == b].sum()) for b in range(1, 16)]
    assert state.compute()["ece"] == pytest.approx(sum(gaps) / known.sum())


def test_a_shift_is_of_the_probability_that_the_truth_is_given() -> None:
    truth = np.array([[1.0, 0.0], [0.0, math.nan]])
    clean, attacked = np.array([[0.9, 0.2], [0.1, 0.5]]), np.array([[0.5, 0.6], [0.2, 0.9]])
    state = LabelShift()
    batch = pair(clean, truth)[1]
    state.update(pair(clean, truth)[0], pair(attacked, truth)[0], batch)
    merits = sorted(map(tuple, state.rows[:, 2:].round(6).tolist()))
    assert merits == [(0.85, 0.45), (0.9, 0.8)]


def evaluated(p: np.ndarray, truth: np.ndarray, train: np.ndarray) -> Evaluation:
    batch = pair(p, truth)[1]
    prior = MULTILABEL.read_prior([pair(np.full_like(train, 0.5), train)[1]])
    evaluation = Evaluation(EvaluationPlan(), MULTILABEL, prior)
    evaluation.update_truth(batch)
    evaluation.update("clean", *pair(p, truth))
    return evaluation


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_has_the_figures_in_closed_form_and_no_skill(seed: int) -> None:
    _, truth = draw(seed)
    _, train = draw(seed + 10)
    rates = {LABEL_PRIOR: np.nanmean(train, axis=0), BEST_CONSTANT: np.nanmean(truth, axis=0)}
    skills = []
    for name, rate in rates.items():
        evaluation = evaluated(np.tile(rate, (N, 1)), truth, train)
        found = evaluation.compute()
        assert list(found) == all_names(EvaluationPlan(), TaskName.MULTILABEL)
        for metric, value in evaluation.trivial()[name].items():
            assert found[f"clean.{metric}"] == pytest.approx(value, abs=1e-9), metric
        skills.append({n: v for n, v in found.items() if n.startswith("skill.")})
        assert triviality(found, evaluation.trivial()) == "no better than the label prior (auroc)"
    for metric in skills[0]:
        assert max(row[metric] for row in skills) == pytest.approx(0, abs=1e-6)


def test_the_truth_has_skill_one() -> None:
    _, truth = draw(0)
    found = evaluated(np.nan_to_num(truth, nan=0.5), truth, draw(1)[1]).compute()
    for name, value in found.items():
        if name.startswith("skill."):
            assert value == pytest.approx(1, abs=1e-6), name
    assert found["clean.ece"] == pytest.approx(0)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(0, 5))
def test_weights_are_repeated_samples(weights: list[int], seed: int) -> None:
    p, truth = draw(seed, n=12)
    if sum(weights) == 0:
        return
    chosen = np.repeat(np.arange(12), weights)
    for make in MULTILABEL.statistics.values():
        weighted = make({"truth": truth, "probability": p})(np.array([weights], dtype=float))
        once = np.ones((1, len(chosen)))
        repeated = make({"truth": truth[chosen], "probability": p[chosen]})(once)
        assert weighted == pytest.approx(repeated, nan_ok=True)


def test_estimates_are_the_streaming_metrics_and_every_label_stands_on_its_own() -> None:
    p, truth = draw(3, n=120)
    scores = SampleScores(MULTILABEL)
    scores.update("clean", *pair(p, truth))
    names = [f"clean.{metric}" for metric in MULTILABEL.statistics]
    patients = [i // 2 for i in range(120)]
    found = estimates(scores, EvaluationPlan(), names, patients)
    whole = evaluated(p, truth, truth).compute()
    for name in names:
        assert found[name].value == pytest.approx(whole[name]), name
        assert found[name].low <= found[name].value <= found[name].high
    classes = ("mass", "nodule", "oedema", "hernia")
    rows = {
        (row["group"], row["value"]): row
        for row in group_estimates(scores, EvaluationPlan(), patients, classes)["rows"]
    }
    assert [value for group, value in rows if group == "label"] == [*classes]
    for k, name in enumerate(classes):
        known = ~np.isnan(truth[:, k])
        row = rows["label", name]
        assert row["images"] == known.sum()
        assert row["positive"] == np.nansum(truth[:, k])
        if name != "hernia":
            expected = roc_auc_score(truth[known, k], p[known, k])
            assert row["figures"]["clean.auroc"].value == pytest.approx(expected)
    assert math.isnan(rows["label", "hernia"]["figures"]["clean.auroc"].value)
    assert ("sex", "f") in rows
