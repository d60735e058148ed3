"""Libraries that talk while they read: what they say may quote a patient's values."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


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
