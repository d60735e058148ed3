"""The searcher against a real Optuna study and journal; no cluster is needed for that."""

import math

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from distributed.checks import objectives_of
from distributed.ledger import trial_id
from distributed.search import ParetoSearch
from search_spaces.study import Study

OBJECTIVES = ["dice_area", "clean.ece"]
GRID = {
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "corruption_share": 0.0,
    "dice_weight": 0.5,
    "regime": {"choices": ["none", "all"]},
    "attack": "fgsm",
    "epsilon": {"choices": [0.005, 0.01]},
}


def make(tmp_path, sampler="random", space=None, constraints=(), trials=8):
    study = Study.model_validate(
        {
            "name": "s",
            "trainables": ["unet"],
            "objectives": OBJECTIVES,
            "constraints": list(constraints),
            "search": {"trials": trials, "sampler": sampler},
            "space": space or {},
        }
    )
    journal = tmp_path / "journal.log"
    searcher = ParetoSearch(
        study, objectives_of(study), journal, identify=lambda c: trial_id(c, "data", "1")
    )
    return searcher, journal


def trials_of(journal):
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="s", storage=storage).trials


def result(dice, ece, **more):
    """A slot's last result as Tune hands it to searchers, flattened."""
    figures = {"dice_area": dice, "clean.ece": ece, **more}
    return {"finished": True, **{f"metrics/{name}": value for name, value in figures.items()}}


def test_each_ending_is_told_once_in_its_own_state(tmp_path):
    searcher, journal = make(tmp_path)
    endings = {
        "good": (result(0.5, 0.1), False, TrialState.COMPLETE),
        "nan": (result(math.nan, 0.1), False, TrialState.FAIL),
        "missing": ({"finished": True, "metrics/clean.ece": 0.1}, False, TrialState.FAIL),
        "diverged": ({"failed": "diverged", "finished": False}, False, TrialState.FAIL),
        "stopped": ({**result(0.4, 0.2), "finished": False}, False, TrialState.PRUNED),
        "died": (result(0.5, 0.1), True, TrialState.FAIL),
        "nothing": (None, False, TrialState.FAIL),
    }
    for name in endings:
        assert searcher.suggest(name)["config"]["trainable"] == "unet"
    assert {t.state for t in trials_of(journal)} == {TrialState.RUNNING}
    for name, (last, error, _) in endings.items():
        searcher.on_trial_complete(name, last, error)
        searcher.on_trial_complete(name, result(1.0, 0.0), False)  # a second word changes nothing
    states = [t.state for t in trials_of(journal)]
    assert states == [state for _, _, state in endings.values()]
    assert trials_of(journal)[0].values == [0.5, 0.1]


def test_the_directions_are_those_of_the_metrics(tmp_path):
    _, journal = make(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="s", storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_an_infeasible_trial_never_beats_a_feasible_one(tmp_path):
    searcher, journal = make(tmp_path, constraints=["clean.dice >= 0.5"])
    for name, dice in (("poor", 0.1), ("unknown", math.nan), ("good", 0.6)):
        searcher.suggest(name)
        area = 0.3 if name == "good" else 0.9
        searcher.on_trial_complete(name, result(area, 0.1, **{"clean.dice": dice}))
    storage = JournalStorage(JournalFileBackend(str(journal)))
    best = optuna.load_study(study_name="s", storage=storage).best_trials
    assert [t.values for t in best] == [[0.3, 0.1]]


def test_a_grid_is_run_once_and_then_finished(tmp_path):
    searcher, _ = make(tmp_path, "grid", GRID, trials=50)
    seen = []
    while (suggestion := searcher.suggest(str(len(seen)))) != Searcher.FINISHED:
        seen.append(suggestion["config"])
    assert [(c["regime"], c.get("epsilon")) for c in seen] == [
        ("none", None),
        ("all", 0.005),
        ("all", 0.01),
    ]


def test_no_config_is_suggested_twice(tmp_path):
    searcher, _ = make(tmp_path, "random", GRID)
    seen = []
    while (suggestion := searcher.suggest(str(len(seen)))) != Searcher.FINISHED:
        seen.append(suggestion["trial"])
        searcher.on_trial_complete(str(len(seen) - 1), result(0.5, 0.1))
    assert len(seen) == len(set(seen)) == 3


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "nsga3", "gp", "qmc"])
def test_every_sampler_goes_through_the_conditional_space_and_is_seeded(tmp_path, sampler):
    runs = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        searcher, _ = make(tmp_path / attempt, sampler)
        configs = []
        for number in range(8):
            suggestion = searcher.suggest(str(number))
            configs.append(suggestion["config"])
            value = configs[-1]["learning_rate"]
            searcher.on_trial_complete(str(number), result(value, 1 - value))
        runs.append(configs)
    assert runs[0] == runs[1]
    assert len({tuple(sorted(c.items())) for c in runs[0]}) == 8
