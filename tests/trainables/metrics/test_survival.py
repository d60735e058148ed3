"""Survival metrics against pairs counted one by one, lifelines and scikit-survival where they are
installed, statsmodels, and data of known hazards."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.survfunc import SurvfuncRight

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.distributed.statistics.estimates import estimates
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.catalog import METRICS, all_names
from trustsweep.trainables.metrics.resampled import SURVIVAL, kaplan_meier
from trustsweep.trainables.metrics.skill import BEST_CONSTANT, KAPLAN_MEIER, LIFE_TABLE, triviality
from trustsweep.trainables.metrics.survival import SurvivalMetrics, risk_groups
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.survival import hazard_labels
from trustsweep.trainables.tasks import task_named

TASK = task_named(TaskName.SURVIVAL)
K = 4
EDGES = np.array([1.0, 2.0, 4.0])
Columns = dict[str, np.ndarray]


def drawn(seed: int, n: int = 60, ties: bool = False) -> Columns:
    """Columns of n patients with a noisy risk, a third of them censored."""
    rng = np.random.default_rng(seed)
    hazards = np.clip(rng.beta(2, 4, (n, K)), 0.01, 0.99)
    time = rng.exponential(2 * (1.3 - hazards.mean(axis=1)))
    end = rng.exponential(4.0, n)
    event, time = (time <= end).astype(float), np.minimum(time, end)
    risk = hazards.mean(axis=1)
    if ties:
        time, risk = np.round(time, 1), np.round(risk, 1)
    return {
        "time": time, "event": event, "interval": np.digitize(time, EDGES).astype(float),
        "risk": risk, "survival": np.cumprod(1 - hazards, axis=1),
    }  # fmt: skip


def value(name: str, columns: Columns, weights: np.ndarray | None = None) -> float:
    once = np.ones(len(columns["time"])) if weights is None else weights
    return float(SURVIVAL[name](columns)(once[None])[0])


def batch_of(columns: Columns) -> Batch:
    n = len(columns["time"])
    return Batch(
        sample_id=tuple(f"p{i}" for i in range(n)),
        image=torch.zeros(n, 0),
        **{k: torch.from_numpy(columns[k]).float() for k in ("time", "event", "interval")},
    )


def prediction_of(columns: Columns) -> Prediction:
    alive = np.pad(columns["survival"], ((0, 0), (1, 0)), constant_values=1.0)
    hazards = torch.from_numpy(1 - alive[:, 1:] / alive[:, :-1])
    doubt = torch.linspace(0, 1, len(hazards))
    return Prediction.from_probability(hazards, {"entropy": doubt}, exclusive=False)


def by_pairs(columns: Columns) -> float:
    """Harrell's index, a pair at a time."""
    right = pairs = 0.0
    rows = list(zip(columns["time"], columns["event"], columns["risk"], strict=True))
    for time, event, risk in rows:
        for other, seen, theirs in rows:
            if event == 1 and (time < other or (time == other and seen == 0)):
                pairs += 1
                right += 1.0 if risk > theirs else 0.5 if risk == theirs else 0.0
    return right / pairs


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_concordance_is_the_share_of_comparable_pairs(seed: int, ties: bool) -> None:
    columns = drawn(seed, 25, ties)
    assert value("c_index", columns) == pytest.approx(by_pairs(columns))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_concordance_against_lifelines(seed: int, ties: bool) -> None:
    utils = pytest.importorskip("lifelines.utils")
    columns = drawn(seed, 80, ties)
    # lifelines takes what rises with the time.
    oracle = utils.concordance_index(columns["time"], -columns["risk"], columns["event"])
    assert value("c_index", columns) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_weights_for_censoring_against_scikit_survival(seed: int) -> None:
    metrics = pytest.importorskip("sksurv.metrics")
    columns = drawn(seed, 80)
    truth = np.array(
        list(zip(columns["event"] == 1, columns["time"], strict=True)),
        dtype=[("event", bool), ("time", float)],
    )
    uno = metrics.concordance_index_ipcw(truth, truth, columns["risk"])[0]
    assert value("c_index_ipcw", columns) == pytest.approx(uno, abs=1e-9)
    _, scores = metrics.brier_score(truth, truth, columns["survival"][:, : K - 1], EDGES)
    assert value("integrated_brier", columns) == pytest.approx(scores.mean(), abs=1e-9)


def censoring(columns: Columns, at: float) -> float:
    """G just before a time, by statsmodels."""
    curve = SurvfuncRight(columns["time"], 1 - columns["event"])
    before = curve.surv_times < at
    return float(curve.surv_prob[before][-1]) if before.any() else 1.0


@pytest.mark.parametrize("seed", range(3))
def test_weights_for_censoring_by_hand(seed: int) -> None:
    columns = drawn(seed, 40)
    time, event, risk = columns["time"], columns["event"], columns["risk"]
    own = [censoring(columns, t) for t in time]
    brier, right, pairs = [], 0.0, 0.0
    for k, edge in enumerate(EDGES):
        terms = []
        for i, s in enumerate(columns["survival"][:, k]):
            alive, seen = time[i] >= edge, event[i] == 1 and time[i] < edge
            weight = 1 / censoring(columns, edge) if alive else 1 / own[i] if seen else 0.0
            terms.append(weight * (float(alive) - s) ** 2)
        brier.append(np.mean(terms))
    for i in np.flatnonzero(event == 1):
        later = time > time[i]
        pairs += later.sum() / own[i] ** 2
        right += (later & (risk < risk[i])).sum() / own[i] ** 2
    assert value("integrated_brier", columns) == pytest.approx(np.mean(brier))
    assert value("c_index_ipcw", columns) == pytest.approx(right / pairs)


def test_without_censoring_both_indices_are_one() -> None:
    columns = {**drawn(0), "event": np.ones(60)}
    assert value("c_index", columns) == pytest.approx(value("c_index_ipcw", columns))
    alive = columns["interval"][:, None] >= np.arange(1, K)
    squares = (alive - columns["survival"][:, : K - 1]) ** 2
    assert value("integrated_brier", columns) == pytest.approx(squares.mean())


@pytest.mark.parametrize("name", SURVIVAL)
def test_a_resample_is_a_data_set_with_these_patients_as_often(name: str) -> None:
    columns = drawn(3, 30)
    weights = np.random.default_rng(0).integers(0, 4, 30).astype(float)
    repeated = {k: np.repeat(v, weights.astype(int), axis=0) for k, v in columns.items()}
    assert value(name, columns, weights) == pytest.approx(value(name, repeated), abs=1e-9)


@pytest.mark.parametrize("name", SURVIVAL)
def test_patients_of_unknown_time_are_left_out(name: str) -> None:
    columns = drawn(4)
    more = {k: np.concatenate([v, v[:5]]) for k, v in columns.items()}
    for key in ("time", "event", "interval"):
        more[key][-5:] = math.nan
    assert value(name, more) == value(name, columns)


def known_hazards(n: int = 4000) -> tuple[Columns, np.ndarray]:
    """Patients who die and are censored by the hazards that are predicted; and the share of each
    interval that they lived through in full."""
    rng = np.random.default_rng(1)
    hazards = rng.uniform(0.05, 0.5, (n, 1)) * np.ones(K)
    dies = rng.random((n, K)) < hazards
    when = np.where(dies.any(axis=1), dies.argmax(axis=1), K - 1)
    # Censored where an interval ends, so that the likelihood is that of the data.
    ends = rng.integers(0, K + 2, n)
    event = (dies.any(axis=1) & (when <= ends)).astype(float)
    interval = np.where(event == 1, when, np.minimum(ends, K - 1))
    time = interval + np.where(event == 1, rng.uniform(0.1, 0.8, n), 0.9)
    alive = np.cumprod(1 - hazards, axis=1)
    columns = {
        "time": time, "event": event, "interval": interval.astype(float),
        "risk": 1 - alive.mean(axis=1), "survival": alive,
    }  # fmt: skip
    return columns, hazards


def test_true_hazards_are_calibrated_and_the_likeliest() -> None:
    columns, hazards = known_hazards()
    assert value("ece", columns) < 0.03
    for factor in (0.7, 1.4):
        off = {**columns, "survival": np.cumprod(1 - np.clip(factor * hazards, 0, 1), axis=1)}
        assert value("ece", off) > 2 * value("ece", columns)
        assert value("nll", off) > value("nll", columns)
        assert value("integrated_brier", off) > value("integrated_brier", columns)
        # The order is the same.
        assert value("c_index", off) == value("c_index", columns)


def test_nll_is_that_of_the_hazards() -> None:
    columns = drawn(5)
    scores = prediction_of(columns).scores
    batch = batch_of(columns)
    labels = hazard_labels(batch.event.double(), batch.interval.double(), K)
    known = ~labels.isnan()
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, labels.nan_to_num(), reduction="none"
    )
    assert value("nll", columns) == pytest.approx(float((each * known).sum(dim=1).mean()))


def test_a_state_gives_what_the_samples_give() -> None:
    columns = drawn(6)
    plan = EvaluationPlan()
    evaluation = Evaluation(plan, TASK, TASK.read_prior([batch_of(drawn(7))]))
    scores = SampleScores(TASK)
    batch, prediction = batch_of(columns), prediction_of(columns)
    evaluation.update_truth(batch)
    evaluation.update("clean", prediction, batch)
    scores.update("clean", prediction, batch)
    found = evaluation.compute()
    assert list(found) == all_names(plan, TaskName.SURVIVAL)
    names = [f"clean.{name}" for name in SURVIVAL]
    by_patient = estimates(scores, plan, names, [*map(str, range(60))])
    for name in names:
        assert by_patient[name].value == pytest.approx(found[name], abs=1e-9)
        assert by_patient[name].low <= by_patient[name].value <= by_patient[name].high
    back = Evaluation.from_state_dict(evaluation.state_dict())
    assert back.compute() == pytest.approx(found, nan_ok=True)


def test_the_reliability_diagram_adds_up_to_the_ece() -> None:
    state = SurvivalMetrics()
    columns = drawn(8, 200)
    state.update(prediction_of(columns), batch_of(columns))
    curve = state.curve()
    filled = [
        (n, abs(said - seen))
        for n, said, seen in zip(
            curve["count"], curve["confidence"], curve["accuracy"], strict=True
        )
        if n
    ]
    total = sum(n for n, _ in filled)
    assert sum(n * gap for n, gap in filled) / total == pytest.approx(state.compute()["ece"])


def test_kaplan_meier_against_statsmodels() -> None:
    columns = drawn(9, ties=True)
    times, alive = kaplan_meier(columns["time"], columns["event"])
    oracle = SurvfuncRight(columns["time"], columns["event"])
    places = np.searchsorted(times, oracle.surv_times)
    np.testing.assert_allclose(alive[places], oracle.surv_prob)


def test_thirds_by_risk_hold_everyone_once() -> None:
    state = SurvivalMetrics()
    columns = drawn(10, 100)
    state.update(prediction_of(columns), batch_of(columns))
    groups = risk_groups(state.answers)
    assert [g["name"] for g in groups] == ["low risk", "middle risk", "high risk"]
    assert sum(g["patients"] for g in groups) == 100
    assert sum(g["events"] for g in groups) == columns["event"].sum()
    assert groups[0]["predicted"][0] > groups[1]["predicted"][0] > groups[2]["predicted"][0]
    assert all(g["alive"][0] == 1 and g["alive"] == sorted(g["alive"])[::-1] for g in groups)
    few = state.answers.select(np.arange(100) < 2)
    assert risk_groups(few) == []


# Predictors that ignore the image


def figures_of(columns: Columns, train: Columns) -> dict[str, dict[str, float]]:
    state = TASK.trivial(TASK.read_prior([batch_of(train)]))
    state.update(batch_of(columns))
    return state.metrics()


def test_trivial_curves_by_hand() -> None:
    train = {
        "time": np.array([0.5, 1.5, 1.6, 3.0, 5.0]), "event": np.array([1.0, 0.0, 1.0, 1.0, 0.0]),
        "interval": np.array([0.0, 1.0, 1.0, 2.0, 3.0]),
    }  # fmt: skip
    prior = TASK.read_prior([batch_of(train)]).survival
    assert prior is not None
    # Kaplan and Meier leave out whoever is censored from 1.5 on, the life table from the next
    # interval on.
    assert prior[0].tolist() == pytest.approx([4 / 5, 8 / 15, 4 / 15, 4 / 15])
    assert prior[1].tolist() == pytest.approx([4 / 5, 3 / 5, 3 / 10, 3 / 10])


@pytest.mark.parametrize("seed", range(3))
def test_trivial_figures_are_those_of_their_curves(seed: int) -> None:
    columns, train = drawn(seed), drawn(seed + 20)
    figures = figures_of(columns, train)
    prior = TASK.read_prior([batch_of(train)])
    assert prior.survival is not None
    skilled = {n for n, info in METRICS.items() if info.skilled and TaskName.SURVIVAL in info.tasks}
    for name, curve in zip((KAPLAN_MEIER, LIFE_TABLE), prior.survival, strict=True):
        same = {**columns, "survival": np.tile(curve, (60, 1)), "risk": np.zeros(60)}
        assert figures[name].keys() == skilled
        for metric in skilled:
            assert figures[name][metric] == pytest.approx(value(metric, same), abs=1e-5)
        evaluation = Evaluation(EvaluationPlan(), TASK, prior)
        evaluation.update_truth(batch_of(columns))
        evaluation.update("clean", prediction_of(same), batch_of(columns))
        assert triviality(evaluation.compute(), evaluation.trivial())
    for metric in ("nll", "integrated_brier"):
        others = [figures[KAPLAN_MEIER][metric], figures[LIFE_TABLE][metric]]
        assert figures[BEST_CONSTANT][metric] <= min(others) + 1e-12
    assert {row["c_index"] for row in figures.values()} == {0.5}


def test_trivial_states_merge_and_travel() -> None:
    columns = drawn(2)
    prior = TASK.read_prior([batch_of(drawn(3))])
    whole: Any = TASK.trivial(prior)
    whole.update(batch_of(columns))
    merged: Any = TASK.trivial(prior)
    for rows in ([3, 1, 2, 0], list(range(59, 3, -1))):
        worker = TASK.trivial(prior)
        worker.update(batch_of(columns).select(rows))
        sent = TASK.trivial()
        sent.load(worker.state_dict())
        merged.merge(sent)
    for name, row in whole.metrics().items():
        assert merged.metrics()[name] == pytest.approx(row, abs=1e-12)
    empty = TASK.trivial().metrics()
    assert all(math.isnan(v) for row in empty.values() for v in row.values())
    with pytest.raises(ValueError, match="train split"):
        TASK.read_prior([])
