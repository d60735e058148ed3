"""Libraries that talk while they read: what they say may quote a patient's values."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_STDERR = 2
_REDIRECTING = threading.Lock()


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hold back Python's warnings and everything from `loggers`.

    Python's warning filters belong to the whole process: not for use in threads.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        for name in loggers:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
        yield


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
