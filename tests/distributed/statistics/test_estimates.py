"""Figures from samples' scores: the streaming metrics, closed forms and simulation as oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.distributed.statistics.estimates import (
    LEAST_IN_GROUP,
    estimates,
    group_estimates,
    headline_names,
)
from trustsweep.distributed.statistics.inference import bootstrap, bootstrap_difference
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.ranking import auroc
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import task_named

PLAN = EvaluationPlan(epsilons=(0.0, 0.01, 0.03), corruptions=(("gaussian-noise", 3),))
CONDITIONS = ("clean", "corrupted@gaussian-noise-3", "attacked@0.01", "attacked@0.03")


def judged(
    task: TaskName, n: int, classes: int = 2, seed: int = 0
) -> tuple[Evaluation, SampleScores]:
    """Random predictions under every condition, taken in batch by batch."""
    generator = torch.Generator().manual_seed(seed)
    scores = SampleScores(task_named(task))
    evaluation = Evaluation(PLAN, task_named(task), scores=scores)
    draw = {"generator": generator}
    label = torch.randint(0, classes, (n,), **draw)  # type: ignore[call-overload]
    mask = (torch.rand((n, 1, 16, 16), generator=generator) < 0.2).float()
    mask[::5] = 0
    sex = [("f", "m", None)[i % 3] for i in range(n)]
    for condition in CONDITIONS:
        for rows in torch.arange(n).split(7):
            batch = Batch(
                sample_id=tuple(f"s{i}" for i in rows.tolist()),
                image=torch.zeros(len(rows), 0),
                label=label[rows],
                mask=mask[rows],
                groups={"sex": tuple(sex[i] for i in rows.tolist())},
            )
            if condition == CONDITIONS[0]:
                evaluation.update_truth(batch)
            if task is TaskName.SEGMENTATION:
                p = torch.rand((len(rows), 1, 16, 16), generator=generator) * 0.6
                p += 0.3 * batch.mask * (condition == "clean")
                doubt = (p * (1 - p)).squeeze(1)
            else:
                p = torch.rand((len(rows), classes), generator=generator).softmax(1)
                doubt = 1 - p.amax(dim=1)
            # Ties, and answers without doubt.
            p = (p * 20).round() / 20 if task is TaskName.SEGMENTATION else p
            evaluation.update(condition, Prediction.from_probability(p, {"entropy": doubt}), batch)
    return evaluation, scores


@pytest.mark.parametrize(
    ("task", "classes"),
    [(TaskName.SEGMENTATION, 2), (TaskName.CLASSIFICATION, 2), (TaskName.CLASSIFICATION, 4)],
)
def test_every_figure_is_that_of_the_streaming_metric(task: TaskName, classes: int) -> None:
    evaluation, scores = judged(task, 60, classes)
    metrics = evaluation.compute()
    kinds = ("clean", "corrupted", "attacked", "attacked@0.03")
    names = [f"{kind}.{leaf}" for kind in kinds for leaf in task_named(task).statistics]
    names += [name for name in metrics if name.endswith("_area")]
    asked = [*names, "cost.seconds", "clean.mce"]
    found = estimates(scores, PLAN, asked, list(range(60)), trivial=evaluation.trivial())
    assert found.keys() == set(names)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(metrics[name], abs=1e-12), name
        # Resampling adds to a calibration error, so that its interval may lie above it.
        assert estimate.low < estimate.high or "false_alarms" in name, name
        assert estimate.low <= estimate.value <= estimate.high or "ece" in name, name


def test_a_mean_has_the_interval_of_the_cluster_bootstrap() -> None:
    _, scores = judged(TaskName.SEGMENTATION, 60)
    patients = [i // 3 for i in range(60)]
    mine = estimates(scores, PLAN, ["clean.dice"], patients)["clean.dice"]
    dice = scores.columns("clean")["dice"]
    whole = bootstrap_difference(dice, np.zeros(60), patients, resamples=1_000)
    assert (mine.value, mine.low, mine.high) == pytest.approx(
        (whole.difference, whole.low, whole.high)
    )


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(5, 40))
def test_an_auroc_of_weights_is_that_of_repeated_samples(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    score, truth = rng.integers(0, 6, n) / 6, rng.integers(0, 2, n)
    weights = rng.integers(0, 4, (3, n))
    columns = {"truth": truth, "probability": np.stack([1 - score, score], axis=1)}
    found = task_named(TaskName.CLASSIFICATION).statistics["auroc"](columns)(weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        repeated, labels = np.repeat(score, row), np.repeat(truth, row)
        expected = auroc(repeated[labels == 0], repeated[labels == 1])
        assert value == pytest.approx(expected, nan_ok=True)


def test_images_of_one_patient_do_not_make_an_interval_narrower() -> None:
    _, scores = judged(TaskName.CLASSIFICATION, 60)
    each = estimates(scores, PLAN, ["clean.accuracy"], list(range(60)))["clean.accuracy"]
    # All images of a patient alike: as many patients as before, each three times.
    rng = np.random.default_rng(0)
    values = rng.random(40)

    def mean(weights: np.ndarray) -> np.ndarray:
        return weights @ np.repeat(values, 3) / weights.sum(axis=1)

    def alone(weights: np.ndarray) -> np.ndarray:
        return weights @ values / weights.sum(axis=1)

    tripled = bootstrap(mean, [i // 3 for i in range(120)])
    once = bootstrap(alone, list(range(40)))
    assert (tripled.value, tripled.low, tripled.high) == pytest.approx(
        (once.value, once.low, once.high)
    )
    assert each.low < each.value < each.high
    assert np.isnan(bootstrap(alone, ["one"] * 40).low)


def test_the_interval_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        patients = rng.normal(0.5, 0.1, 40)
        values = np.repeat(patients, 3) + rng.normal(0, 0.02, 120)
        found = bootstrap(
            lambda w, v=values: w @ v / w.sum(axis=1),  # type: ignore[misc]
            [i // 3 for i in range(120)],
            resamples=400,
            seed=seed,
        )
        hits += found.low <= 0.5 <= found.high
    assert 0.89 <= hits / 300 <= 0.98


def test_groups_are_told_of_where_there_are_enough() -> None:
    n = 3 * LEAST_IN_GROUP
    evaluation, scores = judged(TaskName.SEGMENTATION, n)
    found = group_estimates(scores, PLAN, list(range(n)))
    metrics = evaluation.compute()
    worst = min(CONDITIONS[1:], key=lambda condition: metrics[f"{condition}.dice_lesion"])
    assert found["conditions"] == ["clean", worst]
    assert [(row["value"], row["images"]) for row in found["rows"]] == [
        ("f", LEAST_IN_GROUP),
        ("m", LEAST_IN_GROUP),
    ]
    columns = scores.columns("clean")
    lesion = columns["dice"][::3][columns["lesion_pixels"][::3] > 0].mean()
    assert found["rows"][0]["figures"]["clean.dice_lesion"].value == pytest.approx(lesion)
    _, few = judged(TaskName.SEGMENTATION, n - 3)
    assert group_estimates(few, PLAN, list(range(n - 3))) == {}


def test_what_is_no_number_makes_no_figure() -> None:
    scores = SampleScores(task_named(TaskName.CLASSIFICATION))
    broken = torch.tensor([[torch.nan, torch.nan], [0.2, 0.8]])
    batch = Batch(sample_id=("a", "b"), image=torch.zeros(2, 0), label=torch.tensor([0, 1]))
    scores.update("clean", Prediction(broken, {"entropy": torch.zeros(2)}), batch)
    assert scores.columns("clean")["predicted"].tolist() == [-1, 1]
    names = headline_names(task_named(TaskName.CLASSIFICATION), EvaluationPlan(), [])
    found = estimates(scores, EvaluationPlan(), names, ["a", "b"])
    assert all(np.isnan(estimate.value) for estimate in found.values())
