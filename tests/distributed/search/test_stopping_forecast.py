"""Forecasts at rungs: what they are worth, and what they may never stop."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Ridge as Oracle
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.search.stopping import make_policy
from trustsweep.distributed.search.stopping.forecast import Forecast
from trustsweep.distributed.search.stopping.policy import Verdict
from trustsweep.distributed.search.stopping.regression import Ridge
from trustsweep.distributed.search.stopping.unstopped import Unstopped
from trustsweep.distributed.statistics.front import Objective, hypervolume
from trustsweep.search_spaces.policies import POLICIES
from trustsweep.search_spaces.study import Constraint, Scheduler

BOTH = [Objective("dice", "max"), Objective("ece", "min")]
RUNGS = 3


def curves(n: int, seed: int, noise: float = 0.3) -> np.ndarray:
    """(n, RUNGS + 1, 2): losses that settle; the second begins at its opposite, as ECE does."""
    rng = np.random.default_rng(seed)
    final = rng.normal(size=(n, 2))
    rows = []
    for rung in range(RUNGS + 1):
        left = 1 - rung / RUNGS
        early = final * [1, 1 - 2 * left] + left
        rows.append(early + noise * left * rng.normal(size=(n, 2)))
    return np.stack(rows, axis=1)


def figures(losses, scale=(-1.0, 1.0), origin=(0.0, 0.0)) -> dict[str, float]:
    values = np.asarray(losses) * scale + origin
    return dict(zip(("dice", "ece"), values.tolist(), strict=True))


def play(policy: Forecast, table: np.ndarray, read=figures) -> list[tuple[int, Verdict] | None]:
    """Trials one after another: the rung and verdict of each that was stopped."""
    outcomes: list[tuple[int, Verdict] | None] = []
    for trial, curve in enumerate(table):
        for rung, point in enumerate(curve[:-1]):
            verdict = policy.report(str(trial), rung, read(point))
            if verdict.stop:
                outcomes.append((rung, verdict))
                break
        else:
            policy.end(str(trial), read(curve[-1]))
            outcomes.append(None)
    return outcomes


def test_leave_one_out_errors_and_forecasts_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(14, 3))
    targets = inputs @ rng.normal(size=(3, 2)) + 0.5 * rng.normal(size=(14, 2))
    fit = Ridge.fit(inputs, targets, np.zeros_like(targets))
    scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    for column, told in enumerate(fit.forecast(inputs[0]).mean):
        # The same penalties, of which the one with the least error left out is taken.
        fits = [Oracle(alpha=14 * p) for p in (1e-3, 1e-2, 0.03, 0.1, 0.3, 1, 3, 10)]
        left_out = [
            cross_val_predict(model, scaled, targets[:, column], cv=LeaveOneOut()) for model in fits
        ]
        errors = [((p - targets[:, column]) ** 2).mean() for p in left_out]
        best = fits[int(np.argmin(errors))].fit(scaled, targets[:, column])
        assert told == pytest.approx(best.predict(scaled[:1])[0])
        mean_alone = targets[:, column].var() * (14 / 13) ** 2
        assert fit.skill[column] == pytest.approx(1 - min(errors) / mean_alone, rel=1e-3)


def test_the_spread_of_forecasts_is_the_spread_of_their_errors():
    """Standardised errors on unseen samples follow Student's distribution, about."""
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(400):
        inputs = rng.normal(size=(13, 2))
        targets = inputs @ [[1.0], [0.5]] + rng.normal(size=(13, 1))
        fit = Ridge.fit(inputs[:12], targets[:12], np.zeros((12, 1)))
        told = fit.forecast(inputs[12])
        error = (targets[12, 0] - told.mean[0]) / told.deviation[0]
        scores.append(stats.t.cdf(error, fit.freedom))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.mean(np.array(scores) < share) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_hopeless_trials_are_stopped_and_the_front_is_kept(seed):
    table = curves(80, seed, noise=0.1)
    outcomes = play(Forecast(BOTH, rungs=RUNGS), table)
    full = np.array([outcome is None for outcome in outcomes])
    assert full[:8].all()
    assert full.sum() < 40
    finals, median = table[:, -1], np.median(table[:, -1], axis=0).tolist()
    whole = hypervolume(finals, ["min", "min"], median)
    assert hypervolume(finals[full], ["min", "min"], median) >= 0.98 * whole


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_nobody_is_stopped_for_a_trial_that_its_forecast_or_end_does_not_trail(seed):
    """Who is named stopped no one that ends, and was foretold, better in both objectives."""
    table = curves(40, seed, noise=0.05)
    for trial, outcome in enumerate(play(Forecast(BOTH, rungs=RUNGS), table)):
        if outcome is None:
            continue
        assert outcome[1].dominated_by
        for name in map(int, outcome[1].dominated_by):
            assert name < trial
            ours, theirs = table[trial, -1], table[name, -1]
            assert not ((ours <= theirs).all() and (ours < theirs).any())


@given(
    st.integers(0, 1000),
    st.tuples(*[st.sampled_from([0.01, 1.0, 37.0])] * 2),
    st.tuples(*[st.sampled_from([0.0, -3.0, 50.0])] * 2),
    st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=25)
def test_units_origins_and_signs_of_metrics_change_nothing(seed, scale, origin, turned):
    table = curves(30, seed)
    signs = np.where(turned, -1.0, 1.0)
    objectives = [
        Objective(name, "max" if turn else "min")
        for name, turn in zip(("dice", "ece"), turned, strict=True)
    ]

    def stops(objectives, read):
        outcomes = play(Forecast(objectives, rungs=RUNGS), table, read)
        return [o and (o[0], o[1].dominated_by) for o in outcomes]

    plain = [Objective("dice", "min"), Objective("ece", "min")]
    assert stops(objectives, lambda p: figures(p, signs * scale, origin)) == stops(
        plain, lambda p: figures(p, (1.0, 1.0))
    )


def test_a_rung_at_which_an_objective_is_noise_stops_next_to_nothing():
    """Noise could become anything; where it has settled, at the last rung, trials are stopped.

    A fit to some ten samples that looks skilled by chance is rare, but happens.
    """
    stops = []
    for seed in range(8):
        table = curves(60, seed, noise=0.05)
        noise = np.random.default_rng([seed, 1]).normal(size=(60, 3))
        table[:, :2, 1] = noise[:, :2]
        table[:, 2, 1] = table[:, 3, 1] + 0.05 * noise[:, 2]
        stops += [outcome[0] for outcome in play(Forecast(BOTH, rungs=RUNGS), table) if outcome]
    assert sum(rung < 2 for rung in stops) <= 0.015 * 8 * 60
    assert stops.count(2) > 0.5 * 8 * 60
    informed = play(Forecast(BOTH, rungs=RUNGS), curves(60, 0, noise=0.05))
    assert sum(outcome is not None and outcome[0] < 2 for outcome in informed) > 20


def test_what_is_no_number_is_worst():
    table = curves(40, 0, noise=0.05)
    policy = Forecast(BOTH, rungs=RUNGS)
    play(policy, table)
    rung = RUNGS - 1
    assert policy.report("diverged", rung, {"dice": float("nan"), "ece": float("nan")}).stop
    # As a final value it is learnt from and stands on no front.
    policy.report("late", 0, figures([-9.0, -9.0]))
    policy.end("late", {"dice": float("nan"), "ece": 0.0})
    verdict = policy.report("bad", rung, figures([9.0, 9.0]))
    assert verdict.stop
    assert "late" not in verdict.dominated_by


def test_who_will_break_a_bound_is_stopped_once_somebody_keeps_it():
    """Dice below 0 is not allowed; the best by far in ECE does not help."""
    bound = Constraint.model_validate("dice >= 0")
    policy = Forecast(BOTH, [bound], rungs=RUNGS)
    table = curves(40, 3, noise=0.05)
    broken = table[table[:, -1, 0] > 0.2][:12]
    assert play(policy, broken) == [None] * len(broken)  # nobody keeps it yet
    kept = table[table[:, -1, 0] < -0.2][:12]
    play(policy, kept)
    verdict = policy.report("broken", RUNGS - 1, figures([1.5, -9.0]))
    assert verdict.stop
    assert "breaks the bound on dice" in verdict.reason
    assert verdict.dominated_by
    assert not policy.report("kept", RUNGS - 1, figures([-2.5, -3.0])).stop


def test_a_verdict_can_be_printed():
    outcomes = play(Forecast(BOTH, rungs=RUNGS), curves(40, 0, noise=0.05))
    reasons = [o[1].reason for o in outcomes if o]
    assert all(r.startswith("forecast dice ") and ", ece " in r for r in reasons)
    assert all(r.endswith("is dominated") and "±" in r and " at rung " in r for r in reasons)


#: Events in any order: (trial, rung reached, whether it ends, what is no number).
EVENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=120)


@given(EVENTS, st.sampled_from(sorted(POLICIES)), st.integers(0, 3))
@settings(max_examples=40)
def test_any_interleaving_is_taken_and_the_same_calls_give_the_same_verdicts(events, name, seed):
    bounds = [Constraint.model_validate("dice >= -1")]
    own = {"forecast": {"learn_from": 3}, "halving": {"brackets": 2}}.get(name, {})
    scheduler = Scheduler(policy=name, rungs=[0.25, 0.5, 0.75], **own)

    def verdicts() -> list[Verdict]:
        policy = make_policy(scheduler, BOTH, bounds, seed)
        rng = np.random.default_rng(seed)
        reached: dict[str, int] = {}
        lives = dict.fromkeys(range(10), 0)
        given = []
        for number, rung, ends in events:
            trial = f"{number}.{lives[number]}"
            values = figures(rng.choice([0.0, 1.0, -2.0, np.nan, np.inf], size=2))
            if ends:
                policy.end(trial, values if rung else None)
                lives[number] += 1
            elif rung < 3 and rung > reached.get(trial, -1):
                reached[trial] = rung
                given.append(policy.report(trial, rung, values))
                lives[number] += given[-1].stop
        return given

    assert verdicts() == verdicts()


@pytest.mark.slow
def test_decisions_stay_quick_after_thousands_of_trials():
    policy = Forecast(BOTH, rungs=RUNGS)
    table = curves(3000, 0)
    for trial, curve in enumerate(table):
        policy.report(str(trial), RUNGS - 1, figures(curve[-2]))
        policy.end(str(trial), figures(curve[-1]))
    began = time.process_time()
    for trial, curve in enumerate(table[:200]):
        policy.report(f"new{trial}", RUNGS - 1, figures(curve[-2]))
    # About 1 ms each; the bound is for a busy machine.
    assert time.process_time() - began < 200 * 0.01


def test_a_policy_from_outside_gets_the_settings_that_it_has(monkeypatch):
    class Mine(Unstopped):
        def __init__(self, objectives, constraints=(), *, rungs, seed=0, margin=1.0):
            super().__init__(objectives, constraints, rungs=rungs, seed=seed)
            self.margin = margin

    with pytest.raises(ValueError, match="unknown policy 'forcast', did you mean 'forecast'"):
        Scheduler(policy="forcast")
    monkeypatch.setitem(POLICIES._added, "mine", Mine)
    made = make_policy(Scheduler(policy="mine", settings={"margin": 0.5}), BOTH)
    assert (made.margin, made.rungs) == (0.5, 2)
    with pytest.raises(UserError, match=r"mine has no setting 'margen'. Known: margin"):
        make_policy(Scheduler(policy="mine", settings={"margen": 0.5}), BOTH)
    with pytest.raises(UserError, match="has no setting 'seed'"):
        make_policy(Scheduler(policy="none", settings={"seed": 1}), BOTH)
