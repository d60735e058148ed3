"""Names of metrics: what exists is found, what does not is refused with the nearest name."""

import math
import subprocess
import sys

import pytest

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics.catalog import (
    AREAS,
    METRICS,
    SHIFTS,
    MetricInfo,
    all_names,
    metric_info,
    state_classes,
)
from trustsweep.trainables.metrics.names import MetricName

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.005, 0.01),
    corruptions=(("gaussian-noise", 1), ("gaussian-noise", 3), ("contrast-down", 5)),
)
every_task = pytest.mark.parametrize("task", [TaskName.SEGMENTATION, TaskName.CLASSIFICATION])


def of(task: TaskName, table: dict[str, MetricInfo]) -> list[str]:
    return [name for name, info in table.items() if task in info.tasks]


@every_task
def test_every_name_of_a_study_is_understood(task: TaskName) -> None:
    names = all_names(PLAN, task)
    counts = [len(of(task, table)) for table in (METRICS, AREAS, SHIFTS)]
    assert all(counts)
    skilled = [sum(table[n].skilled for n in of(task, table)) for table in (METRICS, AREAS, SHIFTS)]
    assert skilled[0] > 4
    assert skilled[1:] == [counts[1], 0]
    assert (
        len(names)
        == len(set(names))
        == sum(n * (a + b) for n, a, b in zip((8, 1, 3), counts, skilled, strict=True))
    )
    for name in names:
        info = metric_info(name)
        assert info.name == name
        assert info.direction in ("max", "min", None)
        assert info.low < info.high
        assert task in info.tasks


def test_examples() -> None:
    names = all_names(PLAN, TaskName.SEGMENTATION)
    for name in (
        "clean.dice", "corrupted.ece", "corrupted@gaussian-noise-3.dice", "attacked.nll",
        "attacked@0.01.ause", "dice_area", "iou_area", "shift.auroc", "shift@0.005.spearman",
    ):  # fmt: skip
        assert name in names
    assert metric_info("attacked@0.01.ece").direction == "min"
    assert "ε = 0.01" in metric_info("attacked@0.01.ece").meaning
    assert "gaussian-noise of severity 3" in metric_info("corrupted@gaussian-noise-3.dice").meaning
    assert metric_info("shift.spearman").direction == "min"
    names = all_names(PLAN, TaskName.CLASSIFICATION)
    assert {"clean.ece", "attacked@0.01.auroc", "accuracy_area", "shift.spearman"} <= set(names)
    assert not {"clean.dice", "dice_area"} & set(names)


@every_task
def test_a_clean_plan_gives_clean_metrics_alone(task: TaskName) -> None:
    names = [f"clean.{name}" for name in of(task, METRICS)]
    skills = [f"skill.{name}" for name in names if metric_info(name).skilled]
    assert all_names(EvaluationPlan(), task) == [*names, *skills]


def test_what_a_skill_is_of() -> None:
    info = metric_info("skill.attacked@0.01.nll")
    assert (info.direction, info.low, info.high, info.unit) == ("max", -math.inf, 1, "")
    assert "ignores the image" in info.meaning
    assert "ε = 0.01" in info.meaning
    assert metric_info("skill.dice_lesion_area").tasks == (
        TaskName.SEGMENTATION,
        TaskName.MULTICLASS_SEGMENTATION,
        TaskName.REGION_SEGMENTATION,
    )
    names = ("skill.dice_lesion_area", "clean.auroc", "shift@0.1.auroc")
    assert [MetricName.parse(n).metric for n in names] == [
        "dice_lesion", "auroc", "auroc",
    ]  # fmt: skip
    # A constant answer has the best calibration, so there is nothing to be skilled in.
    blind = {name for name, info in METRICS.items() if info.blind}
    assert {"ece", "ece_region", "mce", "ece_adaptive", "ece_debiased", "false_alarms"} <= blind
    assert not blind & {name for name, info in METRICS.items() if info.skilled}
    for name in ("skill.clean.ece", "skill.shift.auroc", "skill.cost.seconds"):
        with pytest.raises(UserError, match=rf"no skill of '{name[6:]}': .*dice_lesion"):
            metric_info(name)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("clean.dise", "clean.dice"),
        ("clean.acuracy", "clean.accuracy"),
        ("auroc", "clean.auroc|shift.auroc"),
        ("dice", "clean.dice"),
        ("dice_aera", "dice_area"),
        ("clean_dice", "clean.dice"),
        ("atacked@0.01.dice", "attacked@0.01.dice"),
        ("attacked@0.010.dice", "attacked@0.01.dice"),
        ("attacked@1e-2.dice", "attacked@0.01.dice"),
        ("corrupted@contrast-down-3.eec", "corrupted@contrast-down-3.ece"),
        ("shift.auc", "shift.auroc"),
        ("skil.clean.dice", "skill.clean.dice"),
        ("shift@0.01.dice", "shift@0.01.spearman|shift@0.01.auroc|attacked@0.01.dice"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=rf"unknown metric '{wrong}', did you mean '({right})'"):
        metric_info(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        "", ".", "clean.", ".dice", "clean@1.dice", "attacked@.dice", "attacked@0.dice",
        "attacked@inf.dice", "attacked@nan.dice", "corrupted@contrast-down.dice", "clean.spearman",
        "corrupted@contrast-down-6.dice", "corrupted@-3.dice", "shift@x.auroc", "clean.dice_area",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="unknown metric"):
        metric_info(wrong)


@every_task
@pytest.mark.parametrize("table", [METRICS, SHIFTS], ids=["metrics", "shifts"])
def test_states_compute_what_the_catalogue_says(
    task: TaskName, table: dict[str, MetricInfo]
) -> None:
    computed = [name for cls in state_classes(table, task) for name in cls.names]
    assert sorted(computed) == sorted(of(task, table))
    for name in of(task, table):
        (cls,) = state_classes({name: table[name]}, task)
        assert name in cls.names


def test_ranges() -> None:
    assert math.isinf(METRICS["ause"].high)
    assert METRICS["nll"].high == pytest.approx(16.118, abs=1e-3)


def test_naming_metrics_needs_no_torch() -> None:
    code = "import sys, trustsweep.trainables.metrics.catalog; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
