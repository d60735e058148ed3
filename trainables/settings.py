"""Reading one trial's config: a missing or impossible value is a `UserError`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import nearest


def number(
    config: Mapping[str, Any], key: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """The finite number at `key`, in [low, high]. Raises `UserError` naming the key."""
    value = _present(config, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"config: {key!r} must be a number, not {value!r}.")
    if not low <= value <= high:
        raise UserError(f"config: {key!r} is {value}, outside [{low:g}, {high:g}].")
    return float(value)


def whole(config: Mapping[str, Any], key: str, low: int, high: float = math.inf) -> int:
    """The whole number at `key`, in [low, high]. Raises `UserError` naming the key."""
    value = _present(config, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"config: {key!r} must be a whole number from {low} up, not {value!r}.")
    if value > high:
        raise UserError(f"config: {key!r} is {value}, above {high:g}.")
    return value


def flag(config: Mapping[str, Any], key: str) -> bool:
    """True or false at `key`. Raises `UserError` naming the key."""
    value = _present(config, key)
    if not isinstance(value, bool):
        raise UserError(f"config: {key!r} must be true or false, not {value!r}.")
    return value


def word(config: Mapping[str, Any], key: str, known: Iterable[str]) -> str:
    """The word at `key`, one of `known`. Raises `UserError` naming the key and the nearest word."""
    value, words = _present(config, key), sorted(known)
    if value not in words:
        close = nearest(str(value), words)
        raise UserError(f"config: {key!r} is {value!r}{close} Known: {', '.join(words)}.")
    return str(value)


def _present(config: Mapping[str, Any], key: str) -> Any:
    if key not in config:
        raise UserError(f"config: {key!r} is missing; give it a value in the study's space.")
    return config[key]
