"""A study's metrics and methods are held to one task, and to what a model must look at."""

import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
from safetensors.torch import save_file

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Manifest, Split, TaskName
from trustsweep.distributed.run.folder import objectives_of
from trustsweep.distributed.sweep.checks import (
    check,
    check_classes,
    check_defined,
    check_sighted,
    measured_names,
    tasks_of,
    with_objectives,
)
from trustsweep.distributed.sweep.plan import prepare
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Constraint, Search, Study, load, parse, shipped_studies
from trustsweep.trainables.metrics.catalog import AREAS, COSTS, metric_info
from trustsweep.trainables.registry import METHODS

MANIFEST = Manifest(
    name="toy",
    tasks=(TaskName.CLASSIFICATION,),
    image_shape=(1, 16, 16),
    image_scale=255.0,
    classes=("normal", "pneumonia"),
    mean=(0.5,),
    std=(0.2,),
    split_counts={"train": 8, "val": 4},
    columns={},
    fingerprint="f",
)
SKILLED = Constraint.model_validate("skill.clean.auroc >= 0.1")


def study(**changes: object) -> Study:
    raw = {"name": "toy", "methods": ["classifier"], "objectives": ["clean.ece"]}
    return parse({**raw, **changes}, "toy.yaml")


def test_a_study_measures_what_its_task_has() -> None:
    names = measured_names(study())
    assert {"attacked@0.01.auroc", "accuracy_area", *COSTS} <= set(names)
    assert "clean.dice" not in names
    assert "clean.dice" in measured_names(study(methods=["unet"]))


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'dice_area' is a metric of .*segmentation, not of classification"
    ):
        check(study(objectives=["dice_area", "clean.ece"]), MANIFEST)


def test_methods_of_two_tasks_are_refused() -> None:
    with pytest.raises(UserError, match=r"unet \(segmentation or .*\) have no task in common"):
        tasks_of(study(methods=["classifier", "unet"]))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("evaluation", "condition"),
    [({}, None), ({"epsilons": [0]}, "corrupted"), ({"epsilons": [0], "corruptions": []}, "clean")],
    ids=["attacked", "corrupted", "clean"],
)
def test_objectives_follow_from_the_task_and_from_what_is_measured(
    name: str, evaluation: dict, condition: str | None
) -> None:
    raw = {"name": "train", "methods": [name], "evaluation": evaluation}
    asked = with_objectives(raw, "train")
    assert {*asked.objectives} <= {*measured_names(asked)}
    skill, error = objectives_of(asked)
    assert (skill.direction, error.direction) == ("max", "min")
    assert metric_info(skill.name).skilled
    assert error.name.split(".")[1] in ("ece", "ece_region")
    if condition is None:
        assert skill.name in AREAS
        assert error.name.startswith("clean.")
    else:
        assert [o.partition(".")[0] for o in asked.objectives] == [condition, condition]
    named = with_objectives({**raw, "objectives": ["clean.nll"]}, "train")
    assert named.objectives == ["clean.nll"]
    assert named.model_copy(update={"objectives": asked.objectives}) == asked


def test_objectives_follow_from_the_task_that_the_data_have(tmp_path: Path) -> None:
    def offer(task: TaskName) -> None:
        manifest = dataclasses.replace(MANIFEST, tasks=(task,))
        (tmp_path / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")

    raw = {"name": "train", "methods": ["classifier"], "data": str(tmp_path)}
    for task, skill in (
        (TaskName.CLASSIFICATION, "balanced_accuracy_area"),
        (TaskName.MULTILABEL, "auroc_area"),
    ):
        offer(task)
        asked = with_objectives(raw, "train")
        assert asked.objectives == [skill, "clean.ece"]
        assert {*asked.objectives} <= {*measured_names(asked, task)}
    offer(TaskName.SEGMENTATION)
    with pytest.raises(UserError, match="offers segmentation"):
        with_objectives(raw, "train")


FIGURES = {
    "empty mask": {"dice": 0.2, "dice_lesion": 0.0, "false_alarms": math.nan, "nll": 0.4},
    "full mask": {"dice": 0.1, "dice_lesion": 0.3, "false_alarms": math.nan, "nll": 9.0},
}


@pytest.mark.parametrize("objective", ["clean.ece", "clean.mce", "corrupted.ece_debiased"])
@pytest.mark.parametrize(
    "constraints",
    [[], ["clean.accuracy >= 0.5"], ["skill.clean.auroc >= 0"], ["skill.clean.auroc <= 0.5"]],
)
def test_what_a_blind_model_can_win_needs_a_constraint_on_a_skill(
    objective: str, constraints: list[str]
) -> None:
    condition = objective.partition(".")[0]
    wanted = rf"best {objective}\. .*\[skill\.{condition}\.balanced_accuracy >= 0\.05\]"
    wrong = study(objectives=["clean.auroc", objective], constraints=constraints)
    with pytest.raises(UserError, match=wanted):
        check_sighted(wrong, TaskName.CLASSIFICATION)
    check_sighted(wrong.model_copy(update={"constraints": [SKILLED]}), TaskName.CLASSIFICATION)
    # One trial is no search: nothing can win.
    check_sighted(wrong.model_copy(update={"search": Search(trials=1)}), TaskName.CLASSIFICATION)


def test_proper_scores_and_discrimination_need_none() -> None:
    scores = ["balanced_accuracy_area", "clean.brier", "clean.aurc"]
    check_sighted(study(objectives=scores), TaskName.CLASSIFICATION)


@pytest.mark.parametrize("name", ["clean.false_alarms", "clean.e_aurc"])
def test_false_alarms_and_referral_are_won_by_predicting_nothing(name: str) -> None:
    alarms = study(methods=["unet"], objectives=["dice_lesion_area", name])
    with pytest.raises(UserError, match=r"skill\.clean\.dice_lesion"):
        check_sighted(alarms, TaskName.SEGMENTATION)


@pytest.mark.parametrize("name", ["clean.ece_floor", "clean.top_class_share"])
def test_what_only_describes_a_model_is_no_objective(name: str) -> None:
    with pytest.raises(UserError, match="no better direction"):
        check(study(objectives=[name]), MANIFEST)


@pytest.mark.parametrize("name", shipped_studies())
def test_no_shipped_study_can_be_won_blindly(name: str, phantoms: Path, followed: Path) -> None:
    shipped = load(name, [f"data={followed if name == 'all-survival' else phantoms}"])
    blind = [o for o in shipped.objectives if metric_info(o).blind]
    skills = [c for c in shipped.constraints if c.metric.startswith("skill.") and c.bound > 0]
    assert not blind or skills or shipped.search.trials == 1
    assert not {"dice_area", "accuracy_area"} & set(shipped.objectives)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objectives": ["clean.false_alarms"]}, "objectives: 'clean.false_alarms' .* val split"),
        ({"constraints": ["attacked.false_alarms <= 0.1"]}, "constraints: .*every image there has"),
    ],
)
def test_a_split_without_such_images_is_named(changes: dict, told: str) -> None:
    asked = study(methods=["unet"], **{"objectives": ["dice_lesion_area"], **changes})
    with pytest.raises(UserError, match=told):
        check_defined(asked, FIGURES, Split.VAL)
    check_defined(study(methods=["unet"], objectives=["dice_area"]), FIGURES, Split.VAL)


def test_a_skill_that_nobody_can_have_is_refused() -> None:
    perfect = {"empty mask": {"dice": 1.0, "dice_lesion": math.nan}}
    for name, why in (
        ("skill.clean.dice", "ignores the image is perfect there"),
        ("dice_lesion_area", "no image there has a lesion"),
    ):
        with pytest.raises(UserError, match=why):
            check_defined(study(methods=["unet"], objectives=[name]), perfect, Split.VAL)
    check_defined(study(methods=["unet"], objectives=["clean.ece"]), perfect, Split.VAL)


def test_a_ball_that_holds_every_image_is_refused(phantoms: Path) -> None:
    manifest = Manifest.load(phantoms)
    diagonal = math.sqrt(math.prod(manifest.image_shape))
    for most, refused in ((diagonal, False), (diagonal * 1.01, True)):
        asked = study(
            methods=["unet"], objectives=["dice_lesion_area"], data=str(phantoms),
            evaluation={"norm": "l2", "epsilons": [0, most]},
        )  # fmt: skip
        with pytest.raises(UserError, match="within an l2 distance") if refused else nullcontext():
            check(asked, manifest)


def test_a_sweep_is_refused_before_it_starts(phantoms: Path) -> None:
    nodes = [{"CPU": 2.0, "memory": 4e9, "object_store_memory": 1e9}]
    asked = study(
        methods=["unet"], objectives=["dice_lesion_area"], data=str(phantoms),
        constraints=["clean.false_alarms <= 0.2"],
    )  # fmt: skip
    prepared = prepare(asked, nodes)
    figures = prepared.trivial.figures
    assert figures.keys() == {"val", "test"}
    assert figures["val"]["empty mask"]["dice_lesion"] == 0


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"optimiser": {"choices": ["adamw", "sdg"]}}, r"space.optimiser: .*did you mean 'sgd'"),
        ({"schedule": "cosin"}, r"space.schedule: .*did you mean 'cosine'"),
        ({"flips": "left"}, r"space.flips: .*did you mean 'left-right'"),
    ],
    ids=str,
)
def test_a_misspelt_recipe_is_refused_before_it_starts(space: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check(study(space=space, objectives=["clean.auroc"]), MANIFEST)


@pytest.mark.parametrize("balance", ["weights", "sqrt-weights"])
def test_pixels_can_be_weighed_by_their_class(balance: str) -> None:
    pixels = dataclasses.replace(MANIFEST, tasks=(TaskName.SEGMENTATION,))
    space = {"class_balance": balance}
    check(study(methods=["unet"], objectives=["dice_lesion_area"], space=space), pixels)


def test_classes_that_a_split_lacks_are_told_and_cannot_be_weighed() -> None:
    counts = {"train": (5, 4, 0), "val": (0, 2, 0), "test": (1, 1, 1)}
    lacking = dataclasses.replace(
        MANIFEST,
        classes=("scar", "oedema", "clot"),
        label_counts=counts,
        split_counts={split: sum(each) for split, each in counts.items()},
    )
    plain = study(objectives=["clean.auroc"])
    assert check_classes(plain, lacking, TaskName.CLASSIFICATION) == [
        "No train image has clot: no model can learn it.",
        "No val image has scar, clot: means over classes leave it out there.",
    ]
    weighed = study(
        objectives=["clean.auroc"], space={"class_balance": {"choices": ["none", "weights"]}}
    )
    with pytest.raises(UserError, match=r"no train image of .* has clot"):
        check_classes(weighed, lacking, TaskName.CLASSIFICATION)
    everything = dataclasses.replace(lacking, label_counts={})
    assert check_classes(weighed, everything, TaskName.CLASSIFICATION) == []
    # A mask of one lesion lacks none of the classes that the label beside it has.
    masked = dataclasses.replace(
        lacking, columns={"mask": "uint8[1, 16, 16]"}, mask_shares={"train": (0.9, 0.1)}
    )
    assert check_classes(plain, masked, TaskName.SEGMENTATION) == []


@pytest.mark.parametrize(
    ("constraints", "told"),
    [
        (["clean.accuracy >= 1.5"], "no model can meet clean.accuracy >= 1.5"),
        (["clean.ece <= -0.1"], "no model can meet clean.ece <= -0.1"),
        (["skill.clean.auroc >= 1.01"], "no model can meet skill"),
        (["clean.accuracy >= 0.5", "clean.accuracy >= 0.6"], "leave one of them out"),
        (["clean.accuracy >= 0.5", "clean.accuracy <= 0.4"], "no model can meet both"),
        (["clean.accuracy <= 0.4", "clean.accuracy >= 0.5"], "no model can meet both"),
    ],
)
def test_bounds_that_no_model_keeps_are_refused(constraints: list[str], told: str) -> None:
    with pytest.raises(UserError, match=f"constraints: .*{told}"):
        check(study(objectives=["clean.auroc"], constraints=constraints), MANIFEST)


def test_bounds_on_both_sides_may_leave_room() -> None:
    bounds = ["clean.accuracy >= 0.5", "clean.accuracy <= 0.9", "cost.seconds <= 60"]
    check(study(objectives=["clean.auroc"], constraints=bounds), MANIFEST)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {"selection_measure": "vacuity"}}, "selection_measure: vacuity is no unc"),
        ({"space": {"encoder": "model.safetensors"}}, "space.encoder: .* is not absolute"),
        ({"space": {"encoder": "/no/model.safetensors"}}, "space.encoder: .*no such file"),
        ({"search": {"scheduler": {"rungs": []}}}, "scheduler.rungs: forecast stops trials at"),
        ({"search": {"sampler": "grid"}}, "space.* a grid cannot go through a continuous range"),
        ({"seeds": 3, "baseline": {"method": "unet"}}, "baseline: unet is for segmentation"),
        (
            {"seeds": 3, "baseline": {}, "variants": {"a": {"method": "unet"}}},
            r"variants\.a: unet is for segmentation",
        ),
        (
            {"evaluation": {"attack": "square", "norm": "l2", "epsilons": [0, 1.0]}},
            r"evaluation\.norm: square is not possible under l2",
        ),
    ],
    ids=str,
)
def test_what_no_trial_could_use_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check(study(objectives=["clean.auroc"], **changes), MANIFEST)


def test_an_encoder_must_fit_every_network_that_a_study_chooses_among(tmp_path) -> None:
    file = tmp_path / "model.safetensors"
    config = Space(["classifier"], {}).defaults("classifier")
    save_file(METHODS["classifier"](config, MANIFEST).network().state_dict(), file)

    def told(**space: object) -> None:
        space["encoder"] = str(file)
        check(study(objectives=["clean.auroc"], space=space), MANIFEST)

    told()
    told(network={"choices": ["resnet"]})
    with pytest.raises(UserError, match=r"space.encoder: .*holds no weight of this network"):
        told(network={"choices": ["resnet", "vit"]})


def test_a_measure_that_no_regime_of_the_study_ranks_by_is_never_asked_for() -> None:
    space = {"selection_measure": "vacuity", "regime": {"choices": ["none", "random"]}}
    check(study(objectives=["clean.auroc"], space=space), MANIFEST)


@pytest.mark.parametrize("name", METHODS)
def test_the_registry_names_the_maps_that_a_method_gives(name: str) -> None:
    assert METHODS.fact(name, "uncertainties") == METHODS[name].uncertainties
