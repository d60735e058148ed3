"""The problems that searches are compared on: true fronts, curves, and what is measured of them."""

import math

import numpy as np
import pytest
from efficiency.measure import Reached, Trace, cheaper, finals_of, reached, row
from efficiency.problems import (
    EVALUATION,
    FUNCTIONS,
    MEASURED,
    PAIRS,
    STEPS,
    Analytic,
    Recorded,
    correlation,
)
from efficiency.stopping import RULES, RUNGS, picked, policy_of
from efficiency.ways import TRIALS, TrialOutcome, Way, sweep
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import spearmanr

from trustsweep.distributed.statistics.front import hypervolume

FAR = 1.1
#: Where ZDT3's front lies, as intervals of its first objective (Zitzler, Deb, Thiele 2000).
ZDT3_PARTS = (
    (0.0, 0.0830015349),
    (0.1822287280, 0.2577623634),
    (0.4093136748, 0.4538821041),
    (0.6183967944, 0.6525117038),
    (0.8233317983, 0.8518328654),
)


def zdt3_volume() -> float:
    """Of the front's parts, and of the gaps after them, where the last value of a part stands."""

    def height(f: float) -> float:
        return 1 - math.sqrt(f) - f * math.sin(10 * math.pi * f)

    starts = [start for start, _ in ZDT3_PARTS[1:]] + [FAR]
    inside = sum(quad(lambda f: FAR - height(f), *part)[0] for part in ZDT3_PARTS)
    gaps = zip(ZDT3_PARTS, starts, strict=True)
    return inside + sum((FAR - height(end)) * (start - end) for (_, end), start in gaps)


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("zdt1", FAR**2 - 1 / 3),
        ("zdt2", FAR**2 - 2 / 3),
        ("zdt3", zdt3_volume()),
        ("dtlz2", FAR**3 - math.pi / 6),
    ],
)
def test_the_front_has_its_known_volume(name, volume):
    front = FUNCTIONS[name].front(4000)
    directions = ["min"] * front.shape[1]
    assert hypervolume(front, directions, [FAR] * len(directions)) == pytest.approx(
        volume, rel=0.02
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_lies_beyond_the_front(name):
    function = FUNCTIONS[name]
    values = function.values(np.random.default_rng(0).random((1000, function.variables)))
    front = function.front(10_000)
    beaten = [((front <= value + 0.02).all(axis=1)).any() for value in values]
    assert all(beaten)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_front_is_where_the_function_says(name):
    """x₂... = 0 for ZDT, ½ from x₃ on for DTLZ2, whose front is the unit sphere."""
    function = FUNCTIONS[name]
    x = np.random.default_rng(0).random((50, function.variables))
    if name == "dtlz2":
        x[:, 2:] = 0.5
        assert np.allclose((function.values(x) ** 2).sum(axis=1), 1)
    else:
        x[:, 1:] = 0
        grid = function.front(200_000)
        on_front = [np.abs(grid - value).max(axis=1).min() < 1e-3 for value in function.values(x)]
        parts = [any(low <= f <= high for low, high in ZDT3_PARTS) for f in x[:, 0]]
        assert on_front == (parts if name == "zdt3" else [True] * len(x))


def configs(problem: Analytic, count: int) -> list[dict[str, float]]:
    draws = np.random.default_rng(1).random((count, problem.function.variables))
    return [{f"x{i + 1}": float(x) for i, x in enumerate(row)} for row in draws]


@pytest.mark.slow
def test_curves_foretell_their_ends_as_real_ones_do():
    problem = Analytic("zdt1")
    curves = np.array(
        [[point.values for point in problem.curve(c, seed=0)] for c in configs(problem, 4000)]
    )
    for index, step in enumerate(problem.steps):
        for objective, role in enumerate(("robustness", "calibration")):
            seen = np.corrcoef(curves[:, index, objective], curves[:, -1, objective])[0, 1]
            assert seen == pytest.approx(correlation(role, step / STEPS), abs=0.05)


def test_a_curve_is_its_config_and_seed_and_ends_at_the_function():
    problem = Analytic("dtlz2")
    (config,) = configs(problem, 1)
    first, again, other = (problem.curve(config, seed=s) for s in (3, 3, 4))
    assert all((a.values == b.values).all() for a, b in zip(first, again, strict=True))
    assert all((a.values != b.values).all() for a, b in zip(first[:-1], other[:-1], strict=True))
    exact = problem.function.values(np.array([list(config.values())]))[0]
    assert (first[-1].values == exact).all()
    assert (other[-1].values == exact).all()


@pytest.fixture(scope="module")
def curves(real_data):
    return real_data / "learning_curves" / "xray_lungs_64_configs.jsonl"


def test_the_correlations_are_those_of_the_recorded_trainings(curves):
    problem = Recorded(curves)
    table = np.array(
        [[p.values for p in problem.curve({"index": i}, 0)] for i in range(problem.pool)]
    )
    shares = [step / problem.steps[-1] for step in problem.steps]
    assert shares == list(MEASURED["share"][1:])
    for objective, role in enumerate(("robustness", "calibration")):
        seen = [spearmanr(table[:, k, objective], table[:, -1, objective])[0] for k in range(7)]
        assert np.allclose(seen, MEASURED[role][1:], atol=0.005)


def test_an_evaluation_of_the_recorded_trainings_costs_as_much_as_two_epochs(curves):
    problem = Recorded(curves)
    costs = [problem.evaluation({"index": i}) for i in range(problem.pool)]
    epochs = [problem.curve({"index": i}, 0)[-1].cost / 16 for i in range(problem.pool)]
    assert np.median(np.divide(costs, epochs)) == pytest.approx(EVALUATION, abs=0.3)


WAYS = [
    Way("guide"),
    *(Way("random", rule, "1/4") for rule in RULES if rule != "none"),
    Way("tpe", "scalarised", "1/4"),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_is_repeatable_and_ends_every_trial_once(way):
    problem = Analytic("zdt2")
    finals = np.array([[0.0, 0.0], [1.0, 10.0]])
    first, again = (sweep(problem, way, 5, finals) for _ in range(2))
    assert first == again
    assert sorted(trial.number for trial in first) == list(range(TRIALS))
    ends = [STEPS * share for share in (1 / 4, 1 / 2)]
    for trial in first:
        stopped = trial.rung is not None
        assert trial.training == (ends[trial.rung] if stopped else STEPS)
        rungs = 0 if way.rule == "none" else 2
        assert trial.evaluations == (trial.rung if stopped else rungs) + 1
        assert trial.evaluation == EVALUATION
    stopped = any(trial.rung is not None for trial in first)
    # Forecast stops nothing where it has not learnt how figures foretell the end.
    assert stopped == (way.rule != "none") or way.rule == "forecast"


@pytest.mark.parametrize("rungs", ["1/8", "1/4"])
def test_every_rule_looks_at_the_same_rungs(rungs):
    problem = Analytic("zdt1")
    where = picked(RUNGS[rungs], problem.steps)
    assert [problem.steps[i] / STEPS for i in where] == [*RUNGS[rungs], 1.0]
    finals = np.array([[0.0, 0.0], [1.0, 10.0]])
    for rule in RULES:
        if rule != "none":
            policy = policy_of(rule, problem.objectives, RUNGS[rungs], finals)
            assert policy.rungs == len(RUNGS[rungs])


def test_a_rung_that_was_not_measured_is_refused(curves):
    with pytest.raises(ValueError, match="not measured"):
        picked((0.3,), Recorded(curves).steps)


def test_the_scalarised_halving_of_a_study_decides_as_rays_asha_does():
    """With the range of all that ever comes there; but for what lies between the two middle ones,
    which a quantile of places lets go on."""
    problem = Analytic("zdt1")
    draws = np.random.default_rng(3).random((200, 2))
    table = np.vstack([[[0.0, 0.0], [1.0, 1.0]], draws])
    names = [o.name for o in problem.objectives]
    ours, rays = (
        policy_of(rule, problem.objectives, RUNGS["1/4"], table) for rule in ("scalarised", "asha")
    )
    same = [
        ours.report(str(i), 0, figures).stop == rays.report(str(i), 0, figures).stop
        for i, figures in enumerate(dict(zip(names, row, strict=True)) for row in table.tolist())
    ]
    assert np.mean(same) > 0.95


def test_real_curves_are_spared_cost_and_keep_their_front(curves):
    """Dice against ECE, both under attack, in 10 random orders."""
    problem = Recorded(curves, PAIRS[4])
    ways = [Way("random"), *(Way("random", r, "1/4") for r in ("scalarised", "forecast"))]
    runs = {way.name: {seed: sweep(problem, way, seed) for seed in range(10)} for way in ways}
    found = reached(problem, runs, "random none")
    assert np.isfinite(found["random none"].cost).all()
    for way in ways[1:]:
        figures = row(found[way.name], found["random none"])
        assert figures["reached"][0] >= 0.9
        assert figures["spent"][0] < 0.9


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.booleans()), min_size=1))
def test_the_volume_grows_with_what_ended_only(trials):
    history = [
        TrialOutcome(i, 0 if stopped else None, 1.0, 1, 0.5, [a, b])
        for i, (a, b, stopped) in enumerate(trials)
    ]
    trace = Trace.of(history, ["min", "max"], np.array([1.0, 1.0]))
    ended = [trial.values for trial in history if trial.rung is None]
    assert trace.final == (hypervolume(ended, ["min", "max"], [1.0, 1.0]) if ended else 0.0)
    assert trace.total == pytest.approx(1.5 * len(history))
    assert (np.diff(trace.volume) >= 0).all()
    assert trace.cost_to(trace.final) <= trace.total
    assert trace.cost_to(trace.final + 1) == math.inf
    free = Trace.of(history, ["min", "max"], np.array([1.0, 1.0]), weight=0.0)
    assert free.total == pytest.approx(len(history))


def test_a_seeds_goal_is_set_by_the_other_seeds():
    """The baseline's last seed finds far more than the others: it alone is there, as its goal is
    theirs, and theirs is not raised by it."""

    def run(volume: float) -> list[TrialOutcome]:
        return [TrialOutcome(0, None, 10.0, 1, 0.0, [1 - volume, 0.0])]

    problem = Analytic("zdt1")
    runs = {
        "random none": {0: [TrialOutcome(0, None, 10.0, 1, 0.0, [1.0, 1.0])]},
        "guide none": {0: run(0.5), 1: run(0.4), 2: run(0.9)},
    }
    found = reached(problem, runs, "guide none")["guide none"]
    assert list(np.isfinite(found.cost)) == [False, False, True]
    assert found.final == pytest.approx([0.5 / 0.65, 0.4 / 0.7, 0.9 / 0.45])


def test_failed_runs_are_begun_anew_in_the_expected_cost():
    way = Reached((0, 1, 2), np.array([4.0, math.inf, 6.0]), np.full(3, 10.0), np.ones(3))
    full = Reached((0, 1, 2), np.array([8.0, 8.0, 8.0]), np.full(3, 10.0), np.ones(3))
    assert way.expected() == (4 + 10 + 6) / 2
    figures = row(way, full)
    assert figures["expected"][0] == pytest.approx(10 / 8)
    assert figures["reached"][0] == pytest.approx(2 / 3)
    for value, low, high in (figures[k] for k in ("reached", "expected", "spent", "final")):
        assert low <= value <= high
    assert cheaper(way, full)[0] == pytest.approx(2 / 3)
    assert cheaper(full, full)[0] == 0.5
    assert finals_of(
        [TrialOutcome(0, 1, 1.0, 1, 0.0, [1.0]), TrialOutcome(1, None, 1.0, 1, 0.0, [2.0])]
    ) == [[2]]
