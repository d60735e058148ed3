"""The problems that searches are compared on: true fronts, curves, and what is measured of them."""

import math

import numpy as np
import pytest
from efficiency.measure import Trace
from efficiency.problems import FUNCTIONS, MEASURED, STEPS, Analytic, Recorded, correlation
from efficiency.ways import TRIALS, WAYS, sweep
from hypothesis import given
from hypothesis import strategies as st
from replay import Played
from scipy.integrate import quad
from scipy.stats import spearmanr

from distributed.front import hypervolume

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
    values = function.values(np.random.default_rng(0).random((2000, function.variables)))
    front = function.front(100_000 if values.shape[1] == 2 else 10_000)
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


def test_the_correlations_are_those_of_the_recorded_trainings(real_data):
    problem = Recorded(real_data / "learning_curves" / "xray_lungs_64_configs.jsonl")
    curves = np.array(
        [[p.values for p in problem.curve({"index": i}, 0)] for i in range(problem.pool)]
    )
    shares = [step / problem.steps[-1] for step in problem.steps]
    assert shares == list(MEASURED["share"][1:])
    for objective, role in enumerate(("robustness", "calibration")):
        seen = [spearmanr(curves[:, k, objective], curves[:, -1, objective])[0] for k in range(7)]
        assert np.allclose(seen, MEASURED[role][1:], atol=0.005)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_repeatable_and_ends_every_trial_once(way):
    problem = Analytic("zdt2")
    finals = np.array([[0.0, 0.0], [1.0, 10.0]])
    first, again = (sweep(problem, WAYS[way], 5, finals) for _ in range(2))
    assert [(p.trial, p.rung, p.spent) for p in first] == [
        (p.trial, p.rung, p.spent) for p in again
    ]
    assert sorted(p.trial for p in first) == list(range(TRIALS))
    full = TRIALS * STEPS
    if WAYS[way].stopping is None:
        assert first[-1].spent == full
    else:
        assert first[-1].spent < full
        assert any(p.stopped for p in first)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.booleans()), min_size=1))
def test_the_volume_grows_with_what_ended_only(trials):
    history = [
        Played(float(i + 1), i, 0 if stopped else None, np.array([a, b]))
        for i, (a, b, stopped) in enumerate(trials)
    ]
    trace = Trace.of(history, ["min", "max"], np.array([1.0, 1.0]))
    ended = [p.values for p in history if not p.stopped]
    assert trace.final == (hypervolume(ended, ["min", "max"], [1.0, 1.0]) if ended else 0.0)
    assert (np.diff(trace.volume) >= 0).all()
    reached = trace.cost_to(trace.final)
    assert trace.at(np.array([reached]))[0] == trace.final
    assert trace.cost_to(trace.final + 1) == math.inf
