"""What a sweep runs next: trials under way, the search, its repeats; and when it has to wait."""

from dataclasses import replace

import pytest
from ray.tune.search import Searcher

from trustsweep.distributed.run.ledger import SEEDS, Record, State
from trustsweep.distributed.workers.outcome import STOPPABLE, TRIAL


def second_stage(*names: str) -> list[Record]:
    return [
        Record(id=name, config={"method": "unet", "seed": seed}, stage=SEEDS, of="x", number=seed)
        for seed, name in enumerate(names)
    ]


def test_trials_under_way_come_first_then_the_search_then_its_repeats(
    simulated, study_of, tmp_path
):
    study = study_of({"trials": 4})
    first = simulated(tmp_path, study, slots=3)
    for _ in range(3):
        first.suggest()
    under_way = list(first.flying.values())
    first.end(next(iter(first.flying)))
    asked = []

    def repeats() -> list[Record]:
        asked.append({r.state for r in again.ledger.records.values()})
        return second_stage("s0", "s1")

    again = simulated(tmp_path, study, repeats=repeats)
    assert list(again.flying.values()) == under_way[1:]
    suggestion = again.suggest()
    assert suggestion[STOPPABLE]
    assert suggestion[TRIAL] not in under_way
    while again.flying:
        assert again.suggest() is None  # which models are repeated depends on these
        assert not asked
        again.end(next(iter(again.flying)))
    repeated = [again.suggest() for _ in range(2)]
    assert State.RUNNING not in asked[0]
    assert [(s[TRIAL], s[STOPPABLE]) for s in repeated] == [("s0", False), ("s1", False)]
    assert again.suggest() == Searcher.FINISHED
    for name in list(again.flying):
        again.end(name)
    assert again.suggest() == Searcher.FINISHED
    assert len(asked) == 1
    assert len(again.ledger.records) == 6


def test_the_second_stage_is_taken_up_half_way(simulated, study_of, tmp_path):
    study = study_of({"trials": 1})
    first = simulated(tmp_path, study, repeats=lambda: second_stage("s0", "s1", "s2"))
    for _ in range(5):
        first.step()
    assert first.ledger.records["s0"].state is not State.RUNNING
    assert first.ledger.records["s1"].state is State.RUNNING
    again = simulated(tmp_path, study, repeats=lambda: second_stage("s2"))
    again.run()
    assert {r.id for r in again.ledger.records.values() if r.stage == SEEDS} == {"s0", "s1", "s2"}
    assert not again.ledger.of(State.RUNNING)


@pytest.mark.parametrize("trials", [1, 6])
def test_every_trial_is_suggested_once_and_no_more_than_were_asked_for(
    trials, simulated, study_of, tmp_path
):
    study = study_of({"trials": trials})
    assert len(simulated(tmp_path, study, slots=4).run()) == trials
    assert len(simulated(tmp_path, study, slots=4).run()) == trials
    more = study_of({"trials": trials + 2})
    records = simulated(tmp_path, more, slots=4).run()
    assert [r.number for r in records] == list(range(trials + 2))


def test_a_halted_search_suggests_nothing_and_goes_on_when_taken_up(simulated, study_of, tmp_path):
    study = study_of({"trials": 3})
    session = simulated(tmp_path, study)
    session.suggest()
    session.halt.request("Ctrl-C")
    assert session.suggest() == Searcher.FINISHED
    assert [r.number for r in simulated(tmp_path, study).run()] == [0, 1, 2]


def test_a_trial_that_tune_lost_has_failed_for_the_sampler_and_others_are_ignored(
    simulated, study_of, tmp_path
):
    session = simulated(tmp_path, study_of({"trials": 3}))
    suggestion = session.search.suggest("a")
    told = []
    session.sampling.tell = told.append
    session.search.on_trial_complete("a", error=True)
    session.search.on_trial_complete("a", error=True)
    session.search.on_trial_complete("unknown")
    assert told == [replace(session.ledger.records[suggestion[TRIAL]], state=State.FAILED)]


def test_a_trial_that_a_halted_sweep_leaves_running_is_told_to_nobody(
    simulated, study_of, tmp_path
):
    session = simulated(tmp_path, study_of({"trials": 3}))
    session.search.suggest("a")
    told = []
    session.sampling.tell = told.append
    session.search.on_trial_complete("a", {})
    assert told == []
    (record,) = session.ledger.records.values()
    assert record.state is State.RUNNING
