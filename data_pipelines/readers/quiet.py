"""Silences libraries that print while they read: their output may quote a patient's values."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_STDERR = 2
_REDIRECTING = threading.Lock()


class _Silence:
    """Warnings and loggers held back while any thread reads.

    Both belong to the whole process: were each reader to restore what it found, two that overlap
    would leave the process silent for good. The first one in changes them, the last one out
    restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._levels: dict[str, int] = {}
        self._warnings = warnings.catch_warnings(action="ignore")

    def enter(self, loggers: tuple[str, ...]) -> None:
        with self._lock:
            if not self._inside:
                self._warnings = warnings.catch_warnings(action="ignore")
                self._warnings.__enter__()
            self._inside += 1
            for name in loggers:
                logger = logging.getLogger(name)
                self._levels.setdefault(name, logger.level)
                logger.setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            for name, level in self._levels.items():
                logging.getLogger(name).setLevel(level)
            self._levels.clear()
            self._warnings.__exit__(None, None, None)


_SILENCE = _Silence()


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hold back Python's warnings and everything from `loggers`, in all threads meanwhile."""
    _SILENCE.enter(loggers)
    try:
        yield
    finally:
        _SILENCE.leave()


@contextmanager
def quiet_c() -> Iterator[None]:
    """Hold back what C libraries write to standard error; libtiff offers no other way.

    Whatever other threads write there meanwhile is lost as well: keep it short.
    """
    with _REDIRECTING, ExitStack() as stack:
        kept = os.dup(_STDERR)
        stack.callback(os.close, kept)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, _STDERR)
        stack.callback(os.dup2, kept, _STDERR)
        yield
