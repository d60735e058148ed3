import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import Registry
from trustsweep.search_spaces.space import Parameter, Space, _kinds
from trustsweep.trainables.registry import METHODS, NETWORKS

BOTH = ["unet", "evidential-unet"]


def ask(space: Space, seed: int) -> dict:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


@given(seed=st.integers(0, 10_000))
def test_a_suggestion_holds_exactly_the_parameters_whose_conditions_hold(seed):
    space = Space(BOTH, {})
    config = ask(space, seed)
    parameters = space.of(config["method"])
    expected = {name for name, p in parameters.items() if p.applies(config)}
    assert set(config) == expected | {"method"}
    assert all(parameters[name].contains(config[name]) for name in expected)


def test_without_attack_there_is_no_attack_parameter():
    space = Space(BOTH, {"regime": "none"})
    assert not {"epsilon", "attack_fraction", "attack", "attack_steps"} & set(ask(space, 0))


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_has_a_space_whose_defaults_are_inside_it(method):
    space = Space([method], {})
    config = space.defaults(method)
    assert all(space.of(method)[n].contains(v) for n, v in config.items() if n != "method")


def test_own_parameters_are_named_apart_and_common_ones_are_shared():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    names = set()
    space = Space(BOTH, {})
    for _ in range(20):
        trial = study.ask()
        space.suggest(trial)
        names |= set(trial.params)
    assert {"unet.dice_weight", "evidential-unet.dice_weight", "learning_rate"} <= names


@pytest.fixture
def heirs(monkeypatch):
    """Methods from outside with given spaces."""

    def register(**spaces):
        kind = {name: type(name, (), {"space": space}) for name, space in spaces.items()}
        monkeypatch.setattr(METHODS, "_added", kind)

    _kinds.cache_clear()
    yield register
    _kinds.cache_clear()


FUSION = ("draf", "drfuse", "drifa-net", "early-fusion", "healnet", "late-fusion", "mda")


def test_a_space_begins_with_what_it_inherits_and_may_change_it(heirs):
    shared = Space(["early-fusion"], {}).parameters["early-fusion"]
    assert {"width", "depth", "dim", "dropout", "modality_corruption", "p_miss"} == set(shared)
    for name in FUSION:
        own = Space([name], {}).parameters[name]
        assert list(own)[: len(shared)] == list(shared)
        assert {key: own[key] for key in shared} == shared
    heirs(
        mine={"inherits": "fusion", "depth": 5, "dropout": {"low": 0.2, "high": 0.3}, "x": 1.5},
        # A method of any origin may be inherited, and what it inherits itself comes along.
        second={"inherits": "mine", "x": 2.5},
        third={"inherits": "draf"},
    )
    mine, second, third = (Space([m], {}).parameters[m] for m in ("mine", "second", "third"))
    assert list(mine) == [*shared, "x"]
    assert mine["depth"].value == 5
    assert mine["depth"].within == shared["depth"].within
    assert (mine["dropout"].high, mine["dropout"].within) == (0.3, [0, 0.95])
    assert {key: mine[key] for key in ("width", "dim", "p_miss")} == {
        key: shared[key] for key in ("width", "dim", "p_miss")
    }
    assert {**mine, "x": second["x"]} == second
    assert second["x"].value == 2.5
    assert third == Space(["draf"], {}).parameters["draf"]
    with pytest.raises(UserError, match=r"depth: 17 is outside \[1, 16\]"):
        Space(["mine"], {"depth": 17})


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"inherits": "fusoin"}, "space of mine: inherits 'fusoin'.*did you mean 'fusion'"),
        ({"inherits": "common"}, "space of mine: inherits 'common', which is no space"),
        ({"inherits": ["fusion"]}, "which is no space"),
        ({"inherits": "mine"}, "inherits 'mine', which inherits 'mine' itself"),
        ({"inherits": "other"}, "space of other: inherits 'mine', which inherits 'other' itself"),
        ({"inherits": "fusion", "depth": 99}, r"depth: .*99 is outside \[1, 16\]"),
    ],
)
def test_what_cannot_be_inherited_is_refused(heirs, space, words):
    heirs(mine=space, other={"inherits": "mine"})
    with pytest.raises(UserError, match=words):
        Space(["mine"], {})


def test_a_method_may_bear_the_name_of_a_shared_space(heirs):
    heirs(fusion={"inherits": "late-fusion", "x": 1})
    space = Space(["fusion"], {}).parameters["fusion"]
    assert {"rule", "width", "x"} <= set(space)


def test_a_network_brings_its_parameters_to_where_it_is_chosen():
    space = Space(BOTH, {"network": {"choices": ["unet", "dynunet", "deeplabv3"]}})
    parameters = space.of("unet")
    assert parameters["width"].when == {"network": NETWORKS.having(kind="pixels")}
    assert parameters["levels"].when == {"network": ["dynunet"]}
    assert parameters["depth"].when == {"network": ["fcn", "deeplabv3"]}
    found = {}
    for seed in range(40):
        config = ask(space, seed)
        found[config["network"]] = {"levels", "dilation", "width", "dice_weight"} & set(config)
    assert found == {
        "unet": {"width", "dice_weight"},
        "dynunet": {"width", "dice_weight", "levels"},
        "deeplabv3": {"width", "dice_weight", "dilation"},
    }
    assert space.defaults("unet", network="dynunet")["levels"] == 4
    assert "levels" not in space.defaults("unet")


@pytest.fixture
def network(monkeypatch):
    """Registers a network for pixels from outside with a given space."""

    def register(space):
        _kinds.cache_clear()
        kind = type("Mine", (), {"space": space, "kind": "pixels"})
        monkeypatch.setattr(NETWORKS, "_added", {"mine": kind})

    yield register
    _kinds.cache_clear()


def test_a_network_from_outside_brings_its_own(network):
    before = Space(["unet"], {}).of("unet")
    network({"kernel": 3, "gate": {"low": 0.0, "high": 1.0, "when": {"kernel": [3]}}})
    space = Space(["unet"], {"network": "mine"})
    after = space.of("unet")
    assert set(after) == {*before, "kernel", "gate"}
    assert after["gate"].when == {"network": ["mine"], "kernel": [3]}
    assert space.defaults("unet")["kernel"] == 3
    assert "kernel" not in Space(["unet"], {}).defaults("unet")
    # One that is written as others have it is theirs as well.
    network({"width": {"value": 16, "within": [1, 4096]}})
    assert "mine" in Space(["unet"], {}).of("unet")["width"].when["network"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"dice_weight": 1.0}, "network mine: 'dice_weight' is a parameter of unet as well"),
        ({"epochs": 3}, "network mine: 'epochs' is a parameter of unet as well"),
        ({"width": 3}, "network mine: 'width' is another parameter of unet. Choose another name"),
        ([], "network mine: .* is no mapping of parameters"),
        ({"x": {"low": 2, "high": 1}}, "space.x: low 2 is above high 1"),
    ],
)
def test_a_network_whose_parameters_clash_is_refused(network, space, words):
    network(space)
    with pytest.raises(UserError, match=words):
        Space(["unet"], {})


def test_overrides_fix_narrow_and_keep_conditions():
    space = Space(
        BOTH, {"epsilon": 0.02, "unet.dice_weight": 0.3, "learning_rate": {"choices": [0.1]}}
    )
    assert space.of("unet")["dice_weight"].value == 0.3
    assert space.of("evidential-unet")["dice_weight"].value is None
    assert "epsilon" not in space.defaults("unet")
    attacked = Space(BOTH, {"epsilon": 0.02, "regime": "random"})
    assert attacked.defaults("unet")["epsilon"] == 0.02


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"learning_rat": 1}, ["learning_rat", "did you mean 'learning_rate'"]),
        ({"epsilon": 2.0}, ["space.epsilon", "outside [0, 1]"]),
        ({"epsilon": {"low": 0.1, "high": 1.5}}, ["space.epsilon", "1.5", "outside [0, 1]"]),
        ({"attack_fraction": -0.5}, ["space.attack_fraction", "outside [0, 1]"]),
        ({"learning_rate": {"low": 1.0, "high": 0.1}}, ["learning_rate", "above high"]),
        ({"learning_rate": {"low": 0.1, "hihg": 1.0}}, ["hihg", "did you mean 'high'"]),
        ({"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, ["`log` needs low > 0"]),
        ({"learning_rate": {"low": 0.1, "high": 0.1}}, ["learning_rate", "that value alone"]),
        ({"learning_rate": {"low": 0.1, "high": 0.1, "log": True}}, ["that value alone"]),
        ({"learning_rate": {"low": 0.1, "high": 0.2, "step": 0.5}}, ["step 0.5", "beyond high"]),
        ({"learning_rate": 0}, ["space.learning_rate", "0 is outside"]),
        ({"batch_size": {"low": 8, "high": 16, "step": 0.5}}, ["batch_size", "whole number"]),
        ({"batch_size": {"low": 8, "high": 16, "step": 9}}, ["batch_size", "step 9"]),
        ({"batch_size": {"choices": [8, 16, 8]}}, ["batch_size", "8 is listed twice"]),
        ({"learning_rate": {"choices": [1, 1.0]}}, ["learning_rate", "1.0 is listed twice"]),
        ({"batch_size": {"value": 8, "within": [0]}}, ["batch_size", "lowest and a highest"]),
        ({"regime": {"choices": []}}, ["regime", "empty"]),
        ({"epsilon": {"low": 0.0, "high": 0.1, "when": {"regime": []}}}, ["epsilon", "no value"]),
        (
            {"epsilon": {"low": 0.0, "high": 0.1, "when": {"regime": ["none", "randm"]}}},
            ["space.epsilon.when", "never 'randm'", "did you mean 'random'"],
        ),
        ({"unet.kl_weight": 1.0}, ["unet.kl_weight"]),
        ({"epsilon": {"low": 0.0, "high": 0.1, "when": {"nosuch": [1]}}}, ["nosuch"]),
    ],
)
def test_impossible_overrides_name_the_key(overrides, words):
    with pytest.raises(UserError) as error:
        Space(BOTH, overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_a_grid_that_no_memory_holds_is_refused():
    wide = {name: {"choices": [*range(1, 60)]} for name in ("epochs", "batch_size", "patience")}
    fixed = {"learning_rate": 0.1, "weight_decay": 0.0, "corruption_fraction": 0.0}
    space = Space(["unet"], {**fixed, **wide, "regime": "none", "dice_weight": 0.5})
    with pytest.raises(UserError, match=r"search\.sampler: the grid has more than"):
        space.grid()


def test_conditions_in_a_circle_are_refused():
    circle = {
        "epsilon": {"low": 0.0, "high": 0.1, "when": {"attack_fraction": [0.5]}},
        "attack_fraction": {"low": 0.0, "high": 1.0, "when": {"epsilon": [0.1]}},
    }
    with pytest.raises(UserError, match="circle"):
        Space(BOTH, circle)


def test_a_grid_is_every_combination_once():
    fixed = {
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "corruption_fraction": 0.0,
        "dice_weight": 0.5,
        "kl_weight": 0.1,
        "risk": {"choices": ["type-2", "cross-entropy"]},
        "regime": {"choices": ["none", "random"]},
        "attack_fraction": 0.5,
        "attack": "fgsm",
        "epsilon": {"low": 0.0, "high": 0.02, "step": 0.01},
        "attack_steps": {"low": 1, "high": 2},
    }
    space = Space(BOTH, fixed)
    grid = space.grid()
    assert len({tuple(sorted(p.items())) for p in grid}) == len(grid)
    # classical: none, or random with 3 ε; evidential: the same for each of 2 risks
    assert len(grid) == 4 + 2 * 4
    study = optuna.create_study()
    for params in grid:
        study.enqueue_trial(params)
        trial = study.ask()
        space.suggest(trial)
        assert trial.params == params


def test_a_grid_refuses_a_continuous_range():
    with pytest.raises(UserError, match=r"weight_decay.*step"):
        Space(["unet"], {"learning_rate": 0.01}).grid()


@given(value=st.one_of(st.integers(-5, 5), st.floats(-1, 1), st.booleans(), st.text(max_size=3)))
def test_a_fixed_parameter_starts_at_its_value_and_contains_nothing_else(value):
    parameter = Parameter.model_validate(value)
    assert parameter.start() == value
    assert parameter.contains(value)
    assert not parameter.contains("another value")


def test_a_registry_names_the_nearest_known_name():
    registry = Registry("thing", {"gaussian": "math:sqrt"})
    assert registry["gaussian"](4) == 2
    with pytest.raises(UserError, match="did you mean 'gaussian'"):
        registry["gausian"]
