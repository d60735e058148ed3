"""Fronts and hypervolumes against closed forms, Optuna and their own invariances."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _is_pareto_front

from trustsweep.distributed.statistics.front import (
    Archive,
    hypervolume,
    hypervolume_history,
    pareto_mask,
    reference_point,
    sliced_volume,
)

# Whole numbers make ties and duplicates frequent, and their products exact.
cell = st.integers(0, 8).map(float)


def tables(objectives: int, least: int = 1) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(cell, min_size=objectives, max_size=objectives)
    return st.lists(row, min_size=least, max_size=12).map(np.array)


def test_hypervolume_of_two_points_is_three() -> None:
    points, reference = [(1, 2), (2, 1)], (3, 3)
    assert hypervolume(points, ["min", "min"], reference) == 3.0
    assert sliced_volume(np.array(points, float), np.array(reference, float)) == 3.0


def test_hypervolume_of_one_point_is_a_box_in_any_number_of_objectives() -> None:
    assert hypervolume([[2]], ["max"], [0.5]) == 1.5
    assert hypervolume([[2, 1, 4]], ["max", "min", "max"], [0, 4, 1]) == 2 * 3 * 3


@given(tables(2) | tables(3) | tables(4))
@settings(max_examples=60, deadline=None)
def test_hypervolume_agrees_with_optuna_and_with_our_sweep(table: np.ndarray) -> None:
    m = table.shape[1]
    corner = np.full(m, 9.0)
    expected = compute_hypervolume(table, corner)
    assert hypervolume(table, ["min"] * m, corner) == pytest.approx(expected)
    assert sliced_volume(table, corner) == pytest.approx(expected)


def test_hypervolume_works_without_optunas_private_routine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = np.random.default_rng(0).random((30, 3))
    expected = hypervolume(table, ["max", "min", "max"], (0, 1, 0))
    monkeypatch.setitem(sys.modules, "optuna._hypervolume", None)
    assert hypervolume(table, ["max", "min", "max"], (0, 1, 0)) == pytest.approx(expected)


@given(tables(2))
def test_points_beyond_the_reference_add_nothing(table: np.ndarray) -> None:
    inside = hypervolume(table, ["min", "min"], (5, 5))
    outside = np.array([[9.0, 0.0], [5.0, 0.0], [np.nan, 0.0]])
    assert hypervolume(np.vstack([table, outside]), ["min", "min"], (5, 5)) == inside
    assert hypervolume(outside, ["min", "min"], (5, 5)) == 0.0


@given(tables(3))
@settings(deadline=None)
def test_mask_agrees_with_optuna(table: np.ndarray) -> None:
    expected = _is_pareto_front(table, assume_unique_lexsorted=False)
    assert (pareto_mask(table, ["min"] * 3) == expected).all()


@given(tables(3), st.lists(st.floats(0.01, 100), min_size=3, max_size=3), cell)
def test_mask_survives_scaling_shifting_and_turning(
    table: np.ndarray, scales: list[float], shift: float
) -> None:
    expected = pareto_mask(table, ["max", "min", "max"])
    assert (pareto_mask(table * scales + shift, ["max", "min", "max"]) == expected).all()
    assert (pareto_mask(-table, ["min", "max", "min"]) == expected).all()
    turned = table * [1, -1, 1]
    assert (pareto_mask(turned, ["max", "max", "max"]) == expected).all()


@given(tables(2, least=2), st.randoms(use_true_random=False))
def test_mask_follows_its_rows(table: np.ndarray, random: object) -> None:
    order = np.array(sorted(range(len(table)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    mask = pareto_mask(table, ["max", "min"])
    assert (pareto_mask(table[order], ["max", "min"]) == mask[order]).all()


@given(tables(2))
def test_duplicates_of_a_front_point_all_stay(table: np.ndarray) -> None:
    once = pareto_mask(table, ["max", "min"])
    assert once.any()
    twice = pareto_mask(np.vstack([table, table]), ["max", "min"])
    assert (twice == np.concatenate([once, once])).all()


def test_rows_with_nan_are_never_on_the_front_and_beat_nobody() -> None:
    mask = pareto_mask([[np.nan, 0.0], [1.0, 1.0], [2.0, np.nan]], ["max", "min"])
    assert mask.tolist() == [False, True, False]


@given(tables(2) | tables(3))
def test_an_archive_is_the_front_of_every_prefix(table: np.ndarray) -> None:
    """Keys and values in the order of arrival; now and then a NaN."""
    table = np.where(table == 8, np.nan, table)
    directions = ["max", "min", "max"][: table.shape[1]]
    archive: Archive[int] = Archive(directions)
    for i, row in enumerate(table):
        joined = archive.add(i, row)
        mask = pareto_mask(table[: i + 1], directions)
        assert joined == mask[i]
        assert archive.keys == np.flatnonzero(mask).tolist()
        assert (archive.values == table[: i + 1][mask]).all()


def test_no_rows_give_an_empty_mask_and_no_volume() -> None:
    assert pareto_mask([], ["max", "min"]).shape == (0,)
    assert hypervolume([], ["max", "min"], (0, 1)) == 0.0
    assert hypervolume_history([], ["max", "min"], (0, 1)).shape == (0,)


@given(tables(2) | tables(3))
@settings(deadline=None)
def test_history_rises_and_ends_at_the_hypervolume(table: np.ndarray) -> None:
    directions = ["max", "min", "max"][: table.shape[1]]
    reference = [-1.0, 9.0, -1.0][: table.shape[1]]
    history = hypervolume_history(table, directions, reference)
    assert (np.diff(history) >= 0).all()
    assert history[0] == pytest.approx(hypervolume(table[:1], directions, reference))
    assert history[-1] == pytest.approx(hypervolume(table, directions, reference))


def test_a_failed_trial_leaves_the_history_where_it_was() -> None:
    history = hypervolume_history([[1, 1], [np.nan, 1], [2, 1]], ["max", "min"], (0, 2))
    assert history.tolist() == [1.0, 1.0, 2.0]


def test_reference_is_the_worst_end_of_a_closed_range() -> None:
    closed = [(0.0, 1.0), (0.0, 1.0)]
    assert reference_point([[0.8, 0.1]], ["max", "min"], closed) == (0.0, 1.0)
    assert reference_point([], ["max", "min"], closed) == (0.0, 1.0)


def test_reference_of_an_open_range_lies_ten_per_cent_beyond_the_nadir() -> None:
    values = [
        [4.0, 10.0],
        [8.0, 20.0],
        [1.0, 90.0],
    ]  # The last one is beaten: no part of it counts.
    open_ends = [(None, None), (0.0, np.inf)]
    assert reference_point(values, ["max", "min"], open_ends) == pytest.approx((3.6, 21.0))
    assert reference_point([[-5.0]], ["max"], [(None, 0.0)]) == pytest.approx((-5.5,))
    assert reference_point([[0.0]], ["min"], [(0.0, None)]) == pytest.approx((0.1,))


@given(tables(2))
def test_every_front_model_is_inside_an_open_reference(table: np.ndarray) -> None:
    directions, bounds = ["max", "min"], [(None, None), (None, None)]
    reference = reference_point(table, directions, bounds)
    members = table[pareto_mask(table, directions)]
    assert (members[:, 0] > reference[0]).all()
    assert (members[:, 1] < reference[1]).all()


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="2 objectives"):
        pareto_mask([[1.0, 2.0, 3.0]], ["max", "min"])
    with pytest.raises(ValueError, match="up"):
        pareto_mask([[1.0]], ["up"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="finished model"):
        reference_point([[np.nan]], ["max"], [(None, None)])
