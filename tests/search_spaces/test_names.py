"""What a space says is possible, against what the code that reads it takes."""

import dataclasses

import pytest

from trustsweep.data_pipelines.corruptions import CORRUPTIONS
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import Registry, registered
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Manifest
from trustsweep.search_spaces.names import GROUPS, group
from trustsweep.search_spaces.space import Parameter, Space, ValueKind
from trustsweep.trainables.registry import ATTACKS, METHODS, NETWORKS, REGIMES, RISKS

REGISTRIES = {
    r.kind: r for r in (ATTACKS, REGIMES, RISKS, METHODS, NETWORKS, CORRUPTIONS)
}  # fmt: skip


@pytest.mark.parametrize("kind", REGISTRIES)
def test_an_implementation_is_what_the_line_that_registers_it_says(kind):
    registry = REGISTRIES[kind]
    for name in registry:
        assert registry[name] is not None  # raises TypeError for a fact that is not one
        assert registry.meaning(name)


def test_a_fact_that_contradicts_the_implementation_is_an_error():
    registry = Registry("fraction", {"half": registered("fractions:Fraction", __name__="Half")})
    assert registry.fact("half", "__name__") == "Half"
    with pytest.raises(TypeError, match="registered with __name__ = 'Half'"):
        registry["half"]


def test_names_can_be_chosen_by_facts_alone():
    assert set(REGIMES.having(ranks=True)) == {"uncertain", "certain"}
    assert "square" not in group("training-attacks")
    assert "fgsm" not in group("iterative-attacks")
    assert all(names() for names in GROUPS.values())
    with pytest.raises(UserError, match="did you mean 'training-attacks'"):
        group("training-atacks")


@pytest.mark.parametrize("method", METHODS)
def test_a_space_refuses_what_the_code_would_refuse_in_every_trial(method, phantoms):
    """Every word that a space allows makes a model and a recipe, and any other word neither."""
    from trustsweep.distributed.workers.recipe import TrainingRecipe
    from trustsweep.trainables.regimes import from_config

    manifest = Manifest.load(phantoms)
    if METHODS.fact(method, "tasks") != ("segmentation",):
        manifest = dataclasses.replace(manifest, classes=manifest.classes or ("no", "yes"))

    def make(**given):
        config = Space([method], {**attacked, **given}).defaults(method)
        check({**config, **given})

    def check(config):
        TrainingRecipe(config, METHODS[method](config, manifest).task)
        from_config(config)

    attacked = {"regime": "certain", "attack": "pgd"}
    space = Space([method], attacked)
    config = space.defaults(method)
    for name, parameter in space.of(method).items():
        # Classes are weighed where there are any; what is mirrored is read once images are.
        if name in config and parameter.among is not None and name != "class_balance":
            for word in parameter.among:
                make(**{name: word})
            if name != "flips":
                with pytest.raises(UserError, match=name):
                    check({**config, name: "nonsense"})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"batch_size": {"low": 8, "high": 16, "step": 0.5}}, "batch_size: 0.5 is not a whole"),
        ({"learning_rate": {"low": 0.001, "high": float("inf")}}, "learning_rate: inf is not a"),
        ({"attack_steps": {"low": 1, "high": 4.0}}, "attack_steps: 4.0 is not a whole number"),
        ({"regime": {"choices": ["none", False]}}, "regime: False is not a word.*quote it"),
        ({"regime": "uncertan"}, "regime: 'uncertan' .*did you mean 'uncertain'"),
        ({"batch_size": "32"}, "batch_size: '32' is not a whole number"),
        ({"epochs": 2.5}, "epochs: 2.5 is not a whole number"),
        ({"epochs": True}, "epochs: True is not a whole number"),
        ({"width": "abc"}, "width: 'abc' is not a whole number"),
        ({"width": 0}, r"width: 0 is outside \[1"),
        ({"width": [8]}, "no single value"),
        ({"learning_rate": {"low": 1e-4, "high": 1e-2, "step": -1e-3}}, "step -0.001"),
    ],
)
def test_values_of_another_kind_are_refused_by_their_key(overrides, words):
    with pytest.raises(UserError, match=words):
        Space(["unet"], overrides)


def test_a_number_has_one_spelling_and_so_one_trial():
    whole, point = (Space(["unet"], {"dice_weight": v}).defaults("unet") for v in (1, 1.0))
    assert whole == point
    assert type(whole["dice_weight"]) is float


def test_a_grid_has_the_numbers_that_were_written():
    wanted = {"low": 0.1, "high": 0.5, "step": 0.1}
    fixed = {name: p.start() for name, p in Space(["classifier"], {}).of("classifier").items()}
    space = Space(["classifier"], {**fixed, "regime": "none", "dropout": wanted})
    assert [p["classifier.dropout"] for p in space.grid()] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_kinds_are_those_of_what_ships():
    assert ValueKind.of(Parameter.model_validate({"low": 1, "high": 2})) is ValueKind.WHOLE
    assert ValueKind.of(Parameter.model_validate({"low": 0.0, "high": 1})) is ValueKind.NUMBER
    assert ValueKind.of(Parameter.model_validate(False)) is ValueKind.FLAG
    assert ValueKind.of(Parameter.model_validate("none")) is ValueKind.WORD


def test_the_data_say_which_corruptions_change_anything(phantoms):
    manifest = Manifest.load(phantoms)
    for name in CORRUPTIONS:
        assert CORRUPTIONS.fact(name, "needs").met(manifest) == CORRUPTIONS[name].acts_on(manifest)
    assert (phantoms / MANIFEST_NAME).is_file()
