"""The samplers over the conditional space: what they draw depends on the ledger alone."""

from dataclasses import replace

import pytest

from trustsweep.distributed.run.ledger import Ledger, State

SAMPLERS = {"tpe": 20, "random": 16, "nsga2": 24, "nsga3": 24, "gp": 11, "qmc": 16}
#: Two methods, eight configs.
SMALL = {
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "corruption_fraction": 0.0,
    "dice_weight": 0.5,
    "regime": {"choices": ["none", "all"]},
    "attack": "fgsm",
    "epsilon": {"choices": [0.005, 0.01]},
    "kl_weight": 0.1,
    "risk": "type-2",
}
CONFIGS = 6


def folders(tmp_path, *names):
    for name in names:
        (tmp_path / name).mkdir()
        yield tmp_path / name


@pytest.mark.parametrize(
    "sampler", [pytest.param(n, marks=pytest.mark.slow if n == "gp" else ()) for n in SAMPLERS]
)
def test_a_sampler_that_is_built_anew_after_every_event_draws_the_same(
    sampler, simulated, study_of, tmp_path
):
    """With three trials in flight, some of which are stopped, fail or break a constraint."""
    study = study_of(
        {"sampler": sampler, "trials": SAMPLERS[sampler]}, constraints=["clean.dice >= 0.3"]
    )
    one, other = folders(tmp_path, "whole", "broken")
    whole = simulated(one, study, slots=3).run()
    while simulated(other, study, slots=3).step():
        pass
    broken = simulated(other, study, slots=3).by_number()
    assert broken == whole
    assert len(whole) == SAMPLERS[sampler] == len({r.id for r in whole})
    assert {State.COMPLETED, State.STOPPED} <= {r.state for r in whole}
    assert {r.config["method"] for r in whole} == {"unet", "evidential-unet"}


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "qmc", "grid"])
@pytest.mark.parametrize("slots", [1, 4])
def test_a_small_space_is_gone_through_once_and_then_ends(
    sampler, slots, simulated, study_of, tmp_path
):
    study = study_of({"sampler": sampler, "trials": 50}, space=SMALL)
    records = simulated(tmp_path, study, slots).run()
    assert len(records) == len({r.id for r in records}) == CONFIGS
    assert not simulated(tmp_path, study, slots).run()[CONFIGS:]


def test_a_grid_goes_in_order_and_takes_up_where_it_was(simulated, study_of, tmp_path):
    study = study_of({"sampler": "grid", "trials": 50}, space=SMALL)
    first = simulated(tmp_path, study)
    for _ in range(5):
        first.step()
    configs = [r.config for r in simulated(tmp_path, study).run()]
    assert [(c["method"], c["regime"], c.get("epsilon")) for c in configs] == [
        (method, regime, epsilon)
        for method in ("unet", "evidential-unet")
        for regime, epsilon in (("none", None), ("all", 0.005), ("all", 0.01))
    ]


def completed(record):
    """Better the lower the learning rate, in both objectives."""
    rate = record.config["learning_rate"]
    return replace(
        record, state=State.COMPLETED, metrics={"dice_area": 1 - 50 * rate, "clean.ece": 50 * rate}
    )


def test_what_an_earlier_run_found_moves_the_draws_and_is_never_drawn_again(
    simulated, study_of, tmp_path
):
    old, cold, warm = folders(tmp_path, "old", "cold", "warm")
    study = study_of({"sampler": "tpe", "trials": 24})
    earlier = simulated(old, study, fate=completed).run()
    ledger = Ledger(warm)
    for record in earlier:
        ledger.prior(record)
    again = study_of({"sampler": "tpe", "trials": 6})
    without = simulated(cold, again, fate=completed).run()
    taught = simulated(warm, again, fate=completed).run()
    rates = [sorted(r.config["learning_rate"] for r in found)[3] for found in (taught, without)]
    assert rates[0] < 0.6 * rates[1]
    assert {r.id for r in taught}.isdisjoint(r.id for r in earlier)
    assert len(without) == len(taught) == 6


def test_a_prior_that_would_be_drawn_is_passed_over(simulated, study_of, tmp_path):
    old, new = folders(tmp_path, "old", "new")
    study = study_of({"sampler": "random", "trials": 50}, space=SMALL)
    first = simulated(old, study).run()[:2]
    ledger = Ledger(new)
    for record in first:
        ledger.prior(record)
    assert {r.id for r in simulated(new, study).run()} == {
        r.id for r in simulated(old, study).run()[2:]
    }


def test_trials_outside_a_changed_space_are_left_to_the_ledger(simulated, study_of, tmp_path):
    search = {"sampler": "tpe", "trials": 12}
    before = simulated(tmp_path, study_of(search)).run()
    narrow = study_of(
        {**search, "trials": 20}, space={"learning_rate": {"low": 1e-3, "high": 2e-3}}
    )
    session = simulated(tmp_path, narrow)
    outside = [r for r in before if not 1e-3 <= r.config["learning_rate"] <= 2e-3]
    assert {r.id for r in session.search.outside} == {r.id for r in outside}
    added = session.run()[12:]
    assert all(1e-3 <= r.config["learning_rate"] <= 2e-3 for r in added)
    assert len(added) == 8


@pytest.mark.parametrize("bound", ["clean.dice >= 0.5", "clean.nll <= 1"])
def test_optuna_is_told_each_ending_in_its_own_state(bound, simulated, study_of, tmp_path):
    """A constraint on a figure that a trial lacks counts as broken without end."""
    study = study_of({"trials": 30}, constraints=[bound])
    session = simulated(tmp_path, study)
    session.run()
    for record in session.ledger.records.values():
        trial = session.sampling.as_optuna(record)
        assert trial.state.name == {
            State.COMPLETED: "COMPLETE", State.STOPPED: "PRUNED", State.FAILED: "FAIL"
        }[record.state]  # fmt: skip
        assert trial.user_attrs["config"] == record.config
        if record.state is State.COMPLETED:
            (violation,) = trial.constraints.values()
            known = record.metrics.get(bound.split()[0])
            assert violation == (float("inf") if known is None else 0.5 - known)
            assert trial.values == [record.metrics["dice_area"], record.metrics["clean.ece"]]
        else:
            assert trial.values is None
