"""Irregular measurements on a grid: held to the definition, written as a loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.preprocess.series import to_grid

MEASUREMENTS = st.lists(
    st.tuples(
        st.one_of(st.floats(-5, 40), st.just(math.nan), st.integers(-2, 30).map(float)),
        st.integers(0, 2),
        st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)),
    ),
    max_size=40,
)


def _naive(measurements, steps: int, width: float, channels: int):
    """GRU-D's definitions, cell by cell."""
    value = np.full((steps, channels), np.nan)
    delta = np.zeros((steps, channels))
    outside = sum(
        not (0 <= hour < steps * width) for hour, _, number in measurements if number == number
    )
    for f in range(channels):
        for t in range(steps):
            held = [
                number
                for hour, channel, number in measurements
                if channel == f and t * width <= hour < (t + 1) * width and number == number
            ]
            if held:
                value[t, f] = math.fsum(held) / len(held)
            if t > 0:
                observed = not math.isnan(value[t - 1, f])
                delta[t, f] = width + (0 if observed else delta[t - 1, f])
    return value, delta, outside


@given(MEASUREMENTS, st.integers(1, 12), st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_a_grid_is_what_the_definition_says(measurements, steps, width):
    hours, channel, number = ([m[i] for m in measurements] for i in range(3))
    series, outside = to_grid(hours, channel, number, steps=steps, step_hours=width, channels=3)
    value, delta, expected = _naive(measurements, steps, width, 3)
    assert series.value.dtype == series.delta.dtype == np.float32
    np.testing.assert_allclose(series.value, value, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(series.delta, delta)
    assert outside == expected


@given(MEASUREMENTS, st.randoms(use_true_random=False))
def test_the_order_of_the_measurements_does_not_matter(measurements, random):
    shuffled = list(measurements)
    random.shuffle(shuffled)
    grids = [
        to_grid(
            [m[0] for m in ms],
            np.array([m[1] for m in ms], int),
            [m[2] for m in ms],
            steps=8,
            step_hours=3,
            channels=3,
        )
        for ms in (measurements, shuffled)
    ]
    np.testing.assert_allclose(grids[0][0].value, grids[1][0].value, atol=1e-4)
    np.testing.assert_array_equal(grids[0][0].delta, grids[1][0].delta)
    assert grids[0][1] == grids[1][1]


def test_the_example_of_the_gru_d_paper_on_hourly_steps():
    """Observed at hours 0 and 3 of five: the gap grows until it is observed, one step late."""
    series, outside = to_grid([0.2, 3.5], [0, 0], [7, 9], steps=5, step_hours=1, channels=2)
    np.testing.assert_array_equal(series.value[:, 0], [7, np.nan, np.nan, 9, np.nan])
    np.testing.assert_array_equal(series.delta[:, 0], [0, 1, 2, 3, 1])
    np.testing.assert_array_equal(series.delta[:, 1], [0, 1, 2, 3, 4])
    assert outside == 0


def test_nothing_measured_is_all_unobserved():
    series, outside = to_grid([], [], [], steps=3, step_hours=2, channels=1)
    assert np.isnan(series.value).all()
    np.testing.assert_array_equal(series.delta[:, 0], [0, 2, 4])
    assert outside == 0


def test_the_start_is_inside_and_the_end_is_not():
    series, outside = to_grid(
        [0, 48, -0.01], [0, 0, 0], [1, 2, 3], steps=48, step_hours=1, channels=1
    )
    assert series.value[0, 0] == 1
    assert outside == 2


def test_a_time_that_rounds_up_to_the_end_stays_in_the_last_step():
    width = 0.1
    hour = np.nextafter(3 * width, 0)
    series, outside = to_grid([hour], [0], [5], steps=3, step_hours=width, channels=1)
    assert outside == 0
    assert series.value[2, 0] == 5


@pytest.mark.parametrize(
    ("hours", "channel", "value", "message"),
    [
        ([1], [3], [1], "channels are 0 to 2"),
        ([1], [-1], [1], "channels are 0 to 2"),
        ([1], [0.5], [1], "whole numbers"),
        ([1, 2], [0], [1], "of one length"),
        ([1], [0], [math.inf], "infinite"),
    ],
)
def test_what_is_no_measurement_is_refused(hours, channel, value, message):
    with pytest.raises(ValueError, match=message):
        to_grid(hours, channel, value, steps=4, step_hours=1, channels=3)


@pytest.mark.parametrize(
    ("steps", "width", "channels"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, math.nan, 1)]
)
def test_what_is_no_grid_is_refused(steps, width, channels):
    with pytest.raises(ValueError, match="no grid"):
        to_grid([], [], [], steps=steps, step_hours=width, channels=channels)
