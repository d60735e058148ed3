import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.sweep.checks import check
from trustsweep.search_spaces.space import Space
from trustsweep.search_spaces.study import Fidelity, Scheduler, Study, apply_overrides, load, parse
from trustsweep.trainables.registry import METHODS


def minimal(**changes) -> dict:
    return {"name": "s", "methods": ["unet"], "objectives": ["dice_area"], **changes}


def test_budgets_of_l2_are_lengths_and_may_lie_above_one():
    study = parse(minimal(evaluation={"norm": "l2", "epsilons": [2.5, 0]}), "s")
    assert study.evaluation.epsilons == [0.0, 2.5]


def test_a_resolved_study_reads_back_the_same(tmp_path):
    study = load("evidential", ["search.trials=3", "constraints=['clean.dice >= 0.5']"])
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    assert load(tmp_path / "study.yaml") == study


def test_overrides_are_yaml_and_reach_any_key():
    study = load("evidential", ["search.trials=7", "space.learning_rate=1e-3", "name=other"])
    assert (study.search.trials, study.name) == (7, "other")
    assert study.space["learning_rate"] == 1e-3


def test_numbers_without_a_dot_are_numbers(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "{name: s, methods: [unet], objectives: [dice_area], "
        "space: {learning_rate: {low: 1e-4, high: 1E-2, log: true}}}"
    )
    assert load(file).search_space().of("unet")["learning_rate"].low == 1e-4


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (minimal(serach={}), ["serach", "did you mean 'search'"]),
        (minimal(search={"trails": 3}), ["search.trails", "did you mean 'trials'"]),
        (minimal(search={"trials": 0}), ["search.trials"]),
        (minimal(search={"sampler": "tpee"}), ["search.sampler", "tpe"]),
        (minimal(methods=[]), ["methods"]),
        (minimal(methods=["unett"]), ["unett", "did you mean 'unet'"]),
        (minimal(methods=["unet", "unet"]), ["methods", "listed twice"]),
        (minimal(evaluation={"epsilons": [0, 1.5]}), ["evaluation.epsilons", "1.5", "[0, 1]"]),
        (minimal(evaluation={"epsilons": [0, -1]}), ["evaluation.epsilons", "-1", "0 or above"]),
        (minimal(evaluation={"norm": "l2"}), ["evaluation", "epsilons", "norm l2", "Give its own"]),
        (minimal(evaluation={"epsilons": [0.01]}), ["evaluation.epsilons", "0 (the clean images)"]),
        (minimal(evaluation={"severities": [6]}), ["evaluation.severities"]),
        (minimal(constraints=["clean.dice > 0.5"]), ["constraints", "metric >= number"]),
        (minimal(resources={"slots": "many"}), ["resources.slots"]),
        (minimal(search={"scheduler": "asha"}), ["search.scheduler.policy", "forecast"]),
        (minimal(search={"scheduler": {"polcy": "none"}}), ["polcy", "did you mean 'policy'"]),
        (minimal(search={"scheduler": {"rungs": [0.5, 1.0]}}), ["search.scheduler.rungs.1"]),
        (minimal(search={"scheduler": {"rungs": [0]}}), ["search.scheduler.rungs.0"]),
        (minimal(search={"scheduler": {"factor": 1}}), ["search.scheduler.factor"]),
        (minimal(search={"scheduler": {"first": 1}}), ["search.scheduler.first"]),
        (minimal(search={"scheduler": {"brackets": 0}}), ["search.scheduler.brackets"]),
        (minimal(search={"warm_start": 3}), ["search.warm_start"]),
        (minimal(fidelity={"data": 0}), ["fidelity.data"]),
        (minimal(fidelity={"validation": 1.5}), ["fidelity.validation"]),
        (minimal(fidelity={"parameters": {"attack_steps": 2}}), ["attack_steps"]),
        (minimal(fidelity={"epochs": 0.5}), ["fidelity.epochs", "Known here"]),
        (minimal(search={"scheduler": {"brackets": 3}}), ["brackets", "halving", "forecast"]),
        (
            minimal(search={"scheduler": {"policy": "halving", "risk": 0.5}}),
            ["search.scheduler", "risk belongs to the policy forecast"],
        ),
        (minimal(evaluation={"epsilons": [0, 0.1, 0.1]}), ["epsilons", "0.1 is listed twice"]),
        # They would have one name: attacked@0.1.
        (minimal(evaluation={"epsilons": [0, 0.1, 0.10000001]}), ["epsilons", "listed twice"]),
        (minimal(evaluation={"corruptions": ["jpeg", "jpeg"]}), ["corruptions", "listed twice"]),
        (minimal(evaluation={"severities": [3, 3]}), ["severities", "3 is listed twice"]),
        (minimal(evaluation={"severities": []}), ["severities", "none is listed"]),
        (minimal(constraints=["clean.dice >= nan"]), ["constraints.0", "finite number"]),
        (minimal(constraints=["clean.dice <= inf"]), ["constraints.0", "finite number"]),
        (minimal(resources={"slots": 0}), ["resources.slots: ", "greater than or equal to 1"]),
        (minimal(seeds=0), ["seeds"]),
        (minimal(baseline=["unet"]), ["baseline"]),
        (minimal(name="../up"), ["name"]),
        ({"name": "s", "methods": ["unet"]}, ["objectives", "missing"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(raw, words):
    with pytest.raises(UserError) as error:
        parse(raw, "file.yaml")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_study(tmp_path):
    for text in ("[1, 2]", "a: [", "just words"):
        file = tmp_path / "study.yaml"
        file.write_text(text)
        with pytest.raises(UserError, match=r"study\.yaml"):
            load(file)
    with pytest.raises(UserError, match="did you mean 'evidential'"):
        load("evidental")


@pytest.mark.parametrize(
    "settings",
    [
        {"search": {"scheduler": "halving"}},
        {"search": {"sampler": "grid", "warm_start": "runs/old"}},
        {"search": {"scheduler": {"policy": "forecast", "rungs": [0.5, 0.25]}}},
        {"fidelity": {"data": 0.5, "parameters": {"attack_steps": 0.34}}},
        {"seeds": 5, "baseline": {"method": "unet", "regime": "none"}},
        {"constraints": ["clean.dice >= 0.123456789", "cost.seconds <= 1e6"]},
    ],
)
def test_every_key_reads_back_the_same(tmp_path, settings):
    study = parse(minimal(**settings), "s")
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    assert load(tmp_path / "study.yaml") == study


def test_a_grid_runs_every_combination_unless_a_scheduler_is_named():
    def policy(**search: object) -> str:
        return parse(minimal(search=search), "s").search.scheduler.policy

    assert policy() == "forecast"
    assert policy(sampler="grid") == "none"
    assert policy(sampler="grid", scheduler="halving") == "halving"
    assert policy(scheduler="none") == "none"


@pytest.mark.parametrize(
    ("settings", "epochs", "expected"),
    [
        ({}, 16, {4: 0, 8: 1}),
        ({"policy": "forecast"}, 16, {4: 0, 8: 1}),
        ({"first": 0.125}, 16, {2: 0, 4: 1, 8: 2}),
        ({"first": 0.125, "factor": 4}, 16, {2: 0, 8: 1}),
        ({"rungs": [0.5, 0.25, 0.5]}, 8, {2: 0, 4: 1}),
        (
            {"policy": "halving", "first": 0.125},
            4,
            {1: 1, 2: 2},
        ),  # two rungs fall on the first epoch: the higher stands
        ({}, 1, {}),
        ({"rungs": [0.9]}, 4, {}),  # the last epoch is never a rung
        ({"first": 1 / 3, "factor": 3}, 3, {1: 0}),
    ],
)
def test_rungs_stand_at_the_ends_of_epochs(settings, epochs, expected):
    assert Scheduler.model_validate(settings).rung_epochs(epochs) == expected


@given(st.floats(0.01, 1), st.integers(1, 8))
def test_what_a_fidelity_shares_grows_from_rung_to_rung_up_to_all(start, rungs):
    shares = [Fidelity.share(start, rung, rungs) for rung in range(rungs + 1)]
    assert shares[0] == pytest.approx(start)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    steps = [b / a for a, b in pairwise(shares)]
    assert steps == pytest.approx([steps[0]] * rungs)


def test_a_baseline_is_the_spaces_defaults_but_for_what_it_names():
    study = Study.model_validate(
        minimal(
            space={"epochs": 9, "learning_rate": 0.004, "regime": {"choices": ["all"]}},
            baseline={"method": "evidential-unet", "regime": "none", "kl_weight": 0.5},
        )
    )
    config = study.references()["baseline"]
    assert (config["method"], config["regime"], config["kl_weight"]) == (
        "evidential-unet",
        "none",
        0.5,
    )
    assert (config["epochs"], config["learning_rate"]) == (9, 0.004)
    assert "epsilon" not in config
    with pytest.raises(UserError, match=r"baseline: .*kl_wieght.*did you mean 'kl_weight'"):
        Study.model_validate(
            minimal(baseline={"method": "evidential-unet", "kl_wieght": 1.0})
        ).references()


def test_a_constraint_measures_how_far_off_a_value_is():
    study = Study.model_validate(minimal(constraints=["a >= 0.5", "b <= 2"]))
    least, most = study.constraints
    assert least.violation(0.6) <= 0 < least.violation(0.4)
    assert most.violation(2.0) <= 0 < most.violation(2.5)


def test_the_readmes_study_is_one(tmp_path):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(readme.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    study = load(file)
    assert study.name == "mine"
    assert study.constraints[0].violation(0.01) > 0


@pytest.mark.parametrize("name", ["evidential", "evidential-arms", "quick"])
def test_the_shipped_studies_are_valid(name):
    study = load(name)
    assert study.name == name
    if study.search.sampler == "grid":
        assert len(study.search_space().grid()) == study.search.trials


@pytest.mark.parametrize(
    ("study", "task"),
    [
        ("all-segmentation", "segmentation"),
        ("all-classification", "classification"),
        ("all-fusion", "classification"),
        ("all-survival", "survival"),
    ],
)
def test_every_method_that_fits_the_data_is_searched(study, task, phantoms, followed):
    data = followed if task == "survival" else phantoms
    manifest = Manifest.load(data)
    fitting = load(study, [f"data={data}"])
    # The oracle: what can be built for these data, and is then asked this.
    expected = []
    for name in METHODS:
        config = Space([name], {}).defaults(name)
        with suppress(UserError):
            if METHODS[name](config, manifest).task.name == task:
                expected.append(name)
    assert fitting.methods == expected
    assert len(expected) > 1
    check(fitting, manifest)
    assert fitting.search_space().methods == tuple(expected)


def test_parameters_that_only_other_methods_have_are_left_out_of_what_fits(phantoms):
    given = [f"data={phantoms}", "space.network=unet", "space.dropout=0.3"]
    fitting = load("all-segmentation", given)
    assert set(fitting.methods) == {"unet", "evidential-unet"}
    assert fitting.search_space().defaults("unet")["network"] == "unet"
    with pytest.raises(UserError, match=r"space\.dropuot: no method of this study has"):
        load("all-segmentation", [*given, "space.dropuot=0.3"])
    with pytest.raises(UserError, match=r"space\.dropout: no method of this study has"):
        load("evidential", given)


def test_fitting_methods_need_data_that_they_fit(phantoms):
    raw = minimal(methods="fitting")
    with pytest.raises(UserError, match="fitting needs the data"):
        parse(raw, "s")
    raw = {**raw, "data": str(phantoms)}
    assert parse(raw, "s").methods == ["unet", "evidential-unet"]
    both = {**raw, "objectives": ["clean.ece"]}
    with pytest.raises(UserError, match="measure segmentation and classification"):
        parse(both, "s")
    with pytest.raises(UserError, match="measure none of these"):
        parse({**raw, "objectives": ["dice_area", "clean.auroc"]}, "s")
    # A constraint tells as well.
    asked = parse({**both, "constraints": ["skill.clean.auroc >= 0.1"]}, "s")
    assert {"classifier", "draf"} <= set(asked.methods)


def test_a_method_whose_needs_the_data_do_not_meet_is_refused(phantoms):
    manifest = replace(Manifest.load(phantoms), modalities=())
    with pytest.raises(UserError, match="methods: draf needs several modalities"):
        check(parse(minimal(methods=["draf"], objectives=["clean.ece"]), "s"), manifest)
    blind = replace(manifest, image_shape=(), more_images={}, tasks=("classification",))
    with pytest.raises(UserError, match="methods: classifier needs images"):
        check(parse(minimal(methods=["classifier"], objectives=["clean.ece"]), "s"), blind)


def test_validating_a_study_imports_neither_torch_nor_ray():
    code = (
        "import sys; from trustsweep.search_spaces.study import load; load('evidential'); "
        "sys.exit(bool({'torch', 'ray', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_variants_are_the_baseline_but_for_what_they_name():
    study = Study.model_validate(
        minimal(
            baseline={"method": "evidential-unet", "regime": "none", "kl_weight": 0.5},
            variants={"no-kl": {"kl_weight": 0.0}, "classical": {"method": "unet"}},
        )
    )
    with pytest.raises(UserError, match=r"variants.classical: .*kl_weight"):
        study.references()
    study = study.model_copy(update={"variants": {"no-kl": {"kl_weight": 0.0}}})
    base, variant = study.references().values()
    assert {key for key in base if base[key] != variant[key]} == {"kl_weight"}
    assert list(study.references()) == ["baseline", "no-kl"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"baseline": {"regime": "none", "epsilon": 0.01}},
            "baseline: epsilon has no effect there",
        ),
        (
            {"baseline": {}, "variants": {"a": {"epsilon": 0.01}}},
            r"variants\.a: epsilon has no effect there",
        ),
        ({"baseline": {}, "variants": {"a": {}}}, r"variants\.a: the same configuration as base"),
        (
            {
                "baseline": {},
                "variants": {"a": {"regime": "random"}, "b": {"regime": "random"}},
            },
            r"variants\.b: the same configuration as a\.",
        ),
        ({"variants": {"a": {}}}, "variants: they are of the baseline"),
        ({"variants": {"baseline": {}}, "baseline": {}}, "variants: 'baseline' is"),
    ],
)
def test_variants_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        Study.model_validate(minimal(**changes)).references()


@pytest.mark.parametrize(
    "items",
    [
        ["search.trials=3", "search.trials=4"],
        ["search.trials=3", "search={trials: 4}"],
        ["search={trials: 4}", "search.trials=3"],
        ["space.regime=none", "space={epochs: 2}"],
    ],
)
def test_of_two_overrides_of_one_key_none_is_dropped_without_a_word(items):
    with pytest.raises(UserError, match=r"--set .* is set already, by .*Leave one out"):
        apply_overrides(minimal(), items)


def test_overrides_of_other_keys_of_a_section_add_up():
    raw = apply_overrides(minimal(), ["search={sampler: random}", "search.trials=3"])
    assert raw["search"] == {"sampler": "random", "trials": 3}
    with pytest.raises(UserError, match="key 'trials' stands twice"):
        apply_overrides(minimal(), ["search={trials: 3, trials: 4}"])
