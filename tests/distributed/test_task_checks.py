"""A study's metrics and trainables are held to one task."""

import pytest

from data_pipelines.errors import UserError
from distributed.checks import measured_names, objectives_of, task_of
from search_spaces.study import load, parse, shipped_studies
from trainables.metrics.catalog import COSTS
from trainables.registry import TRAINABLES


def study(**changes: object) -> object:
    raw = {"name": "toy", "trainables": ["classifier"], "objectives": ["clean.ece"]}
    return parse({**raw, **changes}, "toy.yaml")


def test_a_study_measures_what_its_task_has() -> None:
    names = measured_names(study())
    assert {"attacked@0.01.auroc", "accuracy_area", *COSTS} <= set(names)
    assert "clean.dice" not in names
    assert "clean.dice" in measured_names(study(trainables=["unet"]))


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="'dice_area' judges segmentation, not classification"):
        objectives_of(study(objectives=["dice_area", "clean.ece"]))


def test_trainables_of_two_tasks_are_refused() -> None:
    with pytest.raises(UserError, match=r"unet \(segmentation\) have no task in common"):
        task_of(study(trainables=["classifier", "unet"]))


@pytest.mark.parametrize("name", TRAINABLES)
def test_every_trainable_has_a_shipped_study(name: str) -> None:
    """`trustsweep train` takes its objectives from there."""
    assert any(name in load(shipped).trainables for shipped in shipped_studies())
