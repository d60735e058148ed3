"""Which slices of a scan become samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError


def check_options(dims: int, slices: str | int, depth: int, some: str = "tumour") -> None:
    """Raises `UserError` for invalid values, and for those that would not be used.

    `dims` is 2 (slices, of which `slices` says which) or 3 (volumes of `depth` slices, 0 for as
    many as pixels a side). `some` is what a layout calls slices whose mask holds anything.
    """
    if isinstance(dims, bool) or dims not in (2, 3):
        raise UserError(f"dims: 2 for slices or 3 for volumes, not {dims!r}.")
    if slices not in ("all", some) and not is_whole(slices, 1):
        raise UserError(f"slices: all, {some}, or a whole number n for every n-th, not {slices!r}.")
    if not is_whole(depth, 0):
        raise UserError(f"depth: a number of slices, or 0 for as many as size, not {depth!r}.")
    if dims == 3 and slices != "all":
        raise UserError("slices: chooses among slices; leave it out with dims=3.")
    if dims == 2 and depth:
        raise UserError("depth: is that of volumes; leave it out, or set dims=3.")


def is_whole(value: object, least: int) -> bool:
    """Whether an option is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def choose(rule: str | int, held: NDArray[np.bool_], *, seed: int, key: str) -> list[int]:
    """Indices of the slices to keep, in order; never none.

    Args:
        rule: "all"; n for every n-th, from the first; any other word ("tumour", "foreground") for
            those whose mask holds any and, drawn at random, as many without, at least one.
        held: (D,) whether a slice's mask holds any.
        seed: Of the draw.
        key: Hexadecimal name of the scan, so that its draw depends on no other scan.
    """
    if isinstance(rule, int):
        return list(range(0, len(held), rule))
    if rule == "all":
        return list(range(len(held)))
    filled, empty = np.flatnonzero(held), np.flatnonzero(~held)
    count = min(max(1, len(filled)), len(empty))
    drawn = np.random.default_rng((seed, int(key, 16))).choice(empty, count, replace=False)
    return sorted([*filled.tolist(), *drawn.tolist()])
