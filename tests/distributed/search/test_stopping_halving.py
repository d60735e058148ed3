"""Successive halving: ASHA where there is one objective, and what it may not do with several."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers.async_hyperband import _Bracket

from trustsweep.distributed.search.stopping import make_policy
from trustsweep.distributed.search.stopping.halving import Halving
from trustsweep.distributed.statistics.front import Objective
from trustsweep.search_spaces.study import Constraint, Scheduler

BOTH = [Objective("dice", "max"), Objective("ece", "min")]
#: A run: (trial, figures at its rungs) in order of arrival; few values, so that ties happen.
FIGURE = st.one_of(st.integers(0, 6).map(float), st.just(float("nan")))
RUNS = st.lists(st.lists(st.tuples(FIGURE, FIGURE), min_size=3, max_size=3), max_size=20)


def play(policy: Halving, run, names=("dice", "ece")) -> list[tuple[int, int, tuple[str, ...]]]:
    """Every stop: the trial, its rung and who was ahead; trials go through the rungs together."""
    stops, live = [], range(len(run))
    for rung in range(policy.rungs):
        going = []
        for trial in live:
            figures = dict(zip(names, run[trial][rung], strict=True))
            verdict = policy.report(str(trial), rung, figures)
            if verdict.stop:
                assert verdict.reason
                stops.append((trial, rung, verdict.dominated_by))
            else:
                going.append(trial)
        live = going
    return stops


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), max_size=25),
    st.sampled_from([2.0, 3.0, 4.0]),
    st.sampled_from(["max", "min"]),
)
def test_with_one_objective_it_decides_as_asha(run, factor, direction):
    sign = 1.0 if direction == "max" else -1.0
    oracle = _Bracket(1, factor**2, factor, 0)
    policy = Halving([Objective("a", direction)], rungs=3, factor=factor)
    for trial, curve in enumerate(run):
        for rung, value in enumerate(curve):
            ray = oracle.on_result(SimpleNamespace(trial_id=trial), factor**rung, sign * value)
            assert policy.report(str(trial), rung, {"a": value}).stop == (ray == "STOP")
            if ray == "STOP":
                break


@given(RUNS, st.sampled_from(["scalarised", "hypervolume", "epsilon-net"]))
def test_no_trial_is_stopped_in_favour_of_one_that_it_dominates(run, ranking):
    for trial, rung, ahead in play(Halving(BOTH, rungs=3, ranking=ranking), run):
        ours = np.array(run[trial][rung]) * [-1, 1]
        for other in ahead:
            theirs = np.array(run[int(other)][rung]) * [-1, 1]
            assert not ((ours <= theirs).all() and (ours < theirs).any())


@given(RUNS, st.sampled_from(["hypervolume", "epsilon-net"]))
def test_scale_sign_and_monotone_changes_of_a_metric_change_nothing(run, ranking):
    plain = play(Halving(BOTH, rungs=3, ranking=ranking), run)
    warped = [[(np.exp(a), -3 * b + 1) for a, b in curve] for curve in run]
    turned = [BOTH[0], Objective("ece", "max")]
    assert play(Halving(turned, rungs=3, ranking=ranking), warped) == plain


def test_no_number_is_worst_and_never_ahead():
    policy = Halving(BOTH, rungs=1)
    policy.report("nan", 0, {"dice": float("nan"), "ece": 0.0})
    assert not policy.report("bad", 0, {"dice": 0.1, "ece": 0.9}).stop
    for _ in range(2):
        verdict = policy.report("none", 0, {"dice": 0.9})
        assert verdict.stop
        assert verdict.dominated_by == ("bad",)


def test_whoever_breaks_a_bound_ranks_behind_whoever_does_not():
    bound = Constraint.model_validate("dice >= 0.5")
    policy = Halving(BOTH, [bound], rungs=1)
    assert not policy.report("kept", 0, {"dice": 0.5, "ece": 0.9}).stop
    verdict = policy.report("broken", 0, {"dice": 0.4, "ece": 0.0})
    assert verdict.stop
    assert verdict.dominated_by == ("kept",)
    assert not policy.report("better", 0, {"dice": 0.6, "ece": 0.1}).stop


def test_brackets_spare_the_first_rungs_and_follow_the_seed():
    def stops(seed: int) -> list[str]:
        settings = Scheduler(policy="halving", brackets=3, rungs=[0.25, 0.5, 0.75])
        policy = make_policy(settings, BOTH, seed=seed)
        # Each trial is worse than all before it.
        reports = ((str(i), {"dice": -float(i), "ece": float(i)}) for i in range(60))
        return [trial for trial, figures in reports if policy.report(trial, 0, figures).stop]

    first = stops(0)
    assert first == stops(0) != stops(1)
    # Ray's odds of the first of three brackets: 1 / (1 + 1/e + 1/e²).
    assert 0.5 < len(first) / 60 < 0.8


@pytest.mark.parametrize("ranking", ["hypervolume", "epsilon-net"])
def test_the_best_of_a_large_rung_go_on(ranking):
    """Of a front and a crowd far behind it, the crowd is stopped."""
    rng = np.random.default_rng(0)
    policy = Halving(BOTH, rungs=1, ranking=ranking)
    for i in range(40):
        share = rng.random()
        policy.report(f"front{i}", 0, {"dice": share, "ece": share})
    crowd = [
        policy.report(f"crowd{i}", 0, {"dice": d / 2 - 1, "ece": 1 + d})
        for i, d in enumerate(rng.random(30))
    ]
    assert all(verdict.stop for verdict in crowd)
    assert all(name.startswith("front") for v in crowd for name in v.dominated_by)
