"""What a study may ask of corruptions and suites, and that the evaluation does what it asks."""

import dataclasses

import pytest
from typer.testing import CliRunner

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Feature, Kind, Manifest, Modality, TaskName
from trustsweep.distributed.cli.app import app
from trustsweep.distributed.run.folder import evaluation_plan
from trustsweep.distributed.sweep.checks import check
from trustsweep.search_spaces.study import Study, parse
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.tasks import task_named

IMAGES = Manifest(
    name="made",
    tasks=(TaskName.SEGMENTATION,),
    image_shape=(1, 16, 16),
    image_scale=255,
    classes=("background", "lesion"),
    mean=(0.5,),
    std=(0.2,),
    split_counts={"train": 6, "val": 2},
    columns={},
    fingerprint="0",
)


TABLE = dataclasses.replace(
    IMAGES,
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(),
    tabular=(Feature(name="age"), Feature(name="weight")),
    modalities=tuple(
        Modality(name=name, kind=Kind.TABULAR, column="tabular", indices=(i,))
        for i, name in enumerate(("age", "weight"))
    ),
)


def study(objective="dice_area", regime="none", method="unet", **evaluation) -> Study:
    raw = {"name": "s", "methods": [method], "objectives": [objective], "data": "folder"}
    space = {"regime": regime}
    return parse({**raw, "space": space, "evaluation": evaluation}, "file.yaml")


def unattacked(**changes) -> Study:
    return study(**{"objective": "clean.dice", "epsilons": [0], **changes})


def of_table(**changes) -> Study:
    """For data without images."""
    return unattacked(**{"objective": "clean.nll", "method": "draf", **changes})


def test_the_suite_reaches_the_plan_and_its_state():
    assert evaluation_plan(study()).suite == "chest"
    plan = evaluation_plan(study(suite="oct"))
    assert plan.suite == "oct"
    evaluation = Evaluation(plan, task_named(TaskName.SEGMENTATION))
    assert Evaluation.from_state_dict(evaluation.state_dict()).plan == plan
    assert plan != dataclasses.replace(plan, suite="chest")
    assert plan.clean().suite == "oct"


def test_the_plans_default_is_the_studys():
    assert EvaluationPlan().suite == study().evaluation.suite


def test_an_unknown_suite_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"evaluation\.suite: .*'pneumnia', did you mean 'pneumon"):
        study(suite="pneumnia")


@pytest.mark.parametrize("name", ["contrast-down", "jpeg", "mri-motion"])
def test_corruptions_of_images_are_for_images(name):
    check(study(corruptions=[name]), IMAGES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("modality-drop", ["needs several modalities", "folder has none", "jpeg"]),
        ("feature-mask", ["needs series or tables", "Choose among"]),
        ("value-noise", ["needs numbers in series or tables"]),
        ("contrast", ["unknown corruption 'contrast'", "did you mean 'contrast-"]),
    ],
)
def test_a_corruption_that_would_change_nothing_is_refused(name, words):
    with pytest.raises(UserError, match=r"^evaluation\.corruptions: ") as error:
        check(study(corruptions=["jpeg", name]), IMAGES)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_what_is_offered_instead_would_pass():
    with pytest.raises(UserError) as error:
        check(of_table(corruptions=["jpeg"]), TABLE)
    offered = str(error.value).partition("Choose among: ")[2].rstrip(".").split(", ")
    assert offered == ["modality-drop", "feature-mask", "value-noise", "mixed-quality"]
    check(of_table(corruptions=offered), TABLE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"epsilons": [0, 0.01]},
            r"evaluation\.epsilons: .*folder has none\. Give epsilons: \[0\]",
        ),
        ({"regime": "all"}, r"space\.regime: .*draf .*folder has none\. Give regime: none"),
        ({"regime": {"choices": ["none", "random"]}}, r"space\.regime: "),
    ],
    ids=str,
)
def test_attacks_are_for_images(changes, words):
    with pytest.raises(UserError, match=f"^{words}"):
        check(of_table(corruptions=["feature-mask"], **changes), TABLE)
    check(unattacked(corruptions=["jpeg"], **changes), IMAGES)


def test_a_baseline_that_attacks_what_has_no_image_is_refused():
    known = of_table(corruptions=["feature-mask"])
    attacked = known.model_copy(update={"seeds": 3, "baseline": {"regime": "all"}})
    with pytest.raises(UserError, match=r"baseline: regime all .*folder has none"):
        check(attacked, TABLE)
    check(attacked.model_copy(update={"baseline": {"regime": "none"}}), TABLE)


@pytest.mark.parametrize(("kind", "known"), [("corruptions", CORRUPTIONS), ("suites", SUITES)])
def test_the_command_line_lists_every_one(kind, known):
    result = CliRunner().invoke(app, ["list", kind])
    assert result.exit_code == 0
    assert all(name in result.output for name in known)
