"""Predictors that ignore the image, and the skill over the best of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, log_loss

from tests.trainables.metrics.test_families import pair
from tests.trainables.metrics.test_states import labelled
from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.catalog import METRICS, all_names
from trustsweep.trainables.metrics.confusion import Confusion
from trustsweep.trainables.metrics.overlap import Overlap
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.ranking import Ranking
from trustsweep.trainables.metrics.scores import ClassScores, ProperScores
from trustsweep.trainables.metrics.skill import (
    BEST_CONSTANT,
    CLASS_PRIOR,
    EMPTY_MASK,
    FIXED_MASK,
    FULL_MASK,
    MAJORITY_CLASS,
    MEAN_MASK,
    best_trivial,
    skill,
    triviality,
)
from trustsweep.trainables.metrics.trivial import TrivialClasses, TrivialMasks
from trustsweep.trainables.tasks import task_named

#: Tasks that have metrics.
JUDGED = (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
SKILLED = {
    task: {n for n, info in METRICS.items() if info.skilled and task in info.tasks}
    for task in JUDGED
}
PLAN = EvaluationPlan()


def masks(seed: int, images: int = 12, side: int = 8, empty: int = 3) -> Batch:
    """Squares near the middle, the first `empty` images without one."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(images, 1, side, side)
    for i in range(empty, images):
        row, column = torch.randint(1, side // 2, (2,), generator=g).tolist()
        mask[i, 0, row : row + side // 2, column : column + side // 2] = 1
    ids = tuple(f"{seed}-{i}" for i in range(images))
    return Batch(sample_id=ids, image=torch.zeros_like(mask), mask=mask)


def labels(*classes: int) -> Batch:
    ids = tuple(f"s{i}" for i in range(len(classes)))
    return Batch(sample_id=ids, image=torch.zeros(len(classes), 0), label=torch.tensor(classes))


def figures_of(task: TaskName, batch: Batch, prior: Prior | None = None) -> dict:
    state = task_named(task).trivial(prior)
    state.update(batch)
    return state.metrics()


# Segmentation


@given(st.integers(0, 6), st.integers(1, 6))
def test_the_empty_mask_has_the_dice_of_the_share_without_lesion(empty: int, full: int) -> None:
    found = figures_of(TaskName.SEGMENTATION, masks(0, empty + full, empty=empty))[EMPTY_MASK]
    assert found["dice"] == pytest.approx(empty / (empty + full))
    assert found["dice_lesion"] == found["dice_micro"] == 0
    assert found["empty_share"] == 1


def test_masks_against_the_states_that_judge_models() -> None:
    """Each trivial predictor, given as a model's prediction."""
    train, batch = masks(1), masks(2)
    assert batch.mask is not None
    prior = task_named(TaskName.SEGMENTATION).read_prior([train])
    found = figures_of(TaskName.SEGMENTATION, batch, prior)
    truth = batch.mask[:, 0]
    rate = float(truth.mean())
    assert prior.mean is not None
    assert prior.fixed is not None
    said = {
        EMPTY_MASK: torch.zeros_like(truth),
        FULL_MASK: torch.ones_like(truth),
        MEAN_MASK: torch.from_numpy(prior.mean).expand_as(truth),
        FIXED_MASK: torch.from_numpy(prior.fixed).float().expand_as(truth),
        BEST_CONSTANT: torch.full_like(truth, rate, dtype=torch.float64),
    }
    assert said.keys() == found.keys()
    for name, p in said.items():
        prediction, _ = pair(p, truth)
        overlap, scores = Overlap(), ProperScores()
        overlap.update(prediction, batch)
        scores.update(prediction, batch)
        assert found[name] == pytest.approx({**overlap.compute(), **scores.compute()}, abs=1e-7)
        assert SKILLED[TaskName.SEGMENTATION] <= found[name].keys()
    assert found[BEST_CONSTANT]["brier"] == pytest.approx(rate * (1 - rate))


def test_the_fixed_mask_is_the_best_of_all_on_what_it_was_made_from() -> None:
    """Against every one of the 2^9 masks of 3 x 3 pixels."""
    g = torch.Generator().manual_seed(3)
    mask = (torch.rand(7, 1, 3, 3, generator=g) < torch.rand(3, 3, generator=g)).float()
    mask[2] = 0
    batch = Batch(sample_id=tuple("abcdefg"), image=mask, mask=mask)
    fixed = task_named(TaskName.SEGMENTATION).read_prior([batch]).fixed
    assert fixed is not None
    truth = mask[mask.flatten(1).any(dim=1), 0].flatten(1).numpy()

    def pooled(choice: np.ndarray) -> float:
        return 2 * (truth * choice).sum() / (truth.sum() + len(truth) * choice.sum())

    every = [np.array([(n >> i) & 1 for i in range(9)]) for n in range(1, 2**9)]
    assert pooled(fixed.ravel()) == pytest.approx(max(map(pooled, every)))


def test_without_a_lesion_in_train_the_fixed_mask_is_empty() -> None:
    prior = task_named(TaskName.SEGMENTATION).read_prior([masks(0, empty=12)])
    assert prior.fixed is not None
    assert not prior.fixed.any()


def test_masks_at_a_smaller_size() -> None:
    prior = task_named(TaskName.SEGMENTATION).read_prior([masks(1)])
    found = figures_of(TaskName.SEGMENTATION, masks(2, side=4), prior)
    assert all(math.isfinite(v) for row in found.values() for v in row.values())


# Classification


@pytest.mark.parametrize("truth", [(0, 1, 1, 1, 2), (1, 1, 0), (2, 2, 0, 0, 0, 1)])
def test_constants_against_scikit_learn_and_the_states(truth: tuple[int, ...]) -> None:
    train, batch = labels(0, 0, 0, 1, 1, 2), labels(*truth)
    found = figures_of(
        TaskName.CLASSIFICATION, batch, task_named(TaskName.CLASSIFICATION).read_prior([train])
    )
    counts = np.bincount(truth, minlength=3)
    said = {
        CLASS_PRIOR: np.array([3, 2, 1]) / 6,
        MAJORITY_CLASS: np.array([1.0, 0, 0]),
        BEST_CONSTANT: counts / counts.sum(),
    }
    assert said.keys() == found.keys()
    for name, q in said.items():
        p = torch.from_numpy(np.tile(q, (len(truth), 1)))
        prediction, _ = labelled(p, torch.tensor(truth), torch.zeros(len(truth)))
        expected: dict[str, float] = {}
        for cls in (Confusion, ClassScores, Ranking):
            state = cls()
            state.update(prediction, batch)
            expected |= state.compute()
        assert found[name] == pytest.approx({k: expected[k] for k in found[name]}, abs=1e-12)
        assert found[name].keys() == SKILLED[TaskName.CLASSIFICATION]
        answers = np.full(len(truth), q.argmax())
        assert found[name]["f1"] == pytest.approx(
            f1_score(truth, answers, average="macro", zero_division=0)
        )
        assert found[name]["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(truth, answers)
        )


@given(st.integers(1, 50), st.integers(1, 50))
def test_the_best_constant_of_two_classes_in_closed_form(negative: int, positive: int) -> None:
    truth = [0] * negative + [1] * positive
    share = positive / len(truth)
    found = figures_of(TaskName.CLASSIFICATION, labels(*truth))[BEST_CONSTANT]
    assert found["brier"] == pytest.approx(share * (1 - share))
    assert found["brier"] == pytest.approx(brier_score_loss(truth, [share] * len(truth)))
    assert found["nll"] == pytest.approx(log_loss(truth, [share] * len(truth)))
    assert (found["balanced_accuracy"], found["auroc"]) == (0.5, 0.5)
    assert found["accuracy"] == pytest.approx(max(share, 1 - share))


def test_one_class_alone_has_no_auroc() -> None:
    assert math.isnan(figures_of(TaskName.CLASSIFICATION, labels(1, 1))[BEST_CONSTANT]["auroc"])


# Both


def truth_of(task: TaskName, seed: int) -> Batch:
    if task is TaskName.SEGMENTATION:
        return masks(seed)
    g = torch.Generator().manual_seed(seed)
    return labels(*torch.randint(0, 3, (12,), generator=g).tolist())


every_task = pytest.mark.parametrize("task", JUDGED)


@every_task
@pytest.mark.parametrize("known", [True, False], ids=["prior", "no prior"])
def test_order_split_and_the_way_to_another_process_do_not_matter(
    task: TaskName, known: bool
) -> None:
    prior = task_named(task).read_prior([truth_of(task, 9)]) if known else None
    whole, rows = truth_of(task, 0), range(12)
    expected = figures_of(task, whole, prior)
    for parts in ([[3, 1], [0, 2, 7, 5], [4, 6, 8, 9, 10, 11]], [[*rows][::-1]]):
        merged = task_named(task).trivial()
        merged.load(task_named(task).trivial(prior).state_dict())
        for part in parts:
            worker = task_named(task).trivial(prior)
            worker.update(whole.select(part))
            sent = task_named(task).trivial()
            sent.load(worker.state_dict())
            merged.merge(sent)
        assert merged.metrics().keys() == expected.keys()
        for name, row in merged.metrics().items():
            assert row == pytest.approx(expected[name], abs=1e-12)


@every_task
def test_nothing_seen_is_no_number(task: TaskName) -> None:
    assert all(
        math.isnan(row[name])
        for row in task_named(task).trivial().metrics().values()
        for name in SKILLED[task]
    )


@every_task
def test_the_truth_must_be_there(task: TaskName) -> None:
    bare = Batch(sample_id=("a",), image=torch.zeros(1, 0))
    with pytest.raises(ValueError, match="need a batch with"):
        task_named(task).trivial().update(bare)
    with pytest.raises(ValueError, match="train split"):
        task_named(task).read_prior([])


def evaluated(task: TaskName, batch: Batch, prediction: Prediction, prior: Prior) -> Evaluation:
    evaluation = Evaluation(PLAN, task_named(task), prior)
    evaluation.update_truth(batch)
    evaluation.update("clean", prediction, batch)
    return evaluation


def classified(p: np.ndarray, batch: Batch) -> Prediction:
    assert batch.label is not None
    return labelled(torch.from_numpy(p), batch.label, torch.zeros(len(batch)))[0]


def predictions(task: TaskName, batch: Batch, prior: Prior) -> dict[str, Prediction]:
    """What each trivial predictor says, as a model would."""
    if task is TaskName.CLASSIFICATION:
        assert batch.label is not None
        assert prior.counts is not None
        counts = np.bincount(batch.label.numpy(), minlength=3)
        rows = {
            CLASS_PRIOR: prior.counts / prior.counts.sum(),
            MAJORITY_CLASS: np.eye(3)[prior.counts.argmax()],
            BEST_CONSTANT: counts / counts.sum(),
        }
        return {name: classified(np.tile(q, (len(batch), 1)), batch) for name, q in rows.items()}
    assert batch.mask is not None
    assert prior.mean is not None
    assert prior.fixed is not None
    zeros = torch.zeros_like(batch.mask[:, 0], dtype=torch.float64)
    maps = {
        EMPTY_MASK: zeros,
        FULL_MASK: zeros + 1,
        MEAN_MASK: zeros + torch.from_numpy(prior.mean),
        FIXED_MASK: zeros + torch.from_numpy(prior.fixed),
        BEST_CONSTANT: zeros + batch.mask.double().mean(),
    }
    return {name: pair(p, batch.mask[:, 0])[0] for name, p in maps.items()}


@every_task
@pytest.mark.parametrize("seed", range(3))
def test_the_best_trivial_predictor_has_skill_zero_and_none_has_more(
    task: TaskName, seed: int
) -> None:
    batch, prior = truth_of(task, seed), task_named(task).read_prior([truth_of(task, seed + 10)])
    skills = {}
    for name, prediction in predictions(task, batch, prior).items():
        evaluation = evaluated(task, batch, prediction, prior)
        found = evaluation.compute()
        assert list(found) == all_names(EvaluationPlan(), task)
        skills[name] = {m: found[f"skill.clean.{m}"] for m in SKILLED[task]}
        for metric in SKILLED[task]:
            assert found[f"clean.{metric}"] == pytest.approx(
                evaluation.trivial()[name][metric], abs=1e-7
            )
        # Whoever ignores the image is called so.
        assert triviality(found, evaluation.trivial())
    for metric in SKILLED[task]:
        assert max(row[metric] for row in skills.values()) == pytest.approx(0, abs=1e-6)


@every_task
def test_a_perfect_model_has_skill_one(task: TaskName) -> None:
    batch, prior = truth_of(task, 0), task_named(task).read_prior([truth_of(task, 1)])
    if task is TaskName.SEGMENTATION:
        assert batch.mask is not None
        prediction, _ = pair(batch.mask[:, 0], batch.mask[:, 0])
    else:
        assert batch.label is not None
        prediction = classified(np.eye(3)[batch.label.numpy()], batch)
    evaluation = evaluated(task, batch, prediction, prior)
    found = evaluation.compute()
    for metric in SKILLED[task]:
        assert found[f"skill.clean.{metric}"] == pytest.approx(1, abs=1e-6)
    assert triviality(found, evaluation.trivial()) == ""


@given(st.floats(0, 1), st.floats(0, 0.99))
def test_skill_is_a_share_of_the_way_to_perfection(value: float, trivial: float) -> None:
    dice, brier = METRICS["dice"], METRICS["brier"]
    found = skill(value, trivial, dice)
    assert trivial + found * (1 - trivial) == pytest.approx(value)
    assert skill(1 - value, 1 - trivial, brier) == pytest.approx(found)
    assert math.isnan(skill(value, 1.0, dice))


def test_where_nothing_can_be_gained_there_is_no_skill() -> None:
    """No image has a lesion: the empty mask is perfect, and Dice on lesions does not exist."""
    batch = masks(0, empty=12)
    prior = task_named(TaskName.SEGMENTATION).read_prior([masks(1)])
    assert batch.mask is not None
    prediction, _ = pair(batch.mask[:, 0] + 1, batch.mask[:, 0])
    found = evaluated(TaskName.SEGMENTATION, batch, prediction, prior).compute()
    assert math.isnan(found["skill.clean.dice"])
    assert math.isnan(found["clean.dice_lesion"])
    assert math.isnan(found["skill.clean.dice_lesion"])
    assert found["clean.false_alarms"] == 1


def test_the_best_of_several_follows_the_direction() -> None:
    figures = {"a": {"dice": 0.2, "nll": 0.3}, "b": {"dice": 0.4, "nll": 0.9}}
    assert best_trivial(figures, "dice") == ("b", 0.4)
    assert best_trivial(figures, "nll") == ("a", 0.3)
    assert best_trivial({"a": {"dice": math.nan}}, "dice")[0] == ""


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"clean.empty_share": 1.0, "skill.clean.dice_lesion": -0.2}, "predicts nothing"),
        ({"clean.top_class_share": 1.0}, "predicts one class for every image"),
        (
            {"clean.empty_share": 0.2, "skill.clean.dice_lesion": 0.0},
            "no better than the fixed mask (dice_lesion)",
        ),
        ({"skill.clean.dice_lesion": 0.1, "skill.clean.dice": -1.0}, ""),
        ({"skill.clean.dice_lesion": math.nan, "skill.clean.dice": -1.0}, "no better than"),
        ({}, ""),
    ],
)
def test_a_trivial_model_is_called_so(metrics: dict[str, float], told: str) -> None:
    figures = {FIXED_MASK: {"dice_lesion": 0.3}, EMPTY_MASK: {"dice_lesion": 0.0}}
    found = triviality(metrics, figures)
    assert found.startswith(told)
    assert bool(found) == bool(told)


def test_states_of_a_task_are_those_of_its_truth() -> None:
    assert task_named(TaskName.SEGMENTATION).trivial is TrivialMasks
    assert task_named(TaskName.CLASSIFICATION).trivial is TrivialClasses
