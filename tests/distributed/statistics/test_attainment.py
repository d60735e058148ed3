"""The empirical attainment function against closed forms and a count on a grid."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.distributed.statistics.attainment import attainment_share, attainment_surfaces
from trustsweep.distributed.statistics.front import Direction, pareto_mask

BOTH: tuple[Direction, ...] = ("max", "min")
# Few distinct values, so that ties, duplicates and dominated models are common.
LEVEL = st.one_of(st.integers(0, 6).map(float), st.just(float("nan")))
FRONTS = st.lists(st.lists(st.tuples(LEVEL, LEVEL), max_size=6), min_size=1, max_size=5)
DIRECTIONS = st.tuples(*[st.sampled_from(["max", "min"])] * 2)
GRID = np.array([(x, y) for x in np.arange(-0.5, 7, 0.5) for y in np.arange(-0.5, 7, 0.5)])


def counted(point, fronts, directions) -> float:
    """The definition, read out loud."""
    better = [np.greater_equal if d == "max" else np.less_equal for d in directions]
    hit = [
        any(all(b(v, p) for b, v, p in zip(better, model, point, strict=True)) for model in front)
        for front in fronts
    ]
    return sum(hit) / len(fronts)


def test_two_crossing_fronts_have_their_union_and_their_intersection() -> None:
    best, worst = attainment_surfaces([[(1, 4), (3, 2)], [(2, 1), (4, 0)]], ("min", "min"))
    assert best.tolist() == [[1, 4], [2, 1], [4, 0]]
    # Both seeds reach what is right of and above a corner of each.
    assert worst.tolist() == [[2, 4], [3, 2]]


def test_directions_may_differ() -> None:
    best, worst = attainment_surfaces([[(0.9, 0.3), (0.5, 0.1)], [(0.7, 0.2)]], BOTH)
    assert best.tolist() == [[0.5, 0.1], [0.7, 0.2], [0.9, 0.3]]
    assert worst.tolist() == [[0.5, 0.2], [0.7, 0.3]]


def test_a_seed_without_a_model_attains_nothing() -> None:
    best, worst = attainment_surfaces([[(1.0, 1.0)], [(np.nan, 0.0)]], BOTH)
    assert best.tolist() == [[1.0, 1.0]]
    assert worst.shape == (0, 2)
    assert attainment_surfaces([], BOTH) == []
    assert np.isnan(attainment_share([(1.0, 1.0)], [], BOTH)).all()


@given(st.lists(st.tuples(LEVEL, LEVEL), max_size=8), DIRECTIONS)
def test_one_seed_attains_its_own_front(front, directions) -> None:
    (surface,) = attainment_surfaces([front], directions)
    mask = pareto_mask(front, directions)
    expected = np.unique(np.array(front).reshape(-1, 2)[mask], axis=0)
    assert surface.tolist() == expected.tolist()


@given(FRONTS, DIRECTIONS)
def test_surfaces_and_shares_are_what_counting_on_a_grid_gives(fronts, directions) -> None:
    expected = np.array([counted(point, fronts, directions) for point in GRID])
    assert attainment_share(GRID, fronts, directions) == pytest.approx(expected)
    for k, surface in enumerate(attainment_surfaces(fronts, directions), start=1):
        inside = attainment_share(GRID, [surface], directions) == 1.0
        assert (inside == (expected >= k / len(fronts) - 1e-9)).all()


@given(FRONTS, DIRECTIONS)
def test_surfaces_are_nested(fronts, directions) -> None:
    surfaces = attainment_surfaces(fronts, directions)
    assert len(surfaces) == len(fronts)
    for outer, inner in pairwise(surfaces):
        assert (attainment_share(inner, [outer], directions) == 1.0).all()


def test_three_objectives_have_shares() -> None:
    fronts = [[(1, 1, 1)], [(0, 0, 0), (2, 2, 2)], [(3, 0, 3)]]
    points = [(0, 0, 0), (1, 1, 1), (3, 0, 3), (np.nan, 0, 0)]
    share = attainment_share(points, fronts, ("max", "max", "max"))
    assert share[:3] == pytest.approx([1, 2 / 3, 1 / 3])
    assert np.isnan(share[3])
    with pytest.raises(ValueError, match="2 objectives, not 3"):
        attainment_surfaces(fronts, ("max", "max", "max"))
