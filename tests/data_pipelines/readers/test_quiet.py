"""Readers that overlap in time leave the process as loud as they found it."""

import logging
import threading
import warnings

from trustsweep.data_pipelines.readers.quiet import quiet


def test_overlapping_readers_restore_what_the_first_found():
    logger = logging.getLogger("test.chatty")
    logger.setLevel(logging.WARNING)
    filters = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet("test.chatty"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet("test.chatty"):
        thread.start()
        assert inside.wait(10)
    # The first is out, the second still reads.
    assert not logger.isEnabledFor(logging.CRITICAL)
    with warnings.catch_warnings(record=True) as heard:
        warnings.warn("held back", stacklevel=1)
    assert not heard
    leave.set()
    thread.join()
    assert logger.level == logging.WARNING
    assert list(warnings.filters) == filters


def test_an_error_inside_restores_as_well():
    logger = logging.getLogger("test.chatty")
    logger.setLevel(logging.INFO)
    try:
        with quiet("test.chatty"):
            raise ValueError
    except ValueError:
        pass
    assert logger.level == logging.INFO
