"""The order of trials that halving keeps the best of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trustsweep.distributed.search.stopping.ranking import fronts, losses_of, rank, violations_of
from trustsweep.distributed.statistics.front import Objective, hypervolume, pareto_mask
from trustsweep.search_spaces.study import Constraint

METHODS = ("hypervolume", "epsilon-net", "scalarised")


def unbound(n: int) -> np.ndarray:
    return np.empty((n, 0))


def tables(most: int = 12):
    """(n, m) of few distinct values, so that ties happen."""
    shapes = st.tuples(st.integers(1, most), st.integers(1, 3))
    return shapes.flatmap(lambda shape: arrays(float, shape, elements=st.integers(0, 5)))


@given(tables(), st.sampled_from(METHODS))
def test_no_trial_comes_before_one_that_dominates_it(losses, method):
    order = rank(losses, unbound(len(losses)), method)
    assert sorted(order) == list(range(len(losses)))
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            assert not ((losses[j] <= losses[i]).all() and (losses[j] < losses[i]).any())


@given(tables())
def test_layers_are_the_fronts_of_what_the_layers_before_left(losses):
    left = np.arange(len(losses))
    for front in fronts(losses, np.ones(len(losses), dtype=bool)):
        mask = pareto_mask(losses[left], ["min"] * losses.shape[1])
        assert list(front) == list(left[mask])
        left = left[~mask]
    assert not len(left)


@given(tables(), st.sampled_from(METHODS[:2]))
def test_a_monotone_change_of_a_metric_changes_nothing(losses, method):
    warped = losses.copy()
    warped[:, 0] = np.exp(losses[:, 0]) - 7
    bounds = unbound(len(losses))
    assert list(rank(warped, bounds, method)) == list(rank(losses, bounds, method))


@given(tables())
def test_unit_and_origin_of_a_metric_change_nothing_of_the_scalarised_order(losses):
    bounds = unbound(len(losses))
    other = losses * 2.0 ** np.arange(losses.shape[1]) - 8
    assert list(rank(other, bounds, "scalarised")) == list(rank(losses, bounds, "scalarised"))


def test_scalarised_is_the_order_of_the_mean_over_the_range():
    """0.5 + 0, 0 + 1, 0.25 + 0.25 and 1 + 0.5, halved."""
    losses = np.array([[20, 1.0], [10, 3], [15, 1.5], [30, 2]])
    assert list(rank(losses, unbound(4), "scalarised")) == [0, 2, 1, 3]


def test_what_is_infinite_is_behind_and_leaves_the_range_as_it_is():
    losses = np.array([[np.inf, 0.0], [0.6, 0.5], [0.0, 1.0], [1.0, 0.0], [np.inf, np.inf]])
    assert list(rank(losses, unbound(5), "scalarised")) == [2, 3, 1, 0, 4]


@given(tables(), st.sampled_from(METHODS))
def test_a_trial_without_figures_comes_last_and_moves_no_other(losses, method):
    broken = np.vstack([losses, np.full(losses.shape[1], np.nan)])
    order = rank(broken, unbound(len(broken)), method)
    assert list(order) == [*rank(losses, unbound(len(losses)), method), len(losses)]


@given(tables(), st.data())
def test_tiers_feasible_then_by_violation_then_no_number(losses, data):
    n = len(losses)
    tiers = data.draw(arrays(int, n, elements=st.integers(0, 2)))
    violations = np.where(tiers == 1, np.arange(n) + 1.0, -1.0)[:, None]
    broken = np.where((tiers == 2)[:, None], np.nan, losses)
    order = rank(broken, violations)
    assert list(tiers[order]) == sorted(tiers)
    middle = violations[order][tiers[order] == 1, 0]
    assert list(middle) == sorted(middle)


def test_units_of_violations_do_not_count():
    """The second trial breaks less of both bounds, whatever one of them is measured in."""
    losses = np.zeros((3, 1))
    violations = np.array([[4.0, 3.0], [2.0, 1.0], [1.0, 4.0]])
    assert (
        list(rank(losses, violations)) == list(rank(losses, violations * [1.0, 1e6])) == [1, 2, 0]
    )


def test_within_a_front_the_larger_contribution_goes_first():
    """The ends, then by the rectangle that only a point covers; ranks 1 to 6 on both axes."""
    losses = np.array([[0, 9.0], [1, 5], [2, 4.5], [6, 1], [7, 0], [1.5, 8]])
    order = rank(losses, unbound(6))
    assert set(order[:2]) == {0, 4}
    assert order[-1] == 5  # dominated


@given(arrays(float, (7, 3), elements=st.integers(0, 9)))
def test_contributions_agree_with_the_hypervolume_that_is_lost(losses):
    from trustsweep.distributed.search.stopping.ranking import _contributions

    points = losses[:, :2] / 10
    points = points[pareto_mask(points, ["min", "min"])]
    whole = hypervolume(points, ["min", "min"], [2, 2])
    lost = [
        whole - hypervolume(np.delete(points, i, axis=0), ["min", "min"], [2, 2])
        for i in range(len(points))
    ]
    np.testing.assert_allclose(_contributions(points), lost, atol=1e-9)


def test_an_epsilon_net_takes_what_is_farthest():
    losses = np.array([[0, 4.0], [1, 3], [2, 2], [3, 1], [4, 0]])
    assert list(rank(losses, unbound(5), "epsilon-net")) == [0, 4, 2, 1, 3]


@pytest.mark.parametrize(("direction", "loss"), [("max", -2.0), ("min", 2.0)])
def test_figures_are_turned_and_missing_ones_are_no_number(direction, loss):
    objectives = [Objective("a", direction), Objective("b", "min")]
    assert losses_of({"a": 2.0}, objectives)[0] == loss
    assert np.isnan(losses_of({"a": 2.0}, objectives)[1])
    bounds = [Constraint.model_validate("a >= 3"), Constraint.model_validate("c <= 0")]
    assert violations_of({"a": 2.0}, bounds)[0] == 1.0
    assert np.isnan(violations_of({"a": 2.0}, bounds)[1])
