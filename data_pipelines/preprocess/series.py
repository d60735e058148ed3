"""Measurements at irregular times, brought onto a grid of equal steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustsweep.data_pipelines.sample import Series


def to_grid(
    hours: ArrayLike,
    channel: ArrayLike,
    value: ArrayLike,
    *,
    steps: int,
    step_hours: float,
    channels: int,
) -> tuple[Series, int]:
    """One patient's measurements on a grid of `steps` (T) steps and `channels` (F) channels.

    Step t covers [t, t + 1) x `step_hours`. Its value is the mean of the channel's measurements
    within, NaN where there is none. `delta` follows GRU-D (Che et al. 2018, arXiv 1606.01865,
    section 2.1) with the steps' starts as times: 0 in the first step, then `step_hours` where the
    channel was observed in the step before, else `step_hours` more than there.

    Args:
        hours: (n,) since the start, in any order.
        channel: (n,) whole numbers from 0 to F - 1.
        value: (n,) in the channel's unit. NaN is no measurement and changes nothing.
        steps: T, at least 1.
        step_hours: Width of a step, above 0.
        channels: F, at least 1.

    Returns:
        The series, and the number of measurements left out because their time is unknown (NaN) or
        outside of [0, T x `step_hours`).

    Raises:
        ValueError: for arrays of other lengths, a channel outside the range, an infinite value.
    """
    if steps < 1 or channels < 1 or not step_hours > 0:
        raise ValueError(f"no grid of {steps} steps of {step_hours} h and {channels} channels")
    time, row, number = _columns(hours, channel, value)
    if row.size and (row.min() < 0 or row.max() >= channels):
        raise ValueError(f"channels are 0 to {channels - 1}, not {row.min()} to {row.max()}")
    measured = ~np.isnan(number)
    inside = measured & (time >= 0) & (time < steps * step_hours)
    # A time just below the end may round up to it when divided.
    step = np.minimum(np.floor(time[inside] / step_hours).astype(np.int64), steps - 1)
    cell = step * channels + row[inside]
    count = np.bincount(cell, minlength=steps * channels)
    total = np.bincount(cell, weights=number[inside], minlength=steps * channels)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an unobserved cell.
        mean = (total / count).reshape(steps, channels)
    return (
        Series(value=mean.astype(np.float32), delta=_delta(~np.isnan(mean), step_hours)),
        int((measured & ~inside).sum()),
    )


def _columns(
    hours: ArrayLike, channel: ArrayLike, value: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    time = np.asarray(hours, np.float64)
    number = np.asarray(value, np.float64)
    raw = np.asarray(channel)
    # An empty list is a float array to numpy.
    if raw.size and not np.issubdtype(raw.dtype, np.integer):
        raise ValueError(f"channels are whole numbers, not {raw.dtype}")
    if time.ndim != 1 or not time.shape == raw.shape == number.shape:
        raise ValueError(
            "hours, channel and value are lists of one length, "
            f"not {time.shape}, {raw.shape} and {number.shape}"
        )
    if np.isinf(number).any():
        raise ValueError("an infinite value is no measurement")
    return time, raw.astype(np.int64), number


def _delta(observed: NDArray[np.bool_], step_hours: float) -> NDArray[np.float32]:
    """(T, F) hours since the channel's last observed step before, since the start if none was."""
    index = np.arange(len(observed))[:, None]
    latest = np.maximum.accumulate(np.where(observed, index, 0), axis=0)
    before = np.zeros_like(latest)
    before[1:] = latest[:-1]
    return ((index - before) * step_hours).astype(np.float32)
